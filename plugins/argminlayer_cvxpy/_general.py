"""Any solver that CVXPY knows: the cone program is stated in CVXPY's language, one instance after another."""

from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.reductions.solvers import defines

import argminlayer as al

from ._batch import Answer, Array, Program, solve_each
from ._solvers import Named

_STATUS = {
    cp.OPTIMAL: al.Status.SOLVED,
    cp.OPTIMAL_INACCURATE: al.Status.SOLVED,
    cp.INFEASIBLE: al.Status.INFEASIBLE,
    cp.INFEASIBLE_INACCURATE: al.Status.INFEASIBLE,
    cp.UNBOUNDED: al.Status.UNBOUNDED,
    cp.UNBOUNDED_INACCURATE: al.Status.UNBOUNDED,
    cp.USER_LIMIT: al.Status.MAX_ITERATIONS,
}


def why_not_installed(name: str) -> str | None:
    """Return why a solver cannot be used, None when it can."""
    known = {**defines.SOLVER_MAP_CONIC, **defines.SOLVER_MAP_QP}
    if name.upper() not in known:
        return f"CVXPY knows no solver {name!r} of convex programs; it knows {', '.join(sorted(known)).lower()}"
    if name.upper() not in cp.installed_solvers():
        return f"{name.upper()} is not installed beside CVXPY; see https://www.cvxpy.org/install"
    return None


def why_not_solved(name: str, form: al.ConeForm) -> str | None:
    """Return why a solver cannot take programs of this form, None when it can."""
    quadratic = sp.csc_matrix(np.ones((1, 1))) if form.P.shape[-1] else None
    problem = _Statement(
        form.pattern.cones, Program(quadratic, np.zeros(1), None, np.ones(form.pattern.cones.rows))
    ).problem()
    reason: str | None = None
    try:
        problem.get_problem_data(name.upper())
    except (cp.SolverError, ValueError) as error:
        reason = f"CVXPY says: {error}"
    return reason


def solve(solver: Named, form: al.ConeForm) -> al.ConeAnswer:
    """Solve every program of a batch."""
    cones, name, settings = form.pattern.cones, solver.solver.upper(), dict(solver.settings or {})

    def solve_one(program: Program, index: int) -> Answer:
        del index
        statement = _Statement(cones, program)
        problem = statement.problem()
        try:
            problem.solve(solver=name, **settings)
        except cp.SolverError as error:
            return Answer(None, None, None, al.Status.BREAKDOWN, message=str(error))
        status = _STATUS.get(problem.status, al.Status.BREAKDOWN)
        x, z = statement.x.value, statement.multipliers()
        slack = None if x is None else program.b - program.A @ x
        return Answer(x, slack, z, status, getattr(problem.solver_stats, "num_iters", None) or -1, problem.status)

    return solve_each(form, solve_one, 1, warns=True)


class _Statement:
    """One cone program in CVXPY's language; without A only its form, for CVXPY to judge."""

    def __init__(self, cones: al.Cones, program: Program):
        self.cones, self.program = cones, program
        self.x = cp.Variable(len(program.q))
        slack = self._slack()
        self.flat, row = [], 0
        for size, relation in ((cones.zero, cp.Zero), (cones.nonnegative, cp.NonNeg)):
            if size:
                self.flat.append(relation(slack[row : row + size]))
            row += size
        self.curved = [(*block, _cone(slack, *block)) for block in cones.blocks()]

    def _slack(self) -> Any:
        if self.program.A is None:
            return self.program.b - np.ones((self.cones.rows, self.x.size)) @ self.x
        return self.program.b - self.program.A @ self.x

    def problem(self) -> cp.Problem:
        """Return the problem."""
        objective = self.program.q @ self.x
        if self.program.P is not None and self.program.P.nnz:
            P = self.program.P + sp.triu(self.program.P, 1).T
            objective = objective + 0.5 * cp.quad_form(self.x, cp.psd_wrap(P))
        stated = [*self.flat, *(constraint for *_, constraint in self.curved)]
        # some solvers need a constraint
        return cp.Problem(cp.Minimize(objective), stated or [0.0 * self.x[0] <= 1.0])

    def multipliers(self) -> Array | None:
        """Return z, None where the solver has left a multiplier out."""
        z = np.zeros(self.cones.rows)
        row = 0
        # the Lagrangian of CVXPY has +y'(expression) for an equality, and the expression is b - A x
        for constraint, sign in zip(self.flat, self._signs(), strict=True):
            if constraint.dual_value is None:
                return None
            z[row : row + constraint.size] = sign * np.ravel(constraint.dual_value)
            row += constraint.size
        for kind, first, detail, constraint in self.curved:
            found = _dual(kind, detail, constraint)
            if found is None:
                return None
            z[first : first + len(found)] = found
        return z

    def _signs(self) -> list[float]:
        return [-1.0] * bool(self.cones.zero) + [1.0] * bool(self.cones.nonnegative)


def _cone(slack: Any, kind: str, first: int, detail: float) -> Any:
    if kind == "second_order":
        size = int(detail)
        return cp.SOC(slack[first], slack[first + 1 : first + size]) if size > 1 else cp.NonNeg(slack[first])
    if kind == "semidefinite":
        k = int(detail)
        fill = _fill(k)
        return cp.reshape(fill @ slack[first : first + fill.shape[1]], (k, k), order="F") >> 0
    x, y, z = slack[first], slack[first + 1], slack[first + 2]
    return cp.ExpCone(x, y, z) if kind == "exponential" else cp.PowCone3D(x, y, z, detail)


def _fill(k: int) -> Any:
    """Return the matrix from a scaled lower triangle by columns to the whole symmetric matrix."""
    columns, rows = np.triu_indices(k)
    entry, scale = np.arange(len(rows)), np.where(rows == columns, 0.5, np.sqrt(0.5))
    places = np.concatenate([columns * k + rows, rows * k + columns])
    return sp.csr_matrix((np.tile(scale, 2), (places, np.tile(entry, 2))), shape=(k * k, len(rows)))


def _dual(kind: str, detail: float, constraint: Any) -> Array | None:
    values = [variable.value for variable in constraint.dual_variables]
    if any(value is None for value in values):
        return None
    if kind == "semidefinite":
        k = int(detail)
        columns, rows = np.triu_indices(k)
        matrix = 0.5 * (values[0] + values[0].T)
        return np.asarray(matrix[rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0)))
    return np.concatenate([np.ravel(value) for value in values])
