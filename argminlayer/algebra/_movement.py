"""The operators that only move data, and what their arguments are: one rule serves them all."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ._machine import Machine, Value, known

MOVEMENT = frozenset(
    {
        *("view", "reshape", "_unsafe_view", "view_copy", "_reshape_alias", "permute", "transpose", "t", "select"),
        *("slice", "cat", "stack", "expand", "flip", "roll", "repeat", "unfold", "gather", "index_select", "index"),
        *("_unsafe_index", "take", "diagonal", "diag_embed", "tril", "triu", "constant_pad_nd", "squeeze"),
        *("unsqueeze", "split", "split_with_sizes", "unbind", "clone", "alias", "lift_fresh", "lift", "contiguous"),
        *("copy", "select_scatter", "slice_scatter", "diagonal_scatter", "as_strided_scatter", "scatter"),
        *("index_copy", "index_fill", "masked_scatter", "block_diag", "rot90", "pixel_shuffle", "pixel_unshuffle"),
        *("channel_shuffle", "fill", "reflection_pad1d", "reflection_pad2d", "replication_pad1d"),
        *("replication_pad2d", "_unsafe_masked_index", "as_strided", "diag", "movedim", "unsafe_split", "unsafe_chunk"),
        *("slice_backward", "select_backward", "diagonal_backward", "im2col", "masked_select"),
    }
)
"""Operators whose result consists of entries of their arguments and of zeros."""
_POSITIONS = frozenset({"index", "indices", "mask"})
"""Arguments that say where, and must be known."""
_FILLS = frozenset({"value"})
"""Numbers that are entries."""


def move(machine: Machine[Any], target: Any, arguments: Mapping[str, Any]) -> Any:
    """Apply an operator that only moves data.

    Raises:
        Unsupported: an index or a mask depends on the variables.
    """
    fixed: dict[str, Any] = {}
    moved: list[Any] = []
    slots: dict[str, Any] = {}
    for key, value in arguments.items():
        if key == "target":
            continue
        if key in _POSITIONS:
            fixed[key] = _known(value)
        elif key in _FILLS and value is not None:
            slots[key] = len(moved)
            moved.append(value)
        elif isinstance(value, Value | Tensor):
            slots[key] = len(moved)
            moved.append(value)
        elif isinstance(value, list) and any(isinstance(v, Value | Tensor) for v in value):
            slots[key] = list(range(len(moved), len(moved) + len(value)))
            moved.extend(value)
        elif key not in ("memory_format", "dtype", "device", "layout", "pin_memory", "non_blocking"):
            fixed[key] = value
    scalars = {key for key in slots if key in _FILLS and not isinstance(arguments[key], Value | Tensor)}

    def operate(*positions: Tensor) -> Any:
        filled = dict(fixed)
        for key, slot in slots.items():
            if isinstance(slot, list):
                filled[key] = [positions[i] for i in slot]
            else:
                filled[key] = int(positions[slot]) if key in scalars else positions[slot]
        return target(**filled)

    return machine.move(operate, *moved)


def _known(value: Any) -> Any:
    if isinstance(value, list):
        return [None if v is None else known(v, "an index") for v in value]
    if isinstance(value, Value | Tensor):
        return known(value, "an index or a mask")
    return value


def is_movement(name: str, arguments: Mapping[str, Any]) -> bool:
    """Say whether an operator, with these arguments, only moves data."""
    return name in MOVEMENT and not arguments.get("reduce")
