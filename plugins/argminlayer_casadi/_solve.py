"""Solving: batches through one compiled solver, multipliers in our signs, and what became of every instance."""

import time
from dataclasses import replace
from typing import Any

import casadi as ca
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import argminlayer as al

from ._interrupt import interruptible
from ._model import Array, Compiled, Program, compiled, programs
from ._solvers import IPOPT, SQP, AbstractCasADi
from ._warm import estimated_forces

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

SENSIBLE = (1e-2, 1e4)
"""Objectives with gradients of this size are left as they are."""
GOOD = 1e-5
"""Scaled residual below which an instance of a batch is taken as solved without asking the solver how it ended."""

_STATUS = {
    "Solve_Succeeded": al.Status.SOLVED,
    "Solved_To_Acceptable_Level": al.Status.SOLVED,
    "Feasible_Point_Found": al.Status.SOLVED,
    "Infeasible_Problem_Detected": al.Status.INFEASIBLE,
    "Restoration_Failed": al.Status.NOT_FEASIBLE,
    "Diverging_Iterates": al.Status.UNBOUNDED,
    "Maximum_Iterations_Exceeded": al.Status.MAX_ITERATIONS,
    "Maximum_CpuTime_Exceeded": al.Status.TIME_LIMIT,
    "Maximum_WallTime_Exceeded": al.Status.TIME_LIMIT,
    "User_Requested_Stop": al.Status.TIME_LIMIT,
    "Invalid_Number_Detected": al.Status.NOT_FINITE,
}
_WORTH_A_SECOND_ATTEMPT = {al.Status.BREAKDOWN, al.Status.NOT_FINITE, al.Status.UNBOUNDED, al.Status.MAX_ITERATIONS}


