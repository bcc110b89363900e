"""``CvxpyLayer``: the constructor, the call and the outputs that users of cvxpylayers know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

import argminlayer as al

from ._solvers import ECOS, HIGHS, OSQP, PIQP, SCS, AbstractCvxpy, Clarabel, Gurobi, Mosek, Named

_DIRECT: dict[str, type[AbstractCvxpy]] = {
    "clarabel": Clarabel,
    "scs": SCS,
    "osqp": OSQP,
    "highs": HIGHS,
    "piqp": PIQP,
    "ecos": ECOS,
    "mosek": Mosek,
    "gurobi": Gurobi,
}
_ONLY_OF_CVXPYLAYERS = frozenset({"moreau", "cuclarabel", "mpax"})
_OF_ITS_DERIVATIVE = frozenset(
    {"mode", "n_jobs_backward", "derivative_kwargs", "derivative_mode", "warm_starts", "raise_on_error"}
)
"""Arguments of diffcp about its own derivative: accepted, and without effect on ours."""
_ONLY_OF_SCS = frozenset(
    {"acceleration_lookback", "acceleration_interval", "alpha", "rho_x", "scale", "adaptive_scale", "normalize"}
) | frozenset({"eps_infeas", "use_indirect", "linear_solver", "eps_abs", "eps_rel", "time_limit_secs"})


@dataclass(frozen=True)
class _Choice:
    """A solver and the fields of it to replace."""

    solver: str | al.AbstractSolver
    options: Mapping[str, Any] | None


class CvxpyLayer(nn.Module):
    """A CVXPY problem as a layer, to be used where ``cvxpylayers.torch.CvxpyLayer`` was.

    Solutions and derivatives are those of :class:`argminlayer.ArgminLayer`: certified, exact, in the dtype of the
    parameters. What it takes beyond cvxpylayers: leading dimensions that broadcast, sparse and diagonal parameters,
    ``quad_form(x, P)`` with a PSD parameter P, every solver that is installed, double backward and ``torch.func``.

    Args:
        problem: a ``cvxpy.Problem`` that is DPP.
        parameters: all its parameters, in the order of the call.
        variables: variables, and dual variables of constraints, in the order of the outputs.
        solver: a name of CVXPY (``cp.SCS``, ``"CLARABEL"``), a name or a value of this library
            (``"cvxpy.osqp"``, ``al`` solvers), or None: chosen for the problem.
        gp: whether the problem is a geometric program.
        verbose: let the back end print its log, where CVXPY's own solvers have one.
        canon_backend: CVXPY's backend of canonicalisation, by default ``"COO"``.
        solver_args: settings of the back end under its own names. ``eps`` and ``max_iters`` mean the tolerance and the
            limit of iterations of any of them, ``n_jobs_forward`` the threads, ``solve_method`` and ``solver`` name
            another one. What concerns the derivative of diffcp (``mode``, ``n_jobs_backward``, ...) has no effect.

    Raises:
        ProblemError: a ValueError: the problem is not DPP, or parameters or variables are not of the problem.
        SolverError: a ValueError: no such solver, or no such setting.
    """

    def __init__(
        self,
        problem: Any,
        parameters: Sequence[Any],
        variables: Sequence[Any],
        solver: str | al.AbstractSolver | None = None,
        gp: bool = False,
        verbose: bool = False,
        canon_backend: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        from ._read import read

        self.named = solver
        self.solver_args = {**({"verbose": True} if verbose else {}), **(solver_args or {})}
        chosen = _choose(solver, self.solver_args)
        cone_program = read(problem, parameters, variables, gp=gp, canon_backend=canon_backend)
        self.layer = al.ArgminLayer(cone_program, solver=chosen.solver, options=chosen.options)

    def forward(
        self, *params: Any, solver_args: Mapping[str, Any] | None = None, warm_start: bool = False
    ) -> tuple[Tensor, ...]:
        """Solve for these parameters.

        Args:
            *params: a tensor for each parameter, with any leading dimensions; they broadcast.
            solver_args: settings for this call, over those of the layer.
            warm_start: must be False. As in cvxpylayers, a layer keeps nothing of its last call; a solution to begin
                from is passed to ``layer.layer(*params, start=solution)``.

        Returns:
            The variables, always a tuple, each with the leading dimensions of the batch.

        Raises:
            SignatureError: a ValueError: too few or too many tensors, or shapes that do not fit.
            ProblemError: a ValueError: values that a parameter refuses, or tensors of different dtypes.
            SolveFailed: some instance is infeasible, unbounded or was not solved; it names the batch index.
        """
        if warm_start:
            raise al.SolverError(
                "warm_start=True: the layer keeps no solution of its last call; begin from one of al.solve by "
                "layer.layer(*params, start=solution), with a solver such as 'cvxpy.scs' or 'cvxpy.osqp'"
            )
        if not solver_args:
            value = self.layer(*params)
        else:
            chosen = _choose(self.named, {**self.solver_args, **solver_args})
            value = al.argmin(self.layer.problem, *params, solver=chosen.solver, options=chosen.options)
        return (value,) if isinstance(value, Tensor) else tuple(value)


def _choose(solver: str | al.AbstractSolver | None, given: Mapping[str, Any]) -> _Choice:
    """Return the solver that a name and settings in the manner of cvxpylayers stand for."""
    settings = {name: value for name, value in given.items() if name not in _OF_ITS_DERIVATIVE}
    named = settings.pop("solve_method", None) or settings.pop("solver", None) or solver
    if isinstance(named, al.AbstractSolver):
        return _Choice(replace(named, **settings) if settings else named, None)  # type: ignore[type-var]
    fields = {
        field: settings.pop(name)
        for name, field in (("eps", "tol"), ("max_iters", "max_iter"), ("n_jobs_forward", "threads"))
        if name in settings
    }
    if fields.get("threads", 1) is not None and fields.get("threads", 1) < 1:
        del fields["threads"]  # diffcp takes -1 for one thread per core
    name = (named or "").lower()
    name = "" if name in ("diffcp", "auto") else name
    if name in _ONLY_OF_CVXPYLAYERS:
        raise al.SolverError(
            f"{named} is a solver of cvxpylayers' own; leave `solver` out, or name one that CVXPY knows, such as 'SCS'"
        )
    if "." in name or ":" in name:
        return _Choice(name, {**fields, **settings})
    if not name and not settings:
        return _Choice("auto", {key: value for key, value in fields.items() if key != "threads"} or None)
    if not name:
        name = "scs" if settings.keys() & _ONLY_OF_SCS else "clarabel"
    kind = _DIRECT.get(name)
    if kind is None:
        return _Choice(Named(solver=name, settings=settings), None)
    return _Choice(kind(settings=settings or None, **fields), None)
