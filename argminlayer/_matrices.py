"""Hessians and Jacobians of a batch in the form that their structure allows; vectors have columns, (batch, n, c)."""

import abc
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._measures import finite, length
from ._products import HessianProducts


class AbstractMatrix(abc.ABC):
    """One matrix for each instance of a batch."""

    @abc.abstractmethod
    def times(self, vector: Tensor) -> Tensor:
        """Return ``M v``."""

    @abc.abstractmethod
    def transposed(self, vector: Tensor) -> Tensor:
        """Return ``M' v``."""

    @abc.abstractmethod
    def dense(self) -> Tensor:
        """Return all entries, (batch, rows, columns)."""

    @abc.abstractmethod
    def largest(self) -> Tensor:
        """Return the largest absolute entry that is known, (batch,)."""

    @abc.abstractmethod
    def shifted(self, shift: Tensor) -> "AbstractMatrix":
        """Return the square matrix with ``shift`` (batch,) added to its diagonal."""

    @abc.abstractmethod
    def select(self, index: Tensor) -> "AbstractMatrix":
        """Return the matrices of the instances in ``index``."""

    def pull(self, weights: Tensor) -> Tensor:
        """Return ``M' w`` for ``w`` without columns."""
        return self.transposed(weights[..., None])[..., 0]


