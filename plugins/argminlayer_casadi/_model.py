"""Models: a problem's algebra as CasADi functions, built and checked once, and the solvers made from it."""

import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import casadi as ca
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import argminlayer as al

from ._backend import CasADiBackend
from ._solvers import IPOPT, SQP, AbstractCasADi

Array = NDArray[np.float64]

DENSE_HESSIAN = 50_000
"""Nonzeros of an exact Hessian up to which making it and solving with it is cheaper than estimating it."""
SCALAR = 4.0
"""Mean number of entries per operator below which scalar expressions are faster than vectors."""
FEW = 2000
"""Number of scalar operations up to which they are faster in any case: to differentiate them costs nothing."""
_programs: "al.algebra.ModelCache[Program]" = al.algebra.ModelCache(64)
_solvers: "al.algebra.ModelCache[Compiled]" = al.algebra.ModelCache(64)


@dataclass(frozen=True, eq=False)
class Program:
    """A nonlinear program in CasADi's form: minimise f(x, p) subject to bounds on x and on g(x, p).

    Attributes:
        key: the signature of the algebra.
        x: the variables.
        p: the parameters, and last the scale of the objective.
        f: the objective, times its scale.
        g: equalities, then inequalities.
        operators: number of operators.
        entries: mean number of entries of what they compute.
    """

    key: Any
    x: Any
    p: Any
    f: Any
    g: Any
    operators: int
    entries: float

    @cached_property
    def hessian_nonzeros(self) -> int:
        """Structural nonzeros of the Hessian of the Lagrangian."""
        multipliers = ca.MX.sym("multipliers", self.g.shape[0])
        slope = ca.gradient(self.f + ca.dot(multipliers, self.g), self.x)
        return int(ca.jacobian_sparsity(slope, self.x).nnz())

    @cached_property
    def scalar_operations(self) -> int | None:
        """Number of operations scalar by scalar; None where an operator has no such form, as linear solves."""
        try:
            return int(ca.Function("nlp", [self.x, self.p], [self.f, self.g]).expand().n_instructions())
        except RuntimeError:
            return None

    @property
    def suits_scalars(self) -> bool:
        """Whether scalar expressions are faster than vectors."""
        if self.entries < SCALAR:
            return self.scalar_operations is not None
        return self.operators * self.entries <= FEW and (self.scalar_operations or FEW + 1) <= FEW

    @cached_property
    def slope(self) -> Any:
        """``(x, p) ->`` the gradient of the objective."""
        return ca.Function("slope", [self.x, self.p], [ca.gradient(self.f, self.x)])

    @cached_property
    def linearization(self) -> Any:
        """``(x, p) ->`` the gradient of the objective, the constraints and their Jacobian."""
        parts = [ca.gradient(self.f, self.x), self.g, ca.jacobian(self.g, self.x)]
        return ca.Function("linearization", [self.x, self.p], parts)

    @cached_property
    def residual(self) -> Any:
        """``(x, p, lam_x, lam_g) ->`` stationarity and constraints: what tells a solution from a failure."""
        lam_x, lam_g = ca.MX.sym("lam_x", self.x.shape[0]), ca.MX.sym("lam_g", self.g.shape[0])
        slope = ca.gradient(self.f, self.x)
        force = ca.jtimes(self.g, self.x, lam_g, True) if self.g.shape[0] else 0
        scale = 1 + ca.norm_inf(slope)
        return ca.Function("residual", [self.x, self.p, lam_x, lam_g], [(slope + force + lam_x) / scale, self.g])


@dataclass(frozen=True, eq=False)
class Compiled:
    """A compiled solver of one program, with its statistics guarded by a lock.

    Attributes:
        function: CasADi's ``nlpsol``.
        note: what a user should know of how it was made.
        clock: stops it at the deadline; None for a solver that keeps time itself.
    """

    function: Any
    note: str
    clock: "Clock | None" = None
    lock: Any = field(default_factory=threading.Lock)
    _mapped: dict[int, Any] = field(default_factory=dict)

    def mapped(self, count: int) -> Any:
        """Return the solver of ``count`` instances in one call."""
        if count not in self._mapped:
            if len(self._mapped) >= 8:
                self._mapped.clear()
            self._mapped[count] = self.function.map(count)
        return self._mapped[count]


def programs(problem: al.BoundProblem) -> list[tuple[al.algebra.Algebra, Program]]:
    """Return the programs of a problem, one for each group of instances that share one.

    Raises:
        AlgebraError: the functions cannot be recorded, or have no form in CasADi.
    """
    found = []
    for algebra in al.algebra.record(problem):
        program = _programs.get(algebra.key, lambda algebra=algebra: _build(problem, algebra))  # type: ignore[misc]
        found.append((algebra, program))
    return found


