"""Optimization problems as differentiable layers: any argmin, any solver, one certified KKT gradient."""

from . import algebra
from ._argmin import argmin, attach, certify, solve
from ._backward import KKT, AbstractBackward
from ._barrier import LogBarrier
from ._bound import BoundProblem
from ._check import CheckReport, CheckResult, check
from ._compare import BackwardComparison, compare_backward
from ._direct import AbstractDirectSolver
from ._errors import (
    AlgebraError,
    ArgminError,
    ExperimentError,
    NotDifferentiable,
    PluginError,
    ProblemError,
    SignatureError,
    SolveFailed,
    SolverError,
)
from ._experiment import AbstractExperiment, Progress, Result, SilentProgress, Table
from ._explain import Explanation, explain
from ._ignore import IgnoreConstraints
from ._layer import ArgminLayer, set_solver
from ._problem import Problem, Structure, fixed_point, least_squares
from ._proximal import proximal
from ._qp import qp
from ._qp_form import QuadraticForm
from ._qp_solver import AbstractQuadraticSolver, QuadraticAnswer
from ._qp_sparse_program import SparseAnswer, SparseProgram
from ._quadratic import QuadraticProgram
from ._select import Choice, Verdict, use_solver
from ._smoothing import Smoothing
from ._solution import Certificate, Multipliers, PointKind, Solution, Status
from ._solver import AbstractSolver, Availability, Candidate, Capabilities, Point, solve_each, stack_points
from .cones import (
    AbstractConeSolver,
    ConeAnswer,
    ConeForm,
    ConePattern,
    ConeProgram,
    Cones,
    ConeSolution,
    Restatement,
    cone_program,
)
from .hookspecs import hookimpl

__all__ = [
    "KKT",
    "AbstractBackward",
    "AbstractConeSolver",
    "AbstractDirectSolver",
    "AbstractExperiment",
    "AbstractQuadraticSolver",
    "AbstractSolver",
    "AlgebraError",
    "ArgminError",
    "ArgminLayer",
    "Availability",
    "BackwardComparison",
    "BoundProblem",
    "Candidate",
    "Capabilities",
    "Certificate",
    "CheckReport",
    "CheckResult",
    "Choice",
    "ConeAnswer",
    "ConeForm",
    "ConePattern",
    "ConeProgram",
    "ConeSolution",
    "Cones",
    "ExperimentError",
    "Explanation",
    "IgnoreConstraints",
    "LogBarrier",
    "Multipliers",
    "NotDifferentiable",
    "PluginError",
    "Point",
    "PointKind",
    "Problem",
    "ProblemError",
    "Progress",
    "QuadraticAnswer",
    "QuadraticForm",
    "QuadraticProgram",
    "Restatement",
    "Result",
    "SignatureError",
    "SilentProgress",
    "Smoothing",
    "Solution",
    "SolveFailed",
    "SolverError",
    "SparseAnswer",
    "SparseProgram",
    "Status",
    "Structure",
    "Table",
    "Verdict",
    "algebra",
    "argmin",
    "attach",
    "certify",
    "check",
    "compare_backward",
    "cone_program",
    "explain",
    "fixed_point",
    "hookimpl",
    "least_squares",
    "proximal",
    "qp",
    "set_solver",
    "solve",
    "solve_each",
    "stack_points",
    "use_solver",
]