@dataclass(frozen=True)
class DenseMatrix(AbstractMatrix):
    """All entries.

    Attributes:
        entries: (batch, rows, columns).
    """

    entries: Tensor

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.entries.shape[1]

    def times(self, vector: Tensor) -> Tensor:
        """See :meth:`AbstractMatrix.times`."""
        return self.entries @ vector

    def transposed(self, vector: Tensor) -> Tensor:
        """See :meth:`AbstractMatrix.transposed`."""
        return self.entries.mT @ vector

    def dense(self) -> Tensor:
        """See :meth:`AbstractMatrix.dense`."""
        return self.entries

    def largest(self) -> Tensor:
        """See :meth:`AbstractMatrix.largest`."""
        return _largest(self.entries.flatten(1))

    def lengths(self) -> Tensor:
        """Return the length of each row, (batch, rows)."""
        lengths: Tensor = torch.linalg.vector_norm(self.entries, dim=-1)
        return lengths

    def scale(self) -> Tensor:
        """Return the length of each row, one for a row of zeros or one that is not finite, (batch, rows)."""
        lengths: Tensor = length(finite(self.entries))
        return lengths

    def shifted(self, shift: Tensor) -> "DenseMatrix":
        """See :meth:`AbstractMatrix.shifted`."""
        return DenseMatrix(self.entries + torch.diag_embed(shift[:, None].expand(self.entries.shape[:-1])))

    def select(self, index: Tensor) -> "DenseMatrix":
        """See :meth:`AbstractMatrix.select`."""
        return DenseMatrix(self.entries[index])


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where the entries of a sparse matrix are, one pattern for the whole batch.

    Attributes:
        rows: (entries,).
        columns: (entries,).
        shape: numbers of rows and columns.
    """

    rows: Tensor
    columns: Tensor
    shape: tuple[int, int]


@dataclass(frozen=True)
class SparseMatrix(AbstractMatrix):
    """Entries at the places of a pattern.

    Attributes:
        pattern: their places.
        values: (batch, entries).
    """

    pattern: Pattern
    values: Tensor

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.pattern.shape[0]

    def times(self, vector: Tensor) -> Tensor:
        """See :meth:`AbstractMatrix.times`."""
        return self._product(vector, self.pattern.columns, self.pattern.rows, self.pattern.shape[0])

    def transposed(self, vector: Tensor) -> Tensor:
        """See :meth:`AbstractMatrix.transposed`."""
        return self._product(vector, self.pattern.rows, self.pattern.columns, self.pattern.shape[1])

    def _product(self, vector: Tensor, source: Tensor, target: Tensor, size: int) -> Tensor:
        out = vector.new_zeros(vector.shape[0], size, vector.shape[-1])
        return out.index_add(1, target, self.values[..., None] * vector[:, source])

    def dense(self) -> Tensor:
        """See :meth:`AbstractMatrix.dense`."""
        out = self.values.new_zeros(self.values.shape[0], *self.pattern.shape)
        out[:, self.pattern.rows, self.pattern.columns] = self.values
        return out

    def largest(self) -> Tensor:
        """See :meth:`AbstractMatrix.largest`."""
        return _largest(self.values)

    def lengths(self) -> Tensor:
        """Return the length of each row, (batch, rows)."""
        out = self.values.new_zeros(self.values.shape[0], self.pattern.shape[0])
        lengths: Tensor = out.index_add(1, self.pattern.rows, self.values.square()).sqrt()
        return lengths

    def scale(self) -> Tensor:
        """Return the length of each row, one for a row of zeros or one that is not finite, (batch, rows)."""
        lengths = finite(self.lengths())
        return torch.where(lengths > 0, lengths, 1.0)

    def shifted(self, shift: Tensor) -> "SparseMatrix":
        """See :meth:`AbstractMatrix.shifted`."""
        diagonal = torch.arange(self.pattern.shape[0], device=shift.device)
        rows, columns = (torch.cat([places, diagonal]) for places in (self.pattern.rows, self.pattern.columns))
        added = shift[:, None].expand(-1, len(diagonal))
        return SparseMatrix(Pattern(rows, columns, self.pattern.shape), torch.cat([self.values, added], dim=1))

    def select(self, index: Tensor) -> "SparseMatrix":
        """See :meth:`AbstractMatrix.select`."""
        return SparseMatrix(self.pattern, self.values[index])


Jacobian = DenseMatrix | SparseMatrix


@dataclass(frozen=True, eq=False)
class Grouping:
    """Variables in groups that do not meet, packed into blocks of one size.

    Attributes:
        order: variables in the order of the blocks, (blocks * size,), n at places that fill up a block.
        place: where each variable is in that order, (n,).
        size: of a block.
    """

    order: Tensor
    place: Tensor
    size: int

    @property
    def trivial(self) -> bool:
        """Whether every variable is a group of its own, in its order."""
        return self.size == 1

    @property
    def padding(self) -> Tensor:
        """Which places only fill up a block, (blocks, size)."""
        filling: Tensor = self.order == len(self.place)
        return filling.reshape(-1, self.size)

    def blocks(self, vector: Tensor) -> Tensor:
        """Return (batch, n, c) as (batch, blocks, size, c)."""
        if self.trivial:
            return vector[:, :, None]
        padded = torch.cat([vector, vector.new_zeros(vector.shape[0], 1, vector.shape[-1])], dim=1)
        count = len(self.order) // self.size
        return padded[:, self.order].reshape(len(vector), count, self.size, vector.shape[-1])

    def vector(self, blocks: Tensor) -> Tensor:
        """Return (batch, blocks, size, c) as (batch, n, c)."""
        return blocks[:, :, 0] if self.trivial else blocks.flatten(1, 2)[:, self.place]


@dataclass(frozen=True)
class BlockMatrix(AbstractMatrix):
    """A symmetric matrix ``B + V diag(sign) V'``: independent blocks, diagonal if of size 1, plus a low rank.

    Attributes:
        grouping: which variables form the blocks.
        blocks: (batch, blocks, size, size), zero at places that fill up a block.
        low: V, (batch, n, r), r is 0 without a low rank.
        sign: 1 or -1, (batch, r).
    """

    grouping: Grouping
    blocks: Tensor
    low: Tensor
    sign: Tensor

    def times(self, vector: Tensor) -> Tensor:
        """See :meth:`AbstractMatrix.times`."""
        product = self.grouping.vector(block_product(self.blocks, self.grouping.blocks(vector)))
        if self.low.shape[-1] == 0:
            return product
        return product + self.low @ (self.sign[..., None] * (self.low.mT @ vector))

    def transposed(self, vector: Tensor) -> Tensor:
        """See :meth:`AbstractMatrix.transposed`."""
        return self.times(vector)

    def dense(self) -> Tensor:
        """See :meth:`AbstractMatrix.dense`."""
        batch, n = self.low.shape[:2]
        identity = torch.eye(n, dtype=self.low.dtype, device=self.low.device)
        return self.times(identity.expand(batch, n, n))

    def largest(self) -> Tensor:
        """See :meth:`AbstractMatrix.largest`."""
        return torch.maximum(_largest(self.blocks.flatten(1)), _largest(self.low.square().flatten(1)))

    def shifted(self, shift: Tensor) -> "BlockMatrix":
        """See :meth:`AbstractMatrix.shifted`."""
        diagonal = torch.diag_embed(shift[:, None, None].expand(self.blocks.shape[:-1]))
        return replace(self, blocks=self.blocks + diagonal)

    def select(self, index: Tensor) -> "BlockMatrix":
        """See :meth:`AbstractMatrix.select`."""
        return BlockMatrix(self.grouping, self.blocks[index], self.low[index], self.sign[index])


@dataclass(frozen=True)
class ProductMatrix(AbstractMatrix):
    """A symmetric matrix known by its products only.

    Attributes:
        products: takes them.
        scale: size of the product with a vector of unit entries, standing for that of the matrix, (batch,).
        shift: what is added to the diagonal, (batch,).
    """

    products: HessianProducts
    scale: Tensor
    shift: Tensor

    def times(self, vector: Tensor) -> Tensor:
        """See :meth:`AbstractMatrix.times`."""
        products = torch.stack([self.products(column) for column in vector.unbind(-1)], dim=-1)
        return products + self.shift[:, None, None] * vector

    def transposed(self, vector: Tensor) -> Tensor:
        """See :meth:`AbstractMatrix.transposed`."""
        return self.times(vector)

    def dense(self) -> Tensor:
        """See :meth:`AbstractMatrix.dense`."""
        n = self.products.size
        identity = torch.eye(n, dtype=self.scale.dtype, device=self.scale.device)
        return self.times(identity.expand(len(self.scale), n, n))

    def largest(self) -> Tensor:
        """See :meth:`AbstractMatrix.largest`."""
        return self.scale

    def shifted(self, shift: Tensor) -> "ProductMatrix":
        """See :meth:`AbstractMatrix.shifted`."""
        return replace(self, shift=self.shift + shift)

    def select(self, index: Tensor) -> "ProductMatrix":
        """See :meth:`AbstractMatrix.select`."""
        return ProductMatrix(self.products.select(index), self.scale[index], self.shift[index])


def block_product(blocks: Tensor, vectors: Tensor) -> Tensor:
    """Return the products of blocks (batch, m, k, k) and vectors (batch, m, k, c)."""
    return blocks * vectors if blocks.shape[-1] == 1 else blocks @ vectors


def _largest(values: Tensor) -> Tensor:
    return values.abs().amax(-1) if values.shape[-1] else values.sum(-1)
