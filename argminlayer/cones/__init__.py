"""Cone programs: their types, the cones' projections and faces, and the engine that certifies and differentiates."""

from ._build import cone_program
from ._call import ConeSolution, argmin_cones, solve_cones
from ._explain import explain_cones
from ._form import ConeForm
from ._pattern import ConePattern, Cones
from ._program import CONE_PROGRAM, ConeProgram
from ._restate import Request, Restatement, restate, solve_restated
from ._solver import AbstractConeSolver, ConeAnswer

__all__ = [
    "CONE_PROGRAM",
    "AbstractConeSolver",
    "ConeAnswer",
    "ConeForm",
    "ConePattern",
    "ConeProgram",
    "ConeSolution",
    "Cones",
    "Request",
    "Restatement",
    "argmin_cones",
    "cone_program",
    "explain_cones",
    "restate",
    "solve_cones",
    "solve_restated",
]
