"""The check that a translated model computes what the user's functions compute, at two points."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .._bound import BoundProblem
from .._errors import AlgebraError
from ._graph import ROLES, Algebra
from ._record import INSTEAD

TOLERANCE = 1e-6
"""Largest relative difference between a model and torch. Single precision inside a function is about 1e-7."""

Evaluate = Callable[[Tensor, Tensor], Sequence[Tensor]]


def verify(problem: BoundProblem, algebra: Algebra, evaluate: Evaluate, inspect: Any = None) -> None:
    """Compare a model with the problem's functions at the point where they were recorded, and at another.

    It costs two evaluations, and finds both a wrong translation and a function that leaves torch unseen: its recorded
    values would then be those of one point only.

    Args:
        problem: the problem that was recorded.
        algebra: its algebra.
        evaluate: ``(z (n,), values (n_p,)) ->`` objective (1,), equalities (p,) and inequalities (q,) of the model;
            empty for what is absent.
        inspect: ``(z, values) ->`` all values of the model by their index in the algebra, (k,) each; called only to
            name the operator that is wrong.

    Raises:
        AlgebraError: they differ; says where first.
    """
    if len(algebra.instances) == 0:
        return
    values = algebra.values[0]
    row = [
        p if s else p[int(algebra.instances[0])] for p, s in zip(problem.parameters, problem.layout.shared, strict=True)
    ]
    for z in (algebra.point, algebra.point * 1.01 + 1e-3):
        replayed = algebra.replay(z, values)
        for role, index, found in zip(ROLES, algebra.outputs, evaluate(z.cpu(), values.cpu()), strict=True):
            if index is None:
                continue
            with torch.no_grad():
                wanted = getattr(problem.functions, f"{role}_one")(z.clone(), *row).reshape(-1).cpu()
            if not close(replayed[index].reshape(-1).cpu(), wanted):
                raise AlgebraError(
                    f"{role}: what was recorded does not agree with the function at another point: it takes values "
                    f"out of torch (NumPy, `.data`), or depends on something that changes between calls. {INSTEAD}"
                )
            if not close(found.reshape(-1).to(torch.float64), wanted):
                raise AlgebraError(_disagreement(role, algebra, replayed, inspect, z, values))


def close(found: Tensor, wanted: Tensor) -> bool:
    """Say whether values agree; what is not finite in torch may be anything in the model."""
    finite = wanted.isfinite()
    scale = 1.0 + float(wanted[finite].abs().max()) if bool(finite.any()) else 1.0
    return found.shape == wanted.shape and bool(((found - wanted).abs()[finite] <= TOLERANCE * scale).all())


def _disagreement(
    role: str, algebra: Algebra, replayed: Mapping[int, Tensor], inspect: Any, z: Tensor, values: Tensor
) -> str:
    where = role
    found = {} if inspect is None else inspect(z.cpu(), values.cpu())
    for operation in algebra.operations:
        indices = [index for index in operation.outputs if index is not None and index in found]
        if not all(close(found[i].reshape(-1), replayed[i].reshape(-1).cpu()) for i in indices):
            where = f"{operation.location}: the operator `{operation.name}`"
            break
    return f"{where}: the model computes another value than torch, which is a fault of the translation. {INSTEAD}"
