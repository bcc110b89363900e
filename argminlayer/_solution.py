"""What a solve returns: the solution, its multipliers, a status for every instance, and the certificate."""

import enum
from dataclasses import dataclass

import torch
from torch import Tensor

Variables = Tensor | tuple[Tensor, ...]

GIVEN = "the given value"
"""What stands in for the name of a solver when a value is given."""


class Status(enum.IntEnum):
    """How one instance ended, decided by our own certificate; ``status.advice`` says what to try next.

    ``solution.status == Status.SOLVED`` compares a whole batch. A solver's own word only explains a failure: whatever
    it claims, an instance is ``SOLVED`` when, and only when, its certificate holds.
    """

    SOLVED = 0
    MAX_ITERATIONS = 1
    TIME_LIMIT = 2
    INFEASIBLE = 3
    UNBOUNDED = 4
    NOT_FINITE = 5
    NOT_STATIONARY = 6
    NOT_FEASIBLE = 7
    NOT_A_MINIMUM = 8
    BREAKDOWN = 9
    NOT_CONVEX = 10

    @property
    def advice(self) -> str:
        """What to try next; empty when solved."""
        return _ADVICE[self]


_ADVICE = {
    Status.SOLVED: "",
    Status.MAX_ITERATIONS: "raise `max_iter`, loosen `tol`, or pass a better `start`",
    Status.TIME_LIMIT: "raise `time_limit`, or pass a better `start`",
    Status.INFEASIBLE: "check the constraints (`inequality` means g(u) <= 0, and `lower` must not exceed `upper`), or "
    "pass a `start` from which they can be met",
    Status.UNBOUNDED: "add bounds or constraints, for the objective falls without limit, or without end; or "
    "check its sign (`maximize=True`)",
    Status.NOT_FINITE: "clean the parameters, pass a `start` inside the domain of the objective, or add bounds that "
    "keep `u` inside",
    Status.NOT_STATIONARY: "tighten the solver's `tol`, scale the problem, or try another solver or `start`",
    Status.NOT_FEASIBLE: "tighten the solver's `tol`, or try another solver or `start`",
    Status.NOT_CONVEX: "use a solver of smooth problems such as 'scipy.slsqp', or make the objective convex, for "
    "example by adding to the diagonal of P",
    Status.NOT_A_MINIMUM: "pass another `start`, or a list of several",
    Status.BREAKDOWN: "read the solver's own words in `messages`, try another solver or `start`, and run "
    "`al.check(problem, *parameters)`: a function may detach a part of u",
}


class PointKind(enum.IntEnum):
    """What the second-order check says of a stationary point, on the tangent space of its active constraints."""

    MINIMUM = 0
    SADDLE = 1
    MAXIMUM = 2
    DEGENERATE = 3
    """The KKT matrix is singular to working precision, so that its inertia does not decide."""


@dataclass(frozen=True)
class Multipliers:
    """Multipliers of ``L = f + nu'h + lambda'g - z_lo'(u - lower) + z_up'(u - upper)``, all but ``nu`` nonnegative.

    For ``maximize=True`` they belong to the minimisation of ``-f``.

    Attributes:
        equality: nu, shape (..., p); a constraint function that returns several tensors or a matrix is flattened.
        inequality: lambda >= 0, shape (..., q).
        lower: z_lo >= 0 in the shape of the variables; zero where there is no lower bound.
        upper: z_up >= 0 in the shape of the variables; zero where there is no upper bound.
    """

    equality: Tensor
    inequality: Tensor
    lower: Variables
    upper: Variables


