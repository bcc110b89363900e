"""From parameters to the data of the cone program: one sparse product for a batch, in every mode of autograd."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ._attributes import Attributes, checked

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Feature:
    """What enters the affine map for a parameter: its entries, or their logarithms.

    Attributes:
        parameter: position of the parameter among those of the call.
        logarithm: whether geometric programming has taken logarithms.
        size: number of entries.
    """

    parameter: int
    logarithm: bool
    size: int


class Matrix:
    """A constant sparse matrix, multiplied from the left to the last dimension of tensors."""

    def __init__(self, rows: Any):
        self.rows = sp.csr_array(rows)

    @functools.cached_property
    def transposed(self) -> "Matrix":
        """The transpose."""
        return Matrix(self.rows.T)

    @functools.cached_property
    def selection(self) -> "tuple[Array, Array, Array] | None":
        """The column and the weight of each row, and which rows are empty, where no row has two entries; else None."""
        entries = np.diff(self.rows.indptr)
        if entries.max(initial=0) > 1:
            return None
        columns, weights = np.zeros(len(entries), dtype=np.int64), np.zeros(len(entries))
        columns[entries == 1], weights[entries == 1] = self.rows.indices, self.rows.data
        return columns, weights, np.flatnonzero(entries == 0)

    def times(self, x: Tensor) -> Tensor:
        """Return the products (..., rows) with x (..., columns), differentiable."""
        product: Tensor = _Product.apply(x, self, False)  # type: ignore[no-untyped-call]
        return product

    def product(self, x: Array) -> Array:
        """Return the product with every vector of a batch."""
        lead, count = x.shape[:-1], math.prod(x.shape[:-1])
        batch = x.reshape(count, x.shape[-1])
        if count == 1 or self.selection is None or self.rows.shape[1] == 0:
            found: Array = (self.rows @ (batch[0] if count == 1 else batch.T)).T
        else:
            # most maps only move entries, which need not be transposed for it
            columns, weights, empty = self.selection
            found = batch.take(columns, axis=1)
            found *= weights
            found[:, empty] = 0.0
        return found.reshape(*lead, self.rows.shape[0])


class _Product(torch.autograd.Function):
    """The product with a constant sparse matrix; SciPy's is much faster than torch's on CPU."""

    @staticmethod
    def forward(x: Tensor, matrix: Matrix, transpose: bool) -> Tensor:
        chosen = matrix.transposed if transpose else matrix
        return torch.from_numpy(chosen.product(x.detach().numpy()))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        del output
        _, ctx.matrix, ctx.transpose = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Product.apply(gradient, ctx.matrix, not ctx.transpose), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Any:
        return _Product.apply(tangent, ctx.matrix, ctx.transpose)  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, matrix: Matrix, transpose: bool) -> Any:
        del info
        return _Product.apply(x.movedim(in_dims[0], 0), matrix, transpose), 0  # type: ignore[no-untyped-call]


@dataclass(frozen=True, eq=False)
class _Part:
    """The part of the map that some of the features reach.

    Attributes:
        features: which.
        reached: which blocks have entries that depend on them.
        sizes: their numbers of entries.
        matrix: the rows of these blocks, at the columns of these features.
    """

    features: tuple[int, ...]
    reached: tuple[int, ...]
    sizes: tuple[int, ...]
    matrix: Matrix


@dataclass(frozen=True, eq=False)
class ParameterMap:
    """Affine functions of the features, the numbers of a cone program among them.

    Attributes:
        features: what the columns stand for, in their order.
        attributes: what each parameter must satisfy.
        blocks: a sparse matrix for each result, (entries, columns).
        constants: what is added.
    """

    features: tuple[Feature, ...]
    attributes: tuple[Attributes, ...]
    blocks: tuple[Any, ...]
    constants: tuple[Tensor, ...]
    _parts: dict[tuple[int, ...], _Part] = field(default_factory=dict, repr=False)

    def __call__(self, *parameters: Tensor) -> tuple[Tensor, ...]:
        """Return the values of each block, with the leading dimensions of the parameters that it depends on.

        Raises:
            ProblemError: a value that its CVXPY parameter would refuse.
        """
        prepared = [
            checked(attributes, (value if value.layout == torch.strided else value.to_dense()).to("cpu", torch.float64))
            for attributes, value in zip(self.attributes, parameters, strict=True)
        ]
        values = [self._feature(feature, prepared) for feature in self.features]
        batched = tuple(k for k, value in enumerate(values) if value.ndim > 1 and value.shape[:-1].numel() != 1)
        shared = tuple(k for k in range(len(values)) if k not in batched)
        results = list(self.constants)
        for chosen in (shared, batched):
            if chosen:
                part = self._part(chosen)
                for block, found in zip(part.reached, self._products(part, values), strict=True):
                    results[block] = results[block] + found
        return tuple(results)

    def _feature(self, feature: Feature, prepared: Sequence[Tensor]) -> Tensor:
        value = prepared[feature.parameter]
        core = self.attributes[feature.parameter].dimensions
        flat = value.reshape(*value.shape[: value.ndim - core], feature.size)
        return flat.log() if feature.logarithm else flat

    def _products(self, part: _Part, values: Sequence[Tensor]) -> Sequence[Tensor]:
        chosen = [values[k] for k in part.features]
        lead = torch.broadcast_shapes(*(value.shape[:-1] for value in chosen))
        lead = torch.Size() if lead.numel() == 1 else lead
        columns = [
            value.reshape(-1) if value.numel() == value.shape[-1] and not lead else value.expand(*lead, -1)
            for value in chosen
        ]
        together = columns[0] if len(columns) == 1 else torch.cat(columns, -1)
        pieces: tuple[Tensor, ...] = part.matrix.times(together).split(part.sizes, -1)
        return pieces

    def _part(self, chosen: tuple[int, ...]) -> _Part:
        if chosen not in self._parts:
            edges = np.cumsum([0, *(feature.size for feature in self.features)])
            columns = np.concatenate([np.arange(edges[k], edges[k + 1]) for k in chosen])
            cut = [block if len(chosen) == len(self.features) else block[:, columns] for block in self.blocks]
            reached = tuple(i for i, block in enumerate(cut) if block.nnz)
            rows = [cut[i] for i in reached] or [sp.csr_array((0, len(columns)))]
            sizes = tuple(block.shape[0] for block in rows) if reached else ()
            self._parts[chosen] = _Part(chosen, reached, sizes, Matrix(sp.vstack(rows, format="csr")))
        return self._parts[chosen]