def _build(problem: al.BoundProblem, algebra: al.algebra.Algebra) -> Program:
    x, p = ca.MX.sym("x", algebra.size), ca.MX.sym("p", algebra.values.shape[1])
    written = al.algebra.interpret(algebra, CasADiBackend(), x, p if algebra.values.shape[1] else None)
    outputs = (written.objective, written.equality, written.inequality)
    f, equality, inequality = (ca.MX(0, 1) if part is None else part for part in outputs)
    values = ca.Function("values", [x, p], [f, equality, inequality])

    def inspect(z: Tensor, parameters: Tensor) -> dict[int, Tensor]:
        every = ca.Function("every", [x, p], list(written.values.values()))
        results = every(z.numpy(), parameters.numpy())
        return {k: _tensor(r) for k, r in zip(written.values, ca_tuple(results), strict=True)}

    al.algebra.verify(problem, algebra, lambda z, q: [_tensor(v) for v in values(z.numpy(), q.numpy())], inspect)
    counts = [shape.numel() for shape in (algebra.shapes[o.outputs[0]] for o in algebra.operations if o.outputs[0])]
    objective = ca.MX(0) if problem.problem.objective is None else f
    entries = float(np.mean(counts)) if counts else 1.0
    scale = ca.MX.sym("scale")
    g = ca.vertcat(equality, inequality)
    return Program(algebra.key, x, ca.vertcat(p, scale), scale * objective, g, len(algebra.operations), entries)


def ca_tuple(results: Any) -> tuple[Any, ...]:
    """Return what a function returns as a tuple, also when it has one output."""
    return tuple(results) if isinstance(results, tuple | list) else (results,)


def _tensor(matrix: Any) -> Tensor:
    return torch.from_numpy(np.array(matrix.full()).reshape(-1))


def compiled(settings: AbstractCasADi, program: Program) -> Compiled:
    """Return the solver of a program with these settings, made once."""
    return _solvers.get((program.key, settings), lambda: _compile(settings, program))


def _compile(settings: AbstractCasADi, program: Program) -> Compiled:
    nonzeros = program.hessian_nonzeros if program.x.shape[0] ** 2 > DENSE_HESSIAN else 0
    limited = settings.hessian == "limited-memory" or (settings.hessian == "auto" and nonzeros > DENSE_HESSIAN)
    note = ""
    if limited and settings.hessian == "auto":
        note = f"limited-memory Hessian, because the exact one has {nonzeros} nonzeros (hessian='exact' insists)"
    expand = settings.expand == "yes" and program.scalar_operations is not None
    if settings.expand == "auto":
        expand = program.suits_scalars
    nlp = {"x": program.x, "p": program.p, "f": program.f, "g": program.g}
    if isinstance(settings, IPOPT):
        return Compiled(_ipopt(settings, nlp, limited, expand), note)
    assert isinstance(settings, SQP)
    clock = Clock(nlp) if settings.time_limit is not None else None
    return Compiled(_sqp(settings, nlp, limited, expand, clock), note, clock)


def _ipopt(settings: IPOPT, nlp: dict[str, Any], limited: bool, expand: bool) -> Any:
    options: dict[str, Any] = {
        "tol": settings.tol,
        "max_iter": settings.max_iter,
        "print_level": 0,
        "sb": "yes",
        "linear_solver": settings.linear_solver,
        "hessian_approximation": "limited-memory" if limited else "exact",
    }
    if settings.time_limit is not None:
        options["max_wall_time"] = settings.time_limit
    if settings.warm_start:
        options |= {"warm_start_init_point": "yes", "mu_init": 1e-7, "warm_start_bound_push": 1e-9}
        options |= {"warm_start_mult_bound_push": 1e-9, "warm_start_slack_bound_push": 1e-9}
    return ca.nlpsol("solver", "ipopt", nlp, _common(expand) | {"ipopt": options})


def _sqp(settings: SQP, nlp: dict[str, Any], limited: bool, expand: bool, clock: "Clock | None") -> Any:
    quiet = {"print_iter": False, "print_header": False, "print_info": False} if settings.qp == "qrqp" else {}
    options: dict[str, Any] = {
        "qpsol": settings.qp,
        "qpsol_options": {**quiet, "error_on_fail": False, "print_time": False}
        | ({"osqp": {"verbose": False, "eps_abs": 1e-9, "eps_rel": 1e-9}} if settings.qp == "osqp" else {}),
        "max_iter": settings.max_iter,
        "tol_pr": settings.tol,
        "tol_du": settings.tol,
        "hessian_approximation": "limited-memory" if limited else "exact",
        "convexify_strategy": "regularize" if limited else "eigen-reflect",
        "print_header": False,
        "print_iteration": False,
        "print_status": False,
    }
    if clock is not None:
        options["iteration_callback"] = clock
    return ca.nlpsol("solver", "sqpmethod", nlp, _common(expand) | options)


def _common(expand: bool) -> dict[str, Any]:
    return {"expand": expand, "print_time": False, "error_on_fail": False, "show_eval_warnings": False}


class Clock(ca.Callback):  # type: ignore[misc]
    """Called after every iteration; asks the solver to stop when the time is up."""

    def __init__(self, nlp: dict[str, Any]):
        ca.Callback.__init__(self)
        n, m, n_p = (nlp[k].shape[0] for k in ("x", "g", "p"))
        self.sizes = {"x": n, "f": 1, "g": m, "lam_x": n, "lam_g": m, "lam_p": n_p}
        self.deadline = float("inf")
        self.construct("clock", {})

    def get_n_in(self) -> int:
        """Return the number of things CasADi tells."""
        return int(ca.nlpsol_n_out())

    def get_n_out(self) -> int:
        """Return one: whether to stop."""
        return 1

    def get_sparsity_in(self, index: int) -> Any:
        """Return the shape of what CasADi tells."""
        return ca.Sparsity.dense(self.sizes[ca.nlpsol_out(index)], 1)

    def eval(self, told: Any) -> list[int]:
        """Return 1 to stop."""
        del told
        return [int(time.monotonic() > self.deadline)]