@dataclass(frozen=True)
class Certificate:
    """Scaled KKT residuals of every instance, measured by us at the point returned. Each field has the batch's shape.

    Attributes:
        stationarity: size of the gradient of the Lagrangian over the size of its terms.
        feasibility: largest distance to a violated constraint over ``1 + |u|``, to first order.
        complementarity: largest of ``min(slack, multiplier)``, both scaled.
        dual_feasibility: most negative scaled multiplier, as a nonnegative number.
        error: estimated distance to the exact solution over ``1 + |u|`` (one Newton step on the KKT conditions).
        margin: smallest ``max(slack, multiplier)``, both scaled, over inequalities and bounds: small means that a
            constraint is nearly weakly active, and that the derivative is nearly one-sided. Infinite without any.
        active: number of active inequalities and bounds.
        weakly_active: number of constraints whose slack and multiplier both vanish at this accuracy. The solution has
            a kink there (Gould et al. 2021, sec. 4.6), and the backward rule chooses among its derivatives.
        kind: a :class:`PointKind` code.
        redundant: number of active constraints whose gradients are combinations of the others'.
        freedom: number of independent directions in which the solution is not isolated.
        consistent: whether redundant constraints stay redundant when the parameters move.
        regular: consistent, smooth and without freedom: the KKT conditions determine the derivative. Where not, the
            backward rule decides; by default asking for a gradient raises :class:`argminlayer.NotDifferentiable`, or
            gives NaN with ``throw=False``.
        regularised: what the backward rule added to the diagonal of the Hessian of the Lagrangian to make the
            derivative unique; zero where nothing was.
        gap: how far, at most, the objective lies above its global minimum, where the solver has proved it; infinite
            where it has not.
        smooth: whether no kink of the objective or of an active constraint was found at the point. At a kink (zero
            entries of an absolute value, ties of a maximum) derivatives as torch has them say nothing of the solution.
    """

    stationarity: Tensor
    feasibility: Tensor
    complementarity: Tensor
    dual_feasibility: Tensor
    error: Tensor
    margin: Tensor
    active: Tensor
    weakly_active: Tensor
    kind: Tensor
    redundant: Tensor
    freedom: Tensor
    consistent: Tensor
    regular: Tensor
    regularised: Tensor
    gap: Tensor
    smooth: Tensor

    def reshape(self, shape: torch.Size) -> "Certificate":
        """Return the certificate with every field in the shape given."""
        return Certificate(**{name: field.reshape(shape) for name, field in vars(self).items()})


@dataclass(frozen=True)
class Solution:
    """The result of :func:`argminlayer.solve`.

    Attributes:
        value: the minimiser, (..., *core), a tuple for several variables; differentiable. NaN for failed instances.
        multipliers: :class:`Multipliers`; differentiable. NaN for failed instances.
        status: int tensor in the shape of the batch; compare with :class:`Status`.
        objective: objective at ``value``, shape of the batch, in the caller's sense; differentiable by the envelope
            theorem, without solving a system, even where the solution itself has no derivative.
        certificate: :class:`Certificate`.
        iterate: where the solver stopped, failed instances included; detached.
        iterations: iterations of the solver, -1 where it does not say.
        solver: name of the solver, or of those tried in turn.
        messages: the solver's own words for each instance, flattened over the batch.
        seconds: wall time of the solve.
    """

    value: Variables
    multipliers: Multipliers
    status: Tensor
    objective: Tensor
    certificate: Certificate
    iterate: Variables
    iterations: Tensor
    solver: str
    messages: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> Tensor:
        """Which instances are solved, bool in the shape of the batch."""
        return self.status == Status.SOLVED

    def failure(self) -> str | None:
        """Return a sentence on the failed instances and what to try, None when all are solved."""
        return failure_text(self.ok, self.status, self.certificate, self.solver, self.messages) or None


def failure_text(
    accepted: Tensor, status: Tensor, certificate: Certificate, solver: str, messages: tuple[str, ...]
) -> str:
    """Return a sentence on the instances that are not accepted, and what to try; empty when all are."""
    failed = (~accepted).nonzero()
    if len(failed) == 0:
        return ""
    first = tuple(failed[0].tolist())
    code = Status(int(status[first]))
    where = f"; the first is at batch index {first}" if first else ""
    evidence = (
        f"stationarity {certificate.stationarity[first].item():.1e}, "
        f"feasibility {certificate.feasibility[first].item():.1e}, "
        f"estimated error {certificate.error[first].item():.1e}"
    )
    if solver == GIVEN:
        return (
            f"the given value is no solution of {len(failed)} of {status.numel()} problems{where}: {code.name} "
            f"({evidence}). Compute it more accurately, and check the signs of the problem (`inequality` means "
            "g(u) <= 0; `maximize`). Pass `throw=False` to get NaN for these only."
        )
    flat = int(torch.arange(status.numel()).reshape(status.shape)[first])
    said = f"; the solver said: {messages[flat]}" if messages[flat] else ""
    return (
        f"{solver} did not solve {len(failed)} of {status.numel()} problems{where}: {code.name} ({evidence}{said}). "
        f"What to try: {code.advice}. Pass `throw=False` to get the `Solution` with its `status` instead."
    )
