"""Translation to SciPy and back: one instance at a time, batches through joblib."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize as so
import torch
from torch import Tensor

import argminlayer as al

from ._oracle import Array, Oracle, Stopped
from ._solvers import LBFGS, SLSQP, SMALL, AbstractSciPy, LeastSquares, Newton, Root, TrustConstr

STALL = 20
"""Iterations without a step after which SLSQP is left."""
FEASIBLE = 1e-6
"""Largest violation of a constraint with which a point counts as feasible while SciPy runs."""


def solve_batch(solver: AbstractSciPy, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
    """Solve every instance of a batch, in this thread or through joblib."""
    if solver.n_jobs == 1 and solver.backend is None:
        return al.solve_each(problem, start, functools.partial(solve_instance, solver))
    import joblib

    index = range(problem.batch)
    instances = [problem.select(torch.tensor([i], device=start.device)) for i in index]
    parallel = joblib.Parallel(n_jobs=solver.n_jobs, backend=solver.backend)
    points = parallel(
        joblib.delayed(solve_instance)(solver, one, start[i]) for i, one in zip(index, instances, strict=True)
    )
    return al.stack_points(list(points), problem, start)


def solve_instance(solver: AbstractSciPy, problem: al.BoundProblem, start: Tensor) -> al.Point:
    """Solve one instance from ``start`` (n,)."""
    oracle = Oracle(problem, solver.time_limit)
    z = start.detach().cpu().numpy()
    lower, upper = oracle.limits()
    if np.any(lower > upper):
        return al.Point(start, al.Status.INFEASIBLE, message="a lower bound exceeds its upper bound")
    if np.all(lower == upper):
        return al.Point(torch.as_tensor(lower), al.Status.SOLVED, message="all variables are fixed by their bounds")
    try:
        # where the functions are not finite SciPy's arithmetic is not either; the certificate says so
        with np.errstate(all="ignore"):
            if problem.problem.objective is not None:
                oracle.rescale(z)
                oracle.drop_redundant(z)
            return _METHODS[type(solver)](solver, oracle, z)
    except Stopped as stopped:
        last = z if oracle.last is None else oracle.last
        return al.Point(torch.as_tensor(last), stopped.status, message=_STOPPED[stopped.status])


_STOPPED = {
    al.Status.TIME_LIMIT: "the time limit was reached",
    al.Status.UNBOUNDED: "the iterates or the objective ran away to infinity",
    al.Status.NOT_FINITE: "the objective or its gradient is not finite at the start",
}


def _lbfgs(solver: LBFGS, oracle: Oracle, z: Array) -> al.Point:
    options = {"maxiter": solver.max_iter, "maxfun": 20 * solver.max_iter, "gtol": solver.tol, "ftol": 0.0}
    options |= {"maxcor": solver.memory, "maxls": 50}
    result = so.minimize(oracle.objective, z, jac=True, method="L-BFGS-B", bounds=_bounds(oracle), options=options)
    return _point(result, al.Status.MAX_ITERATIONS if result.status == 1 else _ended(result))


def _newton(solver: Newton, oracle: Oracle, z: Array) -> al.Point:
    small = oracle.problem.size <= SMALL
    method = ("trust-exact" if small else "trust-krylov") if solver.method == "auto" else solver.method
    options: dict[str, Any] = {"maxiter": solver.max_iter}
    if method != "newton-cg":
        # a radius that may grow lets an unbounded problem show itself
        options["max_trust_radius"] = 1e12
    options |= {"xtol": solver.tol} if method == "newton-cg" else {"gtol": solver.tol}
    curvature: dict[str, Any] = {"hessp": oracle.hessian_product}
    if method == "trust-exact":
        curvature = {"hess": oracle.objective_hessian}
    result = so.minimize(oracle.objective, z, jac=True, method=method, options=options, **curvature)
    return _point(result, al.Status.MAX_ITERATIONS if result.status == 1 else _ended(result))


def _slsqp(solver: SLSQP, oracle: Oracle, z: Array) -> al.Point:
    constraints: list[dict[str, Any]] = []
    if len(oracle.rows):
        constraints.append(_constraint("eq", oracle.equality, 1.0))
    if oracle.problem.inequalities:
        constraints.append(_constraint("ineq", oracle.inequality, -1.0))

    def run(begin: Array) -> tuple[Any, al.Status]:
        progress = _Progress(oracle, begin)
        try:
            result = so.minimize(
                oracle.objective,
                begin,
                jac=True,
                method="SLSQP",
                bounds=_bounds(oracle),
                constraints=constraints,
                callback=progress,
                options={"maxiter": solver.max_iter, "ftol": solver.tol},
            )
        except _Stalled:
            message = f"no step in {STALL} iterations"
            result = so.OptimizeResult(x=progress.last, status=8, success=False, nit=progress.count, message=message)
        codes = {9: al.Status.MAX_ITERATIONS, 4: al.Status.NOT_FEASIBLE}
        return result, codes.get(result.status, _ended(result))

    result, status = _with_restoration(oracle, z, run)
    multipliers = result.get("multipliers")
    if multipliers is None or not _has_all_multipliers(oracle):
        return _point(result, status)
    p = oracle.problem.equalities
    return _point(result, status, -multipliers[:p] / oracle.scale, multipliers[p:] / oracle.scale)


class _Stalled(Exception):
    """SLSQP stands still outside the feasible set; left alone it does so until its last iteration."""


class _Progress:
    """A callback that leaves SLSQP when it has hardly moved for a number of iterations and is not feasible."""

    def __init__(self, oracle: Oracle, start: Array):
        self.oracle, self.last, self.count, self.still = oracle, start.copy(), 0, 0

    def __call__(self, z: Array) -> None:
        moved = np.abs(z - self.last).max(initial=0.0) > 1e-8 * (1.0 + np.abs(z).max(initial=0.0))
        self.still = 0 if moved or not _infeasible(self.oracle, z) else self.still + 1
        self.last, self.count = z.copy(), self.count + 1
        if self.still >= STALL:
            raise _Stalled


def _has_all_multipliers(oracle: Oracle) -> bool:
    """Say whether what SciPy returns are the multipliers: not those of feasibility, nor of a part of the equalities."""
    return oracle.problem.problem.objective is not None and len(oracle.rows) == oracle.problem.equalities


def _constraint(kind: str, function: Callable[[Array], tuple[Array, Array]], sign: float) -> dict[str, Any]:
    return {"type": kind, "fun": lambda z: sign * function(z)[0], "jac": lambda z: sign * function(z)[1]}


def _trust_constr(solver: TrustConstr, oracle: Oracle, z: Array) -> al.Point:
    problem = oracle.problem
    p, q = len(oracle.rows), problem.inequalities
    constraints = []
    if p:
        constraints.append(_nonlinear(oracle.equality, 0.0, lambda x, v: oracle.constraint_hessian(x, v, np.zeros(q))))
    if q:
        constraints.append(
            _nonlinear(oracle.inequality, -np.inf, lambda x, v: oracle.constraint_hessian(x, np.zeros(p), v))
        )

    options: dict[str, Any] = {"maxiter": solver.max_iter, "gtol": solver.tol, "xtol": 1e-14, "barrier_tol": 1e-9}
    if constraints:
        # the default warns of dependent constraints and turns to this one, and warnings belong to no thread
        options["factorization_method"] = "SVDFactorization"

    def run(begin: Array) -> tuple[Any, al.Status]:
        result = so.minimize(
            oracle.barred_objective,
            begin,
            jac=True,
            hess=oracle.objective_hessian,
            method="trust-constr",
            bounds=_bounds(oracle),
            constraints=constraints,
            options=options,
        )
        return result, al.Status.MAX_ITERATIONS if result.status == 0 else al.Status.SOLVED

    result, status = _with_restoration(oracle, z, run)
    if not _has_all_multipliers(oracle) or "v" not in result:
        return _point(result, status)
    forces = [np.atleast_1d(v) for v in result.v]
    nu = forces[0] if p else np.zeros(0)
    lam = forces[1 if p else 0] if q else np.zeros(0)
    return _point(result, status, nu / oracle.scale, np.maximum(lam, 0.0) / oracle.scale)


def _nonlinear(
    function: Callable[[Array], tuple[Array, Array]], lower: float, hessian: Callable[[Array, Array], Array]
) -> so.NonlinearConstraint:
    return so.NonlinearConstraint(lambda z: function(z)[0], lower, 0.0, jac=lambda z: function(z)[1], hess=hessian)


def _least_squares(solver: LeastSquares, oracle: Oracle, z: Array) -> al.Point:
    residual = oracle.violation if oracle.problem.problem.objective is None else oracle.residual
    result = _fit(oracle, residual, z, solver.tol, solver.max_iter)
    if residual == oracle.violation and result.status != 0 and _infeasible(oracle, result.x):
        return _point(result, al.Status.INFEASIBLE)
    return _point(result, al.Status.MAX_ITERATIONS if result.status == 0 else _ended(result))


def _root(solver: Root, oracle: Oracle, z: Array) -> al.Point:
    options = {"xtol": solver.tol, "maxfev": solver.max_iter}
    result = so.root(oracle.equality, z, jac=True, method="hybr", options=options)
    return _point(result, al.Status.MAX_ITERATIONS if result.status == 2 else _ended(result))


_METHODS: dict[type[AbstractSciPy], Callable[[Any, Oracle, Array], al.Point]] = {
    LBFGS: _lbfgs,
    Newton: _newton,
    SLSQP: _slsqp,
    TrustConstr: _trust_constr,
    LeastSquares: _least_squares,
    Root: _root,
}


def _with_restoration(
    oracle: Oracle, start: Array, run: Callable[[Array], tuple[Any, al.Status]]
) -> tuple[Any, al.Status]:
    """Run a constrained method; if it ends infeasible, look for a feasible point, and go on from there.

    Where the least violation is positive the constraints cannot be met near by: that point is returned.
    """
    result, status = run(start)
    if not _infeasible(oracle, result.x):
        return result, status
    nearest = _fit(oracle, oracle.violation, start, 1e-12, 500)
    if _infeasible(oracle, nearest.x):
        nearest.message = f"no feasible point found: the least violation is {np.abs(nearest.fun).max():.2e}"
        return nearest, al.Status.INFEASIBLE
    return run(nearest.x)


def _infeasible(oracle: Oracle, z: Array) -> bool:
    if not np.all(np.isfinite(z)):
        return True
    violation, rows = oracle.violation(z)
    length = np.linalg.norm(rows, axis=1)
    return bool(np.any(np.abs(violation) > FEASIBLE * np.maximum(length, 1.0) * (1.0 + np.abs(z).max(initial=0.0))))


def _fit(oracle: Oracle, residual: Callable[[Array], tuple[Array, Array]], z: Array, tol: float, max_iter: int) -> Any:
    """Minimise half the sum of squares of a residual within the bounds."""
    lower, upper = oracle.limits()
    fixed = lower >= upper
    base = np.where(fixed, lower, np.clip(z, lower, upper))

    def full(part: Array) -> Array:
        whole = base.copy()
        whole[~fixed] = part
        return whole

    if fixed.all():
        return so.OptimizeResult(x=base, fun=residual(base)[0], status=1, success=True, nfev=1, message="all fixed")
    result = so.least_squares(
        lambda part: residual(full(part))[0],
        base[~fixed],
        jac=lambda part: residual(full(part))[1][:, ~fixed],
        bounds=(lower[~fixed], upper[~fixed]),
        xtol=1e-15,
        ftol=1e-15,
        gtol=tol,
        max_nfev=max_iter,
    )
    result.x = full(result.x)
    return result


def _bounds(oracle: Oracle) -> so.Bounds | None:
    if "bounds" not in oracle.problem.problem.constraints:
        return None
    return so.Bounds(*oracle.limits())


def _ended(result: Any) -> al.Status:
    return al.Status.SOLVED if result.success else al.Status.BREAKDOWN


def _point(result: Any, status: al.Status, nu: Array | None = None, lam: Array | None = None) -> al.Point:
    return al.Point(
        value=torch.as_tensor(result.x),
        status=status,
        equality=None if nu is None else torch.as_tensor(nu),
        inequality=None if lam is None else torch.as_tensor(lam),
        iterations=int(result.get("nit", result.get("nfev", -1))),
        message=str(result.message),
    )
