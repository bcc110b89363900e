"""Optimization problems as values: torch functions written for one instance, a signature, bounds and starts."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import Tensor

from ._errors import ProblemError
from ._signature import Signature

Function = Callable[..., Any]
Bound = float | Tensor | Function | tuple[float | Tensor | None, ...]
Start = float | Tensor | Function | tuple[Any, ...] | list[Any]


@dataclass(frozen=True)
class Structure:
    """A structure declared by name, with its data, that a specialised solver matches on.

    Attributes:
        name: for example ``"least-squares"``.
        data: what the structure consists of; its keys belong to the name.
    """

    name: str
    data: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, eq=False)
class Problem:
    """One optimization problem, or a batch of them, as torch functions of the variables ``u`` and the parameters ``x``.

        minimise    objective(u, *x)
        subject to  equality(u, *x) = 0,   inequality(u, *x) <= 0,   lower <= u <= upper.

    Every function is written for ONE instance, with the core shapes of the signature; leading dimensions of the
    parameters broadcast and become the batch, as in ``numpy.vectorize(signature=...)``. With one variable ``u`` is a
    tensor, with several it is a tuple. The functions see parameters and variables in float64. What they take from
    parameters through `.item()`, `.detach()` or NumPy carries no gradient; :func:`argminlayer.check` finds that.

    Args:
        objective: ``(u, *x) -> ()``, twice differentiable at the solution. None asks for a feasible point or a root.
        signature: gufunc signature, parameters to variables: ``"(m,n),(m)->(n)"``, ``"(),(n)->(3)"``,
            ``"(n)->(n),(k)"``. A size that no parameter has is taken from ``start``.
        equality: ``(u, *x) ->`` a tensor of any shape, or a tuple of tensors, that must vanish.
        inequality: the same, that must not be positive.
        lower: bounds from below: a number, a tensor that broadcasts to the variable, a function ``(*x) ->`` such a
            bound, or a tuple with one of these (or None) for each variable.
        upper: bounds from above, likewise.
        start: where solvers begin: a tensor (with leading dimensions if instances differ), a number, a function
            ``(*x) -> u``, a tuple for several variables, or a list of several starts, of which the best certified
            solution wins. Without it the solvers begin inside the bounds, else at zero.
        maximize: maximise the objective instead; multipliers are then those of the minimisation of its negative.
        structure: a :class:`Structure` that specialised solvers recognise.

    Raises:
        SignatureError: the signature cannot be read.
        ProblemError: nothing to solve, something that is not callable, or bounds that require grad.
    """

    objective: Function | None
    signature: Signature
    equality: Function | None = None
    inequality: Function | None = None
    lower: Bound | None = None
    upper: Bound | None = None
    start: Start | None = None
    maximize: bool = False
    structure: Structure | None = None

    def __init__(
        self,
        objective: Function | None,
        signature: str | Signature,
        *,
        equality: Function | None = None,
        inequality: Function | None = None,
        lower: Bound | None = None,
        upper: Bound | None = None,
        start: Start | None = None,
        maximize: bool = False,
        structure: Structure | None = None,
    ):
        """Check what can be checked without parameters; see the class."""
        parsed = signature if isinstance(signature, Signature) else Signature.parse(signature)
        fields: dict[str, Any] = {
            "objective": objective,
            "signature": parsed,
            "equality": equality,
            "inequality": inequality,
            "lower": lower,
            "upper": upper,
            "start": start,
            "maximize": maximize,
            "structure": structure,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        for name in ("objective", "equality", "inequality"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise ProblemError(f"{name} must be a function (u, *parameters) or None, not {function!r}")
        if self.objective is None and self.equality is None and self.inequality is None:
            raise ProblemError("a problem needs an objective, or constraints to satisfy when objective=None")
        if self.objective is None and self.maximize:
            raise ProblemError("maximize=True needs an objective; with objective=None there is nothing to maximise")
        for name in ("lower", "upper"):
            bounds = getattr(self, name)
            for bound in bounds if isinstance(bounds, tuple) else (bounds,):
                if isinstance(bound, Tensor) and bound.requires_grad:
                    raise ProblemError(captured_message(f"the {name} bound"))

    @property
    def constraints(self) -> frozenset[str]:
        """The kinds of constraint present: a subset of ``{"equality", "inequality", "bounds"}``."""
        present = {
            "equality": self.equality is not None,
            "inequality": self.inequality is not None,
            "bounds": self.lower is not None or self.upper is not None,
        }
        return frozenset(kind for kind, there in present.items() if there)

    @property
    def objective_kind(self) -> str:
        """``"least-squares"`` if declared, ``"none"`` for a feasibility problem, ``"smooth"`` otherwise."""
        if self.objective is None:
            return "none"
        declared = self.structure is not None and self.structure.name == "least-squares"
        return "least-squares" if declared else "smooth"

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """What to call the parameters in messages: the argument names of the first function, if they fit."""
        function = self.objective or self.equality or self.inequality
        count = len(self.signature.inputs)
        try:
            arguments = list(inspect.signature(function).parameters.values())[1:]  # type: ignore[arg-type]
        except (TypeError, ValueError):
            arguments = []
        plain = all(a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD) for a in arguments)
        if plain and len(arguments) == count:
            return tuple(f"{i} ({a.name!r})" for i, a in enumerate(arguments))
        return tuple(map(str, range(count)))


def least_squares(residual: Function, signature: str | Signature, **fields: Any) -> Problem:
    """Return the problem of minimising ``1/2 |residual(u, *x)|^2``, known to solvers as a least-squares problem.

    Args:
        residual: ``(u, *x) ->`` a tensor of any shape.
        signature: as in :class:`Problem`.
        **fields: the other arguments of :class:`Problem` (constraints, bounds, start).
    """
    if fields.get("maximize"):
        raise ProblemError("least_squares cannot be maximised: the sum of squares is minimised")

    def half_sum_of_squares(u: Any, *parameters: Tensor) -> Tensor:
        squares: Tensor = residual(u, *parameters).square()
        return 0.5 * squares.sum()

    structure = Structure("least-squares", MappingProxyType({"residual": residual}))
    return Problem(half_sum_of_squares, signature, structure=structure, **fields)


def fixed_point(function: Function, signature: str | Signature, **fields: Any) -> Problem:
    """Return the problem of finding ``u = function(u, *x)``, as in a deep equilibrium layer.

    Its derivative solves one linear system at the fixed point; how it was found does not matter.

    Args:
        function: ``(u, *x) ->`` the shape of ``u``, or a tuple of tensors for several variables.
        signature: as in :class:`Problem`.
        **fields: the other arguments of :class:`Problem` (bounds, start).

    Reference: Bai, Kolter and Koltun, *Deep equilibrium models*, 2019, theorem 1.
    """

    def residual(u: Any, *parameters: Tensor) -> Any:
        image = function(u, *parameters)
        if isinstance(u, tuple):
            return tuple(new - old for new, old in zip(image, u, strict=True))
        return image - u

    return Problem(None, signature, equality=residual, **fields)


def captured_message(where: str) -> str:
    """Return the message for a captured tensor that requires grad."""
    return (
        f"{where} uses a captured tensor that requires grad, through which no gradient would flow: pass it as a "
        "parameter of the problem, or use its `.detach()`"
    )
