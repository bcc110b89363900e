"""Damped Newton on the KKT conditions of equality-constrained problems, all instances of a batch at once."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import argminlayer as al

STEPS = 2.0 ** -torch.arange(0.0, 30.0, 1.0, dtype=torch.float64)
"""Step lengths that are tried, the longest first."""


@dataclass(frozen=True)
class Newton(al.AbstractSolver):
    """Newton's method for ``min f(u)`` subject to ``h(u) = 0``, damped by a line search.

    Each step (d, nu) solves, with B the Hessian of the Lagrangian made positive by the size of its eigenvalues,

        [ B  A' ] [ d  ]     [ grad f ]
        [ A  0  ] [ nu ] = - [   h    ]

    and is shortened until the merit function ``f + rho |h|_1`` falls by a part of what its slope promises. B must
    not be singular on the null space of A. Where h cannot vanish the steps end at a point that is not feasible.

    Attributes:
        tol: an instance is solved when the gradient of the Lagrangian and h are below it.
        max_iter: steps of the whole batch.

    Reference: Nocedal and Wright, *Numerical Optimization*, 2006, sec. 18.4 (the method) and 3.4 (the Hessian).
    """

    name: ClassVar[str] = "outsider.newton"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        constraints=frozenset({"equality"}),
        objectives=frozenset({"smooth", "least-squares", "none"}),
        requires=frozenset({"hessian"}),
        batched=True,
    )

    tol: float = 1e-9
    max_iter: int = 100

    def available(self) -> al.Availability:
        """Return true: nothing but torch is needed."""
        return al.Availability(True)

    def preference(self, problem: al.BoundProblem) -> float:
        """Return 5: dense matrices, but no loop over the batch."""
        return 5.0 if problem.batch > 1 else 0.0

    def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
        """Take steps until every instance is solved or cannot move."""
        z = start
        nu, lam = z.new_zeros(problem.batch, problem.equalities), z.new_zeros(problem.batch, 0)
        status = torch.full_like(z[:, 0], int(al.Status.MAX_ITERATIONS), dtype=torch.int64)
        iterations = torch.zeros_like(status)
        for _ in range(self.max_iter + 1):
            f, gradient = problem.gradient(z)
            h, A = problem.equality(z)
            error = torch.cat([gradient + _times(A.mT, nu), h], dim=-1).abs().amax(-1)
            status = torch.where(error <= self.tol, int(al.Status.SOLVED), status)
            running = status == al.Status.MAX_ITERATIONS
            if not bool((running & (iterations < self.max_iter)).any()):
                break
            step, force, whole = _newton_step(problem.hessian(z, nu, lam), A, gradient, h)
            length = _line_search(problem, z, step, f, gradient, h, force)
            stuck = running & (~whole | (length == 0.0))
            status = torch.where(stuck, int(al.Status.BREAKDOWN), status)
            moving = (running & ~stuck)[:, None]
            z = torch.where(moving, z + length[:, None] * step, z)
            nu = torch.where(moving, force, nu)
            iterations = iterations + moving[:, 0]
        return al.Candidate(z, status, nu, lam, iterations, tuple(_WORDS[al.Status(s)] for s in status.tolist()))


_WORDS = {
    al.Status.SOLVED: "the KKT conditions hold",
    al.Status.MAX_ITERATIONS: "max_iter steps were not enough",
    al.Status.BREAKDOWN: "no step reduces the merit function",
}


def _newton_step(hessian: Tensor, A: Tensor, gradient: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the step (batch, n), the new multipliers (batch, p), and where the system could be solved (batch,)."""
    n, p = gradient.shape[-1], h.shape[-1]
    values, vectors = torch.linalg.eigh(hessian)
    floor = 1e-8 * values.abs().amax(-1, keepdim=True).clamp_min(1.0)
    # A Hessian of zeros, that of a system of equations, becomes the identity: then the step is Gauss and Newton's.
    size = torch.where((values == 0.0).all(-1, keepdim=True), 1.0, torch.maximum(values.abs(), floor))
    positive = (vectors * size[:, None, :]) @ vectors.mT
    top = torch.cat([positive, A.mT], dim=-1)
    bottom = torch.cat([A, A.new_zeros(len(A), p, p)], dim=-1)
    solved, _ = torch.linalg.solve_ex(torch.cat([top, bottom], dim=1), -torch.cat([gradient, h], dim=-1))
    whole = solved.isfinite().all(-1)
    solved = torch.where(whole[:, None], solved, 0.0)
    return solved[:, :n], solved[:, n:], whole


def _line_search(
    problem: al.BoundProblem, z: Tensor, step: Tensor, f: Tensor, gradient: Tensor, h: Tensor, force: Tensor
) -> Tensor:
    """Return the longest step length (batch,) that reduces ``f + rho |h|_1`` enough, zero where none does."""
    rho = 1.0 + 2.0 * force.abs().sum(-1)
    slope = (gradient * step).sum(-1) - rho * h.abs().sum(-1)
    merit = f + rho * h.abs().sum(-1)
    rounding = 1e-14 * (1.0 + merit.abs())
    length = torch.zeros_like(f)
    for trial in STEPS.to(z).tolist():
        searching = length == 0.0
        if not bool(searching.any()):
            break
        there = z + trial * step
        reached = problem.objective(there) + rho * problem.equality(there)[0].abs().sum(-1)
        enough = reached <= merit + 1e-4 * trial * slope + rounding
        length = torch.where(searching & enough, trial, length)
    return length


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]
