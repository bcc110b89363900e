"""Cone programs as problems: a pattern, and functions from parameters to data and from solutions to variables."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .._errors import ProblemError
from .._problem import Problem, Structure
from .._signature import Signature
from ._pattern import ConePattern

CONE_PROGRAM = "cone-program"
"""The name of the structure; its data are ``pattern``, a :class:`ConePattern`."""

Data = Callable[..., tuple[Tensor, ...]]
Recover = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class ConeProgram(Problem):
    """A cone program whose data depend on parameters.

        minimise    1/2 x'Px + q'x
        subject to  A x + s = b,   s in K,

    with dual variables ``z`` in the dual cone, ``P x + q + A'z = 0`` and ``s'z = 0``.

    Args:
        signature: core dimensions of the parameters and of the variables that ``recover`` returns.
        pattern: sizes, cones, and where P and A have entries.
        data: ``(*parameters) -> (P_values, q, A_values, b)``, float64 torch, differentiable. It gets the parameters of
            a call as they are, with leading dimensions that broadcast; each of its results has the leading dimensions
            of the batch if it depends on a batched parameter, and none if the whole batch shares it. A fifth result,
            if there is one, is a constant in the objective.
        recover: ``(x, z) ->`` the variables of the signature, a tuple of tensors; leading dimensions pass through.
            Without it the only variable is x.
        multipliers: whether ``recover`` makes use of z.
        maximize: whether the objective, constant included, is reported with the other sign.
        names: what to call the parameters in messages.

    Raises:
        SignatureError: the signature cannot be read.
        ProblemError: several variables without ``recover``.
    """

    def __init__(
        self,
        signature: str | Signature,
        pattern: ConePattern,
        data: Data,
        recover: Recover | None = None,
        *,
        multipliers: bool = False,
        maximize: bool = False,
        names: Sequence[str] | None = None,
    ):
        """Keep the parts; see the class."""
        super().__init__(
            _no_objective,
            signature,
            maximize=maximize,
            structure=Structure(CONE_PROGRAM, {"pattern": pattern}),
        )
        if recover is None and len(self.signature.outputs) != 1:
            raise ProblemError(
                f"the signature {self.signature} has {len(self.signature.outputs)} variables; `recover` must say how "
                "they come from x"
            )
        fields = {"pattern": pattern, "data": data, "recover": recover, "multipliers": multipliers}
        for name, value in {**fields, "names": None if names is None else tuple(names)}.items():
            object.__setattr__(self, name, value)

    pattern: ConePattern
    data: Data
    recover: Recover | None
    multipliers: bool
    names: tuple[str, ...] | None

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """What to call the parameters in messages."""
        if self.names is None:
            return tuple(map(str, range(len(self.signature.inputs))))
        return tuple(f"{i} ({name!r})" for i, name in enumerate(self.names))


def _no_objective(*_: Any) -> Tensor:
    """Stand for the objective where a cone program is taken for a problem of smooth functions.

    Raises:
        ProblemError: always.
    """
    raise ProblemError(
        "a cone program has no objective and constraints as functions of its variables; al.argmin, al.solve and "
        "al.ArgminLayer solve it with solvers of cone programs"
    )
