"""Quadratic and linear programs as problems: eight blocks, each a parameter, a constant, or absent."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ._errors import ProblemError, SignatureError
from ._problem import Problem, Structure, captured_message
from ._signature import CoreDims, Signature

QUADRATIC = "quadratic-program"
"""The name of the structure; its data are ``blocks``, a :class:`Blocks`."""

CORE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "P": ("n", "n"),
        "q": ("n",),
        "G": ("m", "n"),
        "h": ("m",),
        "A": ("p", "n"),
        "b": ("p",),
        "lower": ("n",),
        "upper": ("n",),
    }
)
"""The blocks in the order of the arguments, with their core dimensions."""

Block = Tensor | float | bool | None


@dataclass(frozen=True, eq=False)
class Blocks:
    """Which blocks of a quadratic program are parameters, and the values of those that are constant.

    Its methods are the functions of the problem; a value with methods rather than closures, so that it can be pickled.

    Attributes:
        names: the blocks that are parameters, in the order of :data:`CORE`.
        constants: the values of the others; absent blocks are missing.
    """

    names: tuple[str, ...]
    constants: tuple[tuple[str, Tensor], ...]

    def fill(self, parameters: tuple[Any, ...]) -> dict[str, Any]:
        """Return all blocks that are present, with the parameters in their places."""
        return dict(self.constants) | dict(zip(self.names, parameters, strict=True))

    def fill_like(self, parameters: tuple[Any, ...]) -> dict[str, Any]:
        """Return all blocks that are present, constants in the dtype and on the device of the parameters."""
        first = next((p for p in parameters if isinstance(p, Tensor) and p.is_floating_point()), None)
        constants = self.constants if first is None else tuple((k, v.to(first)) for k, v in self.constants)
        return dict(constants) | dict(zip(self.names, parameters, strict=True))

    def has(self, name: str) -> bool:
        """Return whether a block is present."""
        return name in self.names or any(name == constant for constant, _ in self.constants)

    def objective(self, u: Tensor, *parameters: Tensor) -> Tensor:
        """Return ``1/2 u'Pu + q'u``."""
        blocks = self._alike(u, parameters)
        value = u.sum() * 0.0
        if "P" in blocks:
            value = value + 0.5 * (u @ (blocks["P"] @ u))
        return value + blocks["q"] @ u if "q" in blocks else value

    def equality(self, u: Tensor, *parameters: Tensor) -> Tensor:
        """Return ``A u - b``."""
        blocks = self._alike(u, parameters)
        return blocks["A"] @ u - blocks["b"]

    def inequality(self, u: Tensor, *parameters: Tensor) -> Tensor:
        """Return ``G u - h``."""
        blocks = self._alike(u, parameters)
        return blocks["G"] @ u - blocks["h"]

    def lower(self, *parameters: Tensor) -> Tensor:
        """Return the lower bounds."""
        return self._bound("lower", parameters)

    def upper(self, *parameters: Tensor) -> Tensor:
        """Return the upper bounds."""
        return self._bound("upper", parameters)

    def _bound(self, name: str, parameters: tuple[Tensor, ...]) -> Tensor:
        bound: Tensor = self.fill(parameters)[name]
        return bound

    def _alike(self, u: Tensor, parameters: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return {name: block.to(u) for name, block in self.fill(parameters).items()}


class QuadraticProgram(Problem):
    """The quadratic program, or without ``P`` the linear program, of matrices and vectors.

        minimise    1/2 u'Pu + q'u
        subject to  G u <= h,   A u = b,   lower <= u <= upper.

    Every block is a parameter of the problem (``True``), a constant (a tensor; a number for a bound) or absent
    (``None``). The parameters of the problem are those blocks that are parameters, in the order of the arguments::

        problem = al.QuadraticProgram(G=True, h=True, lower=0.0)
        u = al.argmin(problem, P, q, G, h)

    ``P`` need not be symmetric: only its symmetric part counts, and its gradient is symmetric. Blocks that are
    constant, or shared by the batch, are factorised once. Solvers of quadratic programs take it as it is; any other
    solver takes it as a smooth problem, with the same gradient.

    Args:
        P: (n, n).
        q: (n).
        G: (m, n), together with ``h``.
        h: (m).
        A: (p, n), together with ``b``.
        b: (p).
        lower: (n), ``-inf`` where there is no bound.
        upper: (n), ``inf`` where there is no bound.
        start: as in :class:`Problem`.

    Raises:
        ProblemError: a matrix without its right-hand side or the reverse, a constant that requires grad, no block.
        SignatureError: constants whose shapes do not fit.
    """

    def __init__(
        self,
        P: Block = True,
        q: Block = True,
        G: Block = None,
        h: Block = None,
        A: Block = None,
        b: Block = None,
        lower: Block = None,
        upper: Block = None,
        *,
        start: Any = None,
    ):
        """Sort the blocks; see the class."""
        given = dict(zip(CORE, (P, q, G, h, A, b, lower, upper), strict=True))
        names = tuple(name for name, block in given.items() if block is True)
        sizes, constants = _read_constants({k: v for k, v in given.items() if v is not None and v is not True})
        blocks = Blocks(names, tuple(constants.items()))
        _check_pairs(blocks)
        n = sizes.get("n", "n")
        super().__init__(
            blocks.objective,
            Signature(tuple(_dims(name, sizes) for name in names), ((n,),)),
            equality=blocks.equality if blocks.has("A") else None,
            inequality=blocks.inequality if blocks.has("G") else None,
            lower=blocks.lower if "lower" in names else constants.get("lower"),
            upper=blocks.upper if "upper" in names else constants.get("upper"),
            start=start,
            structure=Structure(QUADRATIC, {"blocks": blocks}),
        )

    @property
    def blocks(self) -> Blocks:
        """Which blocks are parameters, and the values of the others."""
        assert self.structure is not None
        found: Blocks = self.structure.data["blocks"]
        return found

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The blocks that are parameters, as messages name them."""
        return tuple(f"{i} ({name!r})" for i, name in enumerate(self.blocks.names))


