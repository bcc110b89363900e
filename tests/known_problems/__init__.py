"""Small problems whose solutions are known as explicit formulas, or by an independent solve of the same conditions."""

from ._case import Case, as_tuple, as_variables, relative
from ._formulas import half_square, quadratic
from ._numbers import definite, eye, normal, positive, symmetric, values
from .bounds import bounds
from .equalities import equalities
from .inequalities import inequalities
from .roots import roots
from .unconstrained import unconstrained

CASES: tuple[Case, ...] = (*unconstrained(), *equalities(), *inequalities(), *bounds(), *roots())

__all__ = [
    "CASES",
    "Case",
    "as_tuple",
    "as_variables",
    "definite",
    "eye",
    "half_square",
    "normal",
    "positive",
    "quadratic",
    "relative",
    "symmetric",
    "values",
]
