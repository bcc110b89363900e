"""Gufunc signatures: core dimensions of parameters and variables, and how leading dimensions broadcast."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._errors import SignatureError

CoreDims = tuple[str | int, ...]

_GROUP = re.compile(r"\(([^()]*)\)")
_LIST = re.compile(r"\([^()]*\)(?:,\([^()]*\))*")


@dataclass(frozen=True)
class Signature:
    """A parsed gufunc signature such as ``"(m,n),(m)->(n)"``.

    Attributes:
        inputs: core dimensions of each parameter; a name, or an integer for a fixed size.
        outputs: core dimensions of each variable.
    """

    inputs: tuple[CoreDims, ...]
    outputs: tuple[CoreDims, ...]

    @classmethod
    def parse(cls, text: str) -> "Signature":
        """Read ``"(),(n,k)->(n),(3)"``.

        Names are shared sizes, integers are fixed sizes, ``()`` is a scalar, and the part before ``->`` may be empty.

        Raises:
            SignatureError: the text is not a signature.
        """
        if not isinstance(text, str):
            raise SignatureError(f"the signature must be a string such as '(m,n),(m)->(n)', not {text!r}")
        compact = re.sub(r"\s*([(),]|->)\s*", r"\1", text.strip())
        left, arrow, right = compact.partition("->")
        if not arrow or not _LIST.fullmatch(right) or (left and not _LIST.fullmatch(left)):
            raise SignatureError(
                f"the signature {text!r} is not of the form '(m,n),(m)->(n)': core dimensions of each parameter, "
                "'->', core dimensions of each variable; a scalar is '()', a fixed size an integer such as '(3)'"
            )
        return cls(_parse_groups(left, text), _parse_groups(right, text))

    def __str__(self) -> str:
        return f"{_format_groups(self.inputs)}->{_format_groups(self.outputs)}"

    def match(self, parameters: Sequence[Tensor], names: Sequence[str]) -> tuple[dict[str, int], torch.Size]:
        """Return the size of every named dimension and the broadcast leading dimensions.

        Args:
            parameters: one tensor for each input of the signature, with any leading dimensions.
            names: what to call each parameter in an error.

        Raises:
            SignatureError: too few or too many parameters, too few dimensions, two sizes for one name, another size
                than the fixed one, or leading dimensions that do not broadcast.
        """
        if len(parameters) != len(self.inputs):
            raise SignatureError(
                f"{len(parameters)} {'parameter was' if len(parameters) == 1 else 'parameters were'} given, but the "
                f"signature {self} has {len(self.inputs)}: {', '.join(names) or 'none'}"
            )
        sizes: dict[str, int] = {}
        origin: dict[str, str] = {}
        for dims, parameter, name in zip(self.inputs, parameters, names, strict=True):
            self._match_one(dims, parameter, name, sizes, origin)
        return sizes, self._broadcast(parameters, names)

    def _match_one(
        self, dims: CoreDims, parameter: Tensor, name: str, sizes: dict[str, int], origin: dict[str, str]
    ) -> None:
        if parameter.ndim < len(dims):
            raise SignatureError(
                f"parameter {name} has shape {tuple(parameter.shape)}, but the signature {self} gives it "
                f"{len(dims)} core dimensions {_format_group(dims)}; leading dimensions before them are the batch"
            )
        core = parameter.shape[parameter.ndim - len(dims) :]
        for dim, size in zip(dims, core, strict=True):
            if isinstance(dim, int):
                if size != dim:
                    raise SignatureError(
                        f"parameter {name} has shape {tuple(parameter.shape)}, whose core dimension {dim} of "
                        f"{_format_group(dims)} has size {size} instead of {dim}; the signature is {self}"
                    )
            elif sizes.setdefault(dim, size) != size:
                raise SignatureError(
                    f"parameter {name} has shape {tuple(parameter.shape)}, so dimension {dim!r} is {size}, but "
                    f"parameter {origin[dim]} has {dim} = {sizes[dim]}; the signature is {self}"
                )
            else:
                origin.setdefault(dim, name)

    def _broadcast(self, parameters: Sequence[Tensor], names: Sequence[str]) -> torch.Size:
        leading = [p.shape[: p.ndim - len(dims)] for dims, p in zip(self.inputs, parameters, strict=True)]
        try:
            return torch.broadcast_shapes(*leading) if leading else torch.Size()
        except RuntimeError as error:
            listing = ", ".join(f"{name}: {tuple(shape)}" for name, shape in zip(names, leading, strict=True))
            raise SignatureError(
                f"the leading (batch) dimensions of the parameters do not broadcast: {listing}; the signature is {self}"
            ) from error

    def variable_shapes(self, sizes: Mapping[str, int]) -> tuple[torch.Size | None, ...]:
        """Return the core shape of each variable, None where a name has no size in any parameter."""
        return tuple(
            None
            if any(isinstance(dim, str) and dim not in sizes for dim in dims)
            else torch.Size(dim if isinstance(dim, int) else sizes[dim] for dim in dims)
            for dims in self.outputs
        )


def _parse_groups(text: str, whole: str) -> tuple[CoreDims, ...]:
    return tuple(tuple(_parse_dim(dim, whole) for dim in group.split(",") if dim) for group in _GROUP.findall(text))


def _parse_dim(text: str, whole: str) -> str | int:
    if text.isascii() and text.isdigit():
        return int(text)
    if not text.isidentifier():
        raise SignatureError(
            f"{text!r} in the signature {whole!r} is neither a name nor an integer; write for example '(m,n),(3)->(n)'"
        )
    return text


def _format_group(dims: CoreDims) -> str:
    return f"({','.join(map(str, dims))})"


def _format_groups(groups: tuple[CoreDims, ...]) -> str:
    return ",".join(map(_format_group, groups))
