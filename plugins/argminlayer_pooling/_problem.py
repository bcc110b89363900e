"""Pooling as an ordinary problem, which any solver solves, and the structure by which direct solvers know it."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

import argminlayer as al

from ._penalties import Barron, Huber, PseudoHuber, Quadratic, barron_cost, check_name, penalty_of

STRUCTURE = "robust-pool"
"""Name of the structure. Its data: ``penalty`` (a name), ``weighted`` and ``vectors`` (bool), and ``rule``.

The rule is a :class:`Robust` solver, whose ``pool`` kernels of another plugin may serve.
"""
CONVEX = frozenset({Quadratic.name, PseudoHuber.name, Huber.name})
LEVELS = (0.5, 0.1, 0.3, 0.7, 0.9)
"""Quantiles of the points from which solvers start where there may be several minima."""


@dataclass(frozen=True)
class Objective:
    """``sum_i w_i phi(|x_i - u|; alpha)``, as a function ``(u, x, [weights,] alpha[, shape])`` of one instance.

    Attributes:
        penalty: name of phi.
        weighted: whether there are weights.
        vectors: whether the points are the columns of ``x`` (m, n), rather than numbers (n).
    """

    penalty: str
    weighted: bool
    vectors: bool

    def __call__(self, u: Tensor, x: Tensor, *rest: Tensor) -> Tensor:
        """Return the objective, a scalar."""
        weights, alpha, shape = unpack(self.penalty, self.weighted, rest)
        squares = (x - u[:, None]).square().sum(0) if self.vectors else (x - u).square()
        if shape is None:
            costs = penalty_of(self.penalty).cost(squares, alpha)
        else:
            costs = barron_cost(squares, alpha, shape)
        return (costs if weights is None else weights * costs).sum()


@dataclass(frozen=True)
class Quantile:
    """A start: the quantile of the points, in every coordinate."""

    level: float

    def __call__(self, x: Tensor, *rest: Tensor) -> Tensor:
        """Return the start of one instance."""
        del rest
        return torch.quantile(x, self.level, dim=-1)


@functools.lru_cache(maxsize=64)
def pooling_problem(penalty: str, *, weighted: bool = False, vectors: bool = False) -> al.Problem:
    """Return the problem of pooling as Gould, Hartley and Campbell state it, sec. 5.1, equation 42.

        minimise over u   sum_i w_i phi(|x_i - u|; alpha)

    Its parameters are ``x``, the ``weights`` (if any), ``alpha`` and, for Barron's penalty, the ``shape``.

    Args:
        penalty: name of phi.
        weighted: whether points have weights.
        vectors: whether points are vectors, the columns of ``x`` (m, n), and not numbers (n).

    Raises:
        ProblemError: there is no such penalty.
    """
    from ._solver import Robust  # which needs the name of the structure

    check_name(penalty)
    inputs = ["(m,n)" if vectors else "(n)", *(["(n)"] if weighted else []), "()"]
    inputs += ["()"] if penalty == Barron.name else []
    starts = [Quantile(level) for level in (LEVELS[:1] if penalty in CONVEX else LEVELS)]
    return al.Problem(
        Objective(penalty, weighted, vectors),
        f"{','.join(inputs)}->{'(m)' if vectors else '()'}",
        start=starts,
        structure=al.Structure(
            STRUCTURE, {"penalty": penalty, "weighted": weighted, "vectors": vectors, "rule": Robust()}
        ),
    )


def unpack(penalty: str, weighted: bool, rest: tuple[Tensor, ...]) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Return weights (or None), alpha and shape (or None) of the parameters that follow the points."""
    weights, *others = rest if weighted else (None, *rest)
    alpha, *shape = others
    assert alpha is not None
    return weights, alpha, shape[0] if penalty == Barron.name else None
