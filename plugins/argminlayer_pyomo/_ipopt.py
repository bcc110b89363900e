"""IPOPT by its three routes: in process through CasADi, or an executable that speaks AMPL's file formats."""

import functools
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

import argminlayer as al

from ._arithmetic import CasadiArithmetic
from ._executable import solve_by_executable
from ._instances import Instance, solve_instances
from ._model import PyomoModel
from ._solvers import Ipopt, executable_of

DENSE, ROW = 50_000, 100
"""A Hessian with more entries than this in all, and in a row on average, is approximated from gradients."""
SCALAR = 4
"""Programs whose vectors have fewer entries than this on average are expanded to scalar operations."""


def solve_batch(solver: Ipopt, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
    """Solve every instance by the route chosen."""
    route = solver.chosen_route()
    if route == "casadi":
        return solve_instances(problem, start, functools.partial(_solve_in_process, solver))
    path = executable_of(str(route))
    if path is None:
        raise al.SolverError(f"{solver.name}: {solver.available().reason or 'its executable has gone'}")
    return solve_instances(problem, start, functools.partial(solve_by_executable, solver, str(route), path))


_STATUS = {
    "Solve_Succeeded": al.Status.SOLVED,
    "Solved_To_Acceptable_Level": al.Status.SOLVED,
    "Feasible_Point_Found": al.Status.SOLVED,
    "Infeasible_Problem_Detected": al.Status.INFEASIBLE,
    "Search_Direction_Becomes_Too_Small": al.Status.NOT_STATIONARY,
    "Diverging_Iterates": al.Status.UNBOUNDED,
    "Maximum_Iterations_Exceeded": al.Status.MAX_ITERATIONS,
    "Maximum_CpuTime_Exceeded": al.Status.TIME_LIMIT,
    "Maximum_WallTime_Exceeded": al.Status.TIME_LIMIT,
    "Invalid_Number_Detected": al.Status.NOT_FINITE,
}


def _solve_in_process(solver: Ipopt, instance: Instance) -> al.Point:
    held, (p, q) = instance.model, (instance.model.equality.size, instance.model.inequality.size)
    function, note = _compiled(held, solver)
    lowest = np.concatenate([np.zeros(p), np.full(q, -np.inf)])
    given = {
        "x0": instance.start,
        "p": np.append(instance.parameters, instance.scale),
        "lbx": instance.lower,
        "ubx": instance.upper,
    }
    try:
        with _running:
            result = function(**given, lbg=lowest, ubg=np.zeros(p + q))
            statistics = function.stats()
    except RuntimeError as error:
        return al.Point(torch.from_numpy(instance.start), al.Status.BREAKDOWN, message=f"ipopt in casadi: {error}")
    said = statistics["return_status"]
    if said == "User_Requested_Stop":
        # nothing but Ctrl-C asks for it: CasADi swallows the interrupt and ends one solve of many
        raise KeyboardInterrupt
    value, forces = (torch.from_numpy(result[name].full()[:, 0]) for name in ("x", "lam_g"))
    return al.Point(
        value=value,
        status=_STATUS.get(said, al.Status.BREAKDOWN),
        equality=forces[:p] / instance.scale,
        inequality=forces[p:].clamp_min(0.0) / instance.scale,
        iterations=int(statistics["iter_count"]),
        message=f"ipopt in casadi: {said}{note}",
    )


_known: "WeakKeyDictionary[PyomoModel, dict[Ipopt, tuple[Any, str]]]" = WeakKeyDictionary()
_lock = Lock()
_running = Lock()
"""CasADi lets other threads run while it solves, but none of its functions bears two at a time."""


def _compiled(model: PyomoModel, solver: Ipopt) -> tuple[Any, str]:
    """Return CasADi's solver of a model with symbolic parameters, and a note; built once for each choice of options."""
    with _lock:
        functions = _known.setdefault(model, {})
        if solver not in functions:
            functions[solver] = _compile(model, solver)
        return functions[solver]


def _compile(model: PyomoModel, solver: Ipopt) -> tuple[Any, str]:
    import casadi

    arithmetic = CasadiArithmetic()
    u = casadi.MX.sym("u", sum(shape.numel() for shape in model.shapes))
    p = casadi.MX.sym("p", sum(len(c.elements) for c in model.parameters))
    scale = casadi.MX.sym("scale")
    constraints = [program.run(arithmetic, u, p) for program in (model.equality, model.inequality) if program.size]
    objective = 0 if model.objective is None else model.objective.run(arithmetic, u, p)
    minimised = scale * (-objective if model.maximize else objective)
    program = {"x": u, "p": casadi.vertcat(p, scale), "f": minimised, "g": casadi.vertcat(*constraints)}
    dense = _has_dense_hessian(u, minimised, program["g"])
    ipopt = {"print_level": 0, "sb": "yes", "tol": solver.tol, "max_iter": solver.max_iter}
    if solver.time_limit is not None:
        ipopt["max_wall_time"] = solver.time_limit
    if dense:
        ipopt["hessian_approximation"] = "limited-memory"
    options: dict[str, Any] = {"ipopt": ipopt, "print_time": False, "show_eval_warnings": False, "calc_lam_p": False}
    function = casadi.nlpsol("ipopt", "ipopt", program, {**options, "expand": _is_scalar(model)})
    return function, ", with gradients alone, for the exact Hessian is dense" if dense else ""


def _has_dense_hessian(u: Any, objective: Any, constraints: Any) -> bool:
    """Say whether forming the exact Hessian of the Lagrangian would take longer than it saves."""
    import casadi

    weights = casadi.MX.sym("weights", constraints.shape[0])
    slope = casadi.gradient(objective + casadi.dot(weights, constraints), u)
    entries: int = casadi.jacobian_sparsity(slope, u).nnz()
    return entries > DENSE and entries > ROW * u.shape[0]


def _is_scalar(model: PyomoModel) -> bool:
    """Say whether the vectors of the programs are so short that scalar operations are faster."""
    programs = [model.equality, model.inequality, *([model.objective] if model.objective else [])]
    lengths = [length for program in programs for length in program.lengths]
    return sum(lengths) < SCALAR * len(lengths)
