"""The log-barrier rule: the derivative at the perturbed KKT point, which knows no active set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ._backward import Anchor, KKTRule, Linearization, Node, Parameters
from ._bound import BoundProblem
from ._central_path import follow
from ._certificate import KKTPoint
from ._functions import Functions
from ._kkt import ActiveSet
from ._layout import Layout
from ._problem import Problem
from ._solution import Certificate


@dataclass(frozen=True)
class LogBarrier(KKTRule):
    """The derivative of the problem with its inequalities and bounds replaced by a logarithmic barrier.

    With the inequalities ``g(u, x) <= 0``, to which those bounds are added that are finite, the rule differentiates

        y_t(x) = argmin_u  t f(u, x) - sum_i log(-g_i(u, x))    subject to    h(u, x) = 0

    at the parameters x. Its optimality conditions are the KKT conditions with a perturbed complementarity,

        grad_u L = 0,    h = 0,    g_i + 1 / (t lambda_i) = 0,    lambda_i > 0,

    so that with G the Jacobian of all g and ``D = diag(1 / (t lambda_i^2))``

        K_t = [ H  A'  G' ]
              [ A  0   0  ]         x_bar = -(dF_t/dx)' K_t^{-1} w_bar.
              [ G  0  -D  ]

    The value returned is the exact solution; from there Newton's method follows the central path outwards to the
    perturbed point (y_t, nu_t, lambda_t), where the derivative is taken. Where the exact derivative exists the error is
    of order 1/t; at a weakly active constraint y_t has no kink, and the derivative lies between those of the two sides.
    There is no active set, so that constraints that repeat each other do no harm as long as the feasible set has an
    interior. Every inequality enters the system, which makes it larger than that of :class:`KKT`. Variables with equal
    bounds are held. With ``maximize=True`` f is the negative objective. The optimal value is differentiated as that of
    the barrier problem.

    Attributes:
        t: positive, in units of the inverse objective: the objective counts t times as much as a logarithm.

    Raises:
        ValueError: t is not a positive number.

    Reference: Gould et al. 2016, *On differentiating parameterized argmin and argmax problems*, sec. 4.2, where the
    second derivatives are taken at the exact solution; Boyd and Vandenberghe, *Convex optimization*, sec. 11.2.
    """

    t: float

    def __post_init__(self) -> None:
        """Refuse what is no weight."""
        if not (isinstance(self.t, int | float) and math.isfinite(self.t) and self.t > 0):
            raise ValueError(f"t of al.LogBarrier must be a positive number, such as 1e6, not {self.t!r}")

    def linearize(self, bound: BoundProblem, point: KKTPoint) -> Linearization:
        """Follow the central path from the exact solution to the perturbed one, and linearise there."""
        functions = BarrierFunctions(bound.functions, self.t)
        held, absent = _without_barrier(bound.lower, bound.upper)
        present = torch.cat([torch.ones_like(point.lam, dtype=torch.bool), ~absent], dim=-1)
        lam = torch.cat([point.lam, point.zeta.clamp_min(0.0), (-point.zeta).clamp_min(0.0)], dim=-1)
        inner = replace(bound, problem=functions.problem, functions=functions, inequalities=lam.shape[-1])
        active = ActiveSet(present, held, torch.zeros_like(held))
        end = follow(inner, active, (point.z, point.nu, lam), self.t)
        own, below, above = end.lam.split([bound.inequalities, bound.size, bound.size], dim=-1)
        zeta = torch.where(held, end.force, below - above)
        good = end.reached & (end.system.freedom == 0)
        certificate = replace(point.certificate, regular=good & point.certificate.smooth)
        return Linearization(Anchor(end.z, end.nu, own, zeta), (end.system,), good, certificate)

    def reason(self, node: Node, certificate: Certificate, first: int) -> str:
        """Return why the instance at position ``first`` has no derivative under this rule."""
        del node, certificate, first
        return (
            f"no point of the central path at t = {self.t:g} was reached from the solution: the feasible set may have "
            "no interior (write an inequality that always holds with equality as an equality), or the barrier problem "
            "no minimum; use a larger t, or `backward=al.KKT()`"
        )

    def view(self, node: Node, parameters: Parameters) -> Node:
        """Return the node of the barrier problem: bounds are inequalities, each with its multiplier."""
        functions = BarrierFunctions(node.functions, self.t)
        held, absent = _without_barrier(*(functions.bound(which, parameters) for which in ("lower", "upper")))
        slack = -functions.inequality(node.z, parameters)[:, node.lam.shape[-1] :]
        safe = torch.where(absent | (slack <= 0), 1.0, slack)
        forces = torch.where(absent, 0.0, 1.0 / (self.t * safe))
        return replace(
            node,
            functions=functions,
            lam=torch.cat([node.lam, forces], dim=-1),
            zeta=torch.where(held, node.zeta, 0.0),
            at_lower=held,
            at_upper=torch.zeros_like(held),
            adjoints=tuple(replace(adjoint, functions=functions) for adjoint in node.adjoints),
        )

    def vjp(self, node: Node, parameters: Parameters, cotangents: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """Pull cotangents of (z, nu, lambda, zeta) back; zeta is the difference of the multipliers of two bounds."""
        z_bar, nu_bar, lam_bar, zeta_bar = cotangents
        return super().vjp(node, parameters, (z_bar, nu_bar, torch.cat([lam_bar, zeta_bar, -zeta_bar], -1), zeta_bar))

    def jvp(self, node: Node, parameters: Parameters, tangents: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        """Push tangents of the parameters forward to (z, nu, lambda, zeta)."""
        z_dot, nu_dot, lam_dot, zeta_dot = super().jvp(node, parameters, tangents)
        n = z_dot.shape[-1]
        own, below, above = lam_dot.split([lam_dot.shape[-1] - 2 * n, n, n], dim=-1)
        return z_dot, nu_dot, own, zeta_dot + below - above


class BarrierFunctions(Functions):
    """The functions of a problem with its bounds among the inequalities, whose conditions are ``g + 1/(t lambda) = 0``.

    The inequalities are g, ``lower - u`` and ``u - upper``; one whose bound is infinite has the value -1, and the
    multiplier zero.
    """

    def __init__(self, base: Functions, t: float):
        super().__init__(_bounds_as_inequalities(base), base.layout, base.mappable)
        self.base = base
        self.t = t

    def on(self, layout: Layout) -> "BarrierFunctions":
        """Return the same functions for another batch."""
        return BarrierFunctions(self.base.on(layout), self.t)

    def weighted(
        self, z: Tensor, nu: Tensor, lam: Tensor, parameters: Sequence[Tensor], weights: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        """Return ``w_z' grad L + w_nu' h + w_lambda' (g + 1/(t lambda))`` summed over the batch."""
        present = lam != 0
        inverse = torch.where(present, 1.0 / (self.t * torch.where(present, lam, 1.0)), 0.0)
        return super().weighted(z, nu, lam, parameters, weights) + (weights[2] * inverse).sum()


def _bounds_as_inequalities(functions: Functions) -> Problem:
    def inequality(u: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        z = torch.cat([part.reshape(-1) for part in (u if isinstance(u, tuple) else (u,))])
        own = () if functions.problem.inequality is None else (functions.inequality_one(z, *parameters),)
        lower, upper = (functions.bound_one(which, *parameters) for which in ("lower", "upper"))
        gaps = ((lower, lower - z), (upper, z - upper))
        return (*own, *(torch.where(torch.isinf(bound), -1.0, gap) for bound, gap in gaps))

    return replace(functions.problem, inequality=inequality)


def _without_barrier(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variables held between equal bounds (batch, n), and which bounds have no barrier (batch, 2 n)."""
    held = lower == upper
    return held, torch.cat([torch.isinf(lower) | held, torch.isinf(upper) | held], dim=-1)