def solve_batch(settings: AbstractCasADi, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
    """Solve every instance of a batch."""
    batch, p = problem.batch, problem.equalities
    value, nu, lam = (
        start.detach().cpu().numpy().copy(),
        np.zeros((batch, p)),
        np.zeros((batch, problem.inequalities)),
    )
    status, iterations = np.zeros(batch, dtype=np.int64), np.full(batch, -1, dtype=np.int64)
    messages = [""] * batch
    for algebra, program in programs(problem):
        where = algebra.instances.cpu().numpy()
        group = _Group(settings, program, problem, where, value[where], algebra.values.cpu().numpy())
        group.solve()
        value[where], nu[where], lam[where] = group.value, group.force[:, :p], np.maximum(group.force[:, p:], 0.0)
        status[where], iterations[where] = group.status, group.iterations
        for place, message in zip(where.tolist(), group.messages, strict=True):
            messages[place] = message
    return al.Candidate(
        value=torch.as_tensor(value).to(start),
        status=torch.as_tensor(status).to(start.device),
        equality=torch.as_tensor(nu).to(start),
        inequality=torch.as_tensor(lam).to(start),
        iterations=torch.as_tensor(iterations).to(start.device),
        messages=tuple(messages),
    )


class _Group:
    """Instances that share a program: their data, and what was found."""

    def __init__(
        self,
        settings: AbstractCasADi,
        program: Program,
        problem: al.BoundProblem,
        where: Index,
        start: Array,
        parameters: Array,
    ):
        self.settings, self.program = settings, program
        self.lower, self.upper = (b.detach().cpu().numpy()[where] for b in (problem.lower, problem.upper))
        self.start = start
        self.parameters = np.concatenate([parameters, np.ones((len(start), 1))], axis=1)
        self.floor = np.concatenate([np.zeros(problem.equalities), np.full(problem.inequalities, -np.inf)])
        self.value = start.copy()
        self.force = np.zeros((len(start), len(self.floor)))
        self.status = np.zeros(len(start), dtype=np.int64)
        self.iterations = np.full(len(start), -1, dtype=np.int64)
        self.messages = [""] * len(start)

    def solve(self) -> None:
        """Solve all at once, then those again, one by one, whose answer is no solution: to learn why."""
        crossed = (self.lower > self.upper).any(1)
        for i in np.flatnonzero(crossed):
            self.status[i], self.messages[i] = al.Status.INFEASIBLE, "a lower bound exceeds its upper bound"
        left = np.flatnonzero(~crossed)
        self._rescale()
        model = compiled(self.settings, self.program)
        if len(left) > 1 and self.settings.time_limit is None:
            left = left[~self._together(model, left)]
        exact_sqp = isinstance(self.settings, SQP) and self.settings.hessian == "auto"
        for i in left:
            self._alone(model, int(i))
            if exact_sqp and self.status[i] in _WORTH_A_SECOND_ATTEMPT:
                # an indefinite Hessian, reflected, may lead nowhere; an estimate is positive definite
                self._alone(compiled(replace(self.settings, hessian="limited-memory"), self.program), int(i))
        self.force /= self.parameters[:, -1:]
        if model.note:
            self.messages = [f"{message}; {model.note}" for message in self.messages]

    def _rescale(self) -> None:
        """Divide each objective by the size of its gradient at and near the start where that is far from one.

        The tolerances are absolute: an objective of size 1e-8 would be called optimal anywhere.
        """
        away = self.start + 0.1 * (1.0 + np.abs(self.start)) * np.sin(1.0 + np.arange(self.start.shape[1]))
        slope, size = self.program.slope.map(len(self.start)), np.zeros(len(self.start))
        for point in (self.start, np.clip(away, self.lower, self.upper)):
            slopes = np.abs(np.array(slope(point.T, self.parameters.T).full()))
            size = np.maximum(size, np.nan_to_num(slopes, nan=0.0, posinf=0.0).max(0, initial=0.0))
        odd = (size > 0) & ((size < SENSIBLE[0]) | (size > SENSIBLE[1]))
        self.parameters[odd, -1] = 1.0 / size[odd]

    def _together(self, model: Compiled, index: Index) -> Mask:
        """Solve instances in one call; return which of them are solved."""
        try:
            with model.lock, interruptible():
                found = model.mapped(len(index))(**self._arguments(index))
        except RuntimeError:
            # one instance broke down, and took the others along
            return np.zeros(len(index), dtype=np.bool_)
        value, force, lam_x = (np.array(found[k].full()).T for k in ("x", "lam_g", "lam_x"))
        value = np.clip(value, self.lower[index], self.upper[index])
        residual = self.program.residual.map(len(index))
        stationarity, constraints = (
            np.array(part.full()) for part in residual(value.T, self.parameters[index].T, lam_x.T, force.T)
        )
        violation = np.maximum(constraints, np.where(self.floor == 0, -constraints.T, -np.inf).T)
        largest = np.maximum(np.abs(stationarity).max(0), violation.max(0, initial=0.0))
        good: Mask = np.isfinite(largest) & (largest <= GOOD)
        done = index[good]
        self.value[done], self.force[done] = value[good], force[good]
        for i in done:
            self.messages[i] = "Solve_Succeeded"
        return good

    def _alone(self, model: Compiled, i: int) -> None:
        with model.lock:
            if model.clock is not None and self.settings.time_limit is not None:
                model.clock.deadline = time.monotonic() + self.settings.time_limit
            try:
                with interruptible():
                    found = model.function(**self._arguments(np.array([i])))
            except RuntimeError as error:
                self.status[i], self.messages[i] = al.Status.BREAKDOWN, str(error).strip().splitlines()[-1]
                return
            stats = model.function.stats()
        said = str(stats.get("return_status", ""))
        value = np.array(found["x"].full())[:, 0]
        status = al.Status.SOLVED if stats["success"] else _STATUS.get(said, al.Status.BREAKDOWN)
        if not np.isfinite(value).all():
            value, status = self.start[i], al.Status.NOT_FINITE if status == al.Status.SOLVED else status
        self.value[i] = np.clip(value, self.lower[i], self.upper[i])
        self.force[i] = np.nan_to_num(np.array(found["lam_g"].full())[:, 0])
        self.status[i], self.iterations[i] = status, int(stats.get("iter_count", -1))
        self.messages[i] = "the time limit was reached" if status == al.Status.TIME_LIMIT else said.replace("_", " ")

    def _arguments(self, index: Index) -> dict[str, Any]:
        count = len(index)
        return self._warm(index) | {
            "x0": ca.DM(self.start[index].T),
            "p": ca.DM(self.parameters[index].T),
            "lbx": ca.DM(self.lower[index].T),
            "ubx": ca.DM(self.upper[index].T),
            "lbg": ca.repmat(ca.DM(self.floor), 1, count),
            "ubg": ca.DM.zeros(len(self.floor), count),
        }

    def _warm(self, index: Index) -> dict[str, Any]:
        """Return estimated multipliers if the start is to be trusted."""
        if not (isinstance(self.settings, IPOPT) and self.settings.warm_start):
            return {}
        equalities = int((self.floor == 0).sum())
        forces = [
            estimated_forces(
                self.program, self.start[i], self.parameters[i], (self.lower[i], self.upper[i]), equalities
            )
            for i in index
        ]
        bounds, constraints = zip(*forces, strict=True)
        return {"lam_x0": ca.DM(np.array(bounds).T), "lam_g0": ca.DM(np.array(constraints).T)}
