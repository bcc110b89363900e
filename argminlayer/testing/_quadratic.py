"""Quadratic programs with known answers, for solvers that take only those."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._quadratic import CORE, QuadraticProgram
from ._known import KnownProblem

NONE = torch.zeros(0, dtype=torch.float64)


def _t(rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class KnownProgram(KnownProblem):
    """A :class:`KnownProblem` that is a quadratic program: scaling its constraints scales its parameters."""

    def scaled(self, factor: float) -> "KnownProblem":
        """Return the same program with its constraints multiplied by ``factor``, inequalities by its size."""
        assert isinstance(self.problem, QuadraticProgram)
        factors = {"A": factor, "b": factor, "G": abs(factor), "h": abs(factor)}
        pairs = zip(self.problem.blocks.names, self.parameters, strict=True)
        scaled = tuple(factors.get(name, 1.0) * parameter for name, parameter in pairs)
        return replace(self, name=f"{self.name} times {factor:g}", parameters=scaled)


def _program(*names: str, **constants: Tensor | float) -> QuadraticProgram:
    return QuadraticProgram(**{name: True if name in names else constants.get(name) for name in CORE})


def _no_forces(*parameters: Tensor) -> tuple[Tensor, Tensor]:
    del parameters
    return NONE, NONE


ROOTS = _t(
    [
        [[1.2, 0.3, -0.1], [0.0, 0.9, 0.4], [0.2, -0.3, 1.1]],
        [[0.8, -0.5, 0.2], [0.1, 1.3, 0.0], [-0.4, 0.2, 0.9]],
        [[1.0, 0.1, 0.6], [0.3, 0.7, -0.2], [0.0, 0.5, 1.4]],
    ]
)
HESSIANS = ROOTS.mT @ ROOTS + 0.2 * torch.eye(3, dtype=torch.float64)
COSTS = _t([[0.6, -0.9, 1.4], [-0.3, 0.8, 0.5], [1.7, 0.2, -1.1]])
EQUALITIES = _t([[[1.0, 0.5, -0.3]], [[0.7, -1.0, 0.2]], [[0.4, 0.9, 1.0]]])
SIDES = _t([[0.4], [-0.7], [1.1]])


def _symmetric(P: Tensor) -> Tensor:
    return 0.5 * (P + P.mT)


def _on_rows(P: Tensor, q: Tensor, rows: Tensor, side: Tensor) -> Tensor:
    """Return the solution and the multipliers when the rows hold with equality."""
    matrix = torch.cat(
        [torch.cat([_symmetric(P), rows.mT], 1), torch.cat([rows, torch.zeros(len(rows), len(rows)).to(rows)], 1)]
    )
    solved: Tensor = torch.linalg.solve(matrix, torch.cat([-q, side]))
    return solved


def _halfspace_side(rows: Tensor) -> Tensor:
    """Return right-hand sides that the unconstrained minimisers exceed by different amounts."""
    free = -torch.linalg.solve(HESSIANS, COSTS[..., None])
    sides: Tensor = (rows @ free)[..., 0] - _t([[0.5], [0.8], [0.3]])
    return sides


QUADRATIC_PROBLEMS: tuple[KnownProblem, ...] = (
    KnownProgram(
        "free program",
        _program("P", "q"),
        (HESSIANS, COSTS),
        lambda P, q: -torch.linalg.solve(_symmetric(P), q),
        _no_forces,
    ),
    KnownProgram(
        "program with an equality",
        _program("P", "q", "A", "b"),
        (HESSIANS, COSTS, EQUALITIES, SIDES),
        lambda P, q, A, b: _on_rows(P, q, A, b)[:3],
        lambda P, q, A, b: (_on_rows(P, q, A, b)[3:], NONE),
    ),
    KnownProgram(
        "program with an active row",
        _program("P", "q", "G", "h"),
        (HESSIANS, COSTS, EQUALITIES, _halfspace_side(EQUALITIES)),
        lambda P, q, G, h: _on_rows(P, q, G, h)[:3],
        lambda P, q, G, h: (NONE, _on_rows(P, q, G, h)[3:]),
        far=True,
    ),
    KnownProgram(
        "program with an equality and two rows",
        _program("q", "G", "h", "A", "b", P=torch.eye(3, dtype=torch.float64)),
        (
            COSTS,
            torch.stack([_t([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])] * 3),
            _t([[-0.2, 5.0], [-1.4, 5.0], [-0.9, 5.0]]),
            EQUALITIES,
            SIDES,
        ),
        lambda q, G, h, A, b: _on_rows(torch.eye(3).to(q), q, torch.cat([A, G[:1]]), torch.cat([b, h[:1]]))[:3],
        lambda q, G, h, A, b: (
            (forces := _on_rows(torch.eye(3).to(q), q, torch.cat([A, G[:1]]), torch.cat([b, h[:1]])))[3:4],
            torch.cat([forces[4:], 0.0 * h[1:]]),
        ),
    ),
    KnownProgram(
        "projection on a box",
        _program("q", "lower", "upper", P=torch.eye(3, dtype=torch.float64)),
        (COSTS, torch.full((3, 3), -0.7, dtype=torch.float64), torch.full((3, 3), 0.4, dtype=torch.float64)),
        lambda q, lower, upper: torch.maximum(torch.minimum(-q, upper), lower),
        _no_forces,
    ),
)
"""Programs with a definite P, each small, regular and away from kinks."""

INFEASIBLE_PROGRAMS: tuple[KnownProblem, ...] = (
    KnownProgram(
        "rows that exclude each other",
        _program("q", "G", "h", P=torch.eye(2, dtype=torch.float64)),
        (
            COSTS[:, :2],
            torch.stack([_t([[1.0, 0.0], [-1.0, 0.0]])] * 3),
            _t([[-1.0, 2.0], [-1.0, 0.5], [-2.5, 3.0]]),
        ),
        lambda q, G, h: _on_rows(torch.eye(2).to(q), q, G[:1], h[:1])[:2],
        lambda q, G, h: (NONE, torch.cat([_on_rows(torch.eye(2).to(q), q, G[:1], h[:1])[2:], 0.0 * h[1:]])),
        unsolvable=frozenset({1}),
    ),
)
"""Programs of which one instance has no feasible point."""