def _dims(name: str, sizes: Mapping[str, int]) -> CoreDims:
    return tuple(sizes.get(dim, dim) for dim in CORE[name])


def _read_constants(given: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, Tensor]]:
    """Return the sizes that constants fix, and the constants as tensors."""
    sizes: dict[str, int] = {}
    constants: dict[str, Tensor] = {}
    for name, value in given.items():
        tensor = torch.as_tensor(value)
        if tensor.requires_grad:
            raise ProblemError(captured_message(f"the constant block {name!r}"))
        tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
        if tensor.ndim == 0 and name in ("lower", "upper"):
            constants[name] = tensor.to(torch.float64)
            continue
        for dim, size in _paired(name, tensor):
            if sizes.setdefault(dim, size) != size:
                raise SignatureError(
                    f"the constant block {name!r} has shape {tuple(tensor.shape)}, whose dimension {dim!r} is {size}, "
                    f"but another block has {dim} = {sizes[dim]}"
                )
        constants[name] = tensor.to(torch.float64)
    return sizes, constants


def _paired(name: str, tensor: Tensor) -> Iterator[tuple[str, int]]:
    if tensor.ndim != len(CORE[name]):
        raise SignatureError(
            f"the constant block {name!r} has shape {tuple(tensor.shape)}, but it needs {len(CORE[name])} dimensions, "
            f"({', '.join(CORE[name])}); pass what differs between instances as a parameter"
        )
    return zip(CORE[name], tensor.shape, strict=True)


def _check_pairs(blocks: Blocks) -> None:
    for matrix, side in (("G", "h"), ("A", "b")):
        if blocks.has(matrix) != blocks.has(side):
            there, missing = (matrix, side) if blocks.has(matrix) else (side, matrix)
            raise ProblemError(f"{there} is given without {missing}; give both, or neither")
    if not (blocks.has("P") or blocks.has("q") or blocks.has("G") or blocks.has("A")):
        raise ProblemError("a quadratic program needs at least one of P, q, G and A")
