"""Finding the structure of Hessians and Jacobians from products, and checking it at every use.

A structure is guessed, its entries are read off a few products, and it must reproduce one more product with a random
vector, for every instance: the numbers at this very point then have that structure, whatever suggested it. What was
found is remembered for the problem, and is a first guess the next time.
"""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ._autodiff import inside_transform
from ._bound import BoundProblem
from ._matrices import AbstractMatrix, BlockMatrix, DenseMatrix, Grouping, Pattern, ProductMatrix, SparseMatrix
from ._pattern import Coloring, components, discover, merge
from ._problem import Problem
from ._products import HessianProducts, JacobianProducts, Products

SMALL = 16
"""Up to so many variables a dense Hessian is the cheapest."""
DENSE_LIMIT = 2000
"""Beyond so many variables a Hessian is not formed unless it has structure."""
SPARSE_FROM = 256
"""From so many variables on a sparse factorisation pays."""
BLOCK_LIMIT = 64
"""Largest group of variables that is taken for a block."""
RANKS = (1, 2, 4, 8)
"""Ranks that are tried in addition to a diagonal."""
SPARSE_ENTRIES = 100_000
"""From so many entries on a Jacobian is looked at for sparsity."""
AGREEMENT = 1e-11
"""Relative deviation from a random product that rounding explains."""

Guess = tuple[str, Coloring | Grouping | int | None]
"""Name of a structure, and what is known about it."""


@dataclass(frozen=True)
class _Probe:
    """A random direction, and the product with it that a structure must reproduce."""

    vector: Tensor
    product: Tensor

    @classmethod
    def of(cls, products: Products, count: int, like: Tensor) -> "_Probe":
        draw = torch.Generator().manual_seed(20210401)
        vector = torch.randn(count, dtype=like.dtype, generator=draw).to(like.device)
        batch = vector.expand(like.shape[0], -1)
        return cls(batch, products(batch))

    def disagreeing(self, product: Tensor) -> Tensor:
        """Return the instances that the structure does not reproduce, (batch,)."""
        allowed = AGREEMENT * self.product.abs().amax(-1)
        return ~((product - self.product).abs().amax(-1) <= allowed)


class _Memory:
    """The structure last found for a problem, by what was looked at and its sizes."""

    def __init__(self) -> None:
        self._guesses: weakref.WeakKeyDictionary[Problem, dict[tuple[str, int, int], Guess]]
        self._guesses = weakref.WeakKeyDictionary()

    def get(self, bound: BoundProblem, what: str, rows: int) -> Guess | None:
        return self._guesses.get(bound.problem, {}).get((what, rows, bound.size))

    def put(self, bound: BoundProblem, what: str, rows: int, guess: Guess) -> None:
        self._guesses.setdefault(bound.problem, {})[what, rows, bound.size] = guess


_MEMORY = _Memory()


def hessian_of(bound: BoundProblem, z: Tensor, nu: Tensor, lam: Tensor) -> AbstractMatrix:
    """Return the Hessian of the Lagrangian in the most economical form that holds at this point."""
    n = bound.size
    known = _MEMORY.get(bound, "hessian", n)
    if n <= SMALL or bound.batch == 0 or inside_transform() or (known is not None and known[0] == "dense"):
        return DenseMatrix(bound.hessian(z, nu, lam))
    products = HessianProducts(bound, z, nu, lam)
    probe = _Probe.of(products, n, z)
    if bool(probe.product.isfinite().all()):
        for guess, matrix in _hessians(products, probe, known):
            if not bool(probe.disagreeing(matrix.times(probe.vector[..., None])[..., 0]).any()):
                _MEMORY.put(bound, "hessian", n, guess)
                return matrix
    if n > DENSE_LIMIT:
        scale = probe.product.abs().amax(-1)
        return ProductMatrix(products, scale, torch.zeros_like(scale))
    _MEMORY.put(bound, "hessian", n, ("dense", None))
    return DenseMatrix(bound.hessian(z, nu, lam))


def jacobian_of(bound: BoundProblem, which: str, z: Tensor) -> tuple[Tensor, DenseMatrix | SparseMatrix]:
    """Return the values of the equalities or inequalities and their Jacobian, sparse if that is worth it."""
    count = bound.equalities if which == "equality" else bound.inequalities
    known = _MEMORY.get(bound, which, count)
    small = count * bound.size < SPARSE_ENTRIES or bound.batch == 0 or inside_transform()
    if not small and (known is None or known[0] != "dense"):
        products = JacobianProducts(bound, which, z)
        probe = _Probe.of(products, count, z)
        guess = known[1] if known is not None else None
        pattern = guess if isinstance(guess, Coloring) else None
        for coloring in _patterns(products, pattern, count, bound.size):
            matrix = _read_rows(products, coloring, z)
            wrong = probe.disagreeing(matrix.pull(probe.vector))
            if not bool(wrong.any()):
                _MEMORY.put(bound, which, count, ("sparse", coloring))
                return products.values, matrix
        _MEMORY.put(bound, which, count, ("dense", None))
    values, rows = getattr(bound, which)(z)
    return values, DenseMatrix(rows)


def _hessians(products: HessianProducts, probe: _Probe, known: Guess | None) -> Iterator[tuple[Guess, AbstractMatrix]]:
    """Yield structured Hessians to be checked, the one found before first."""
    n = products.size
    if known is not None:
        yield known, _read(products, known, probe)
    diagonal: Guess = ("diagonal", None)
    yield diagonal, _read(products, diagonal, probe)
    for coloring in _patterns(products, None, n, n):
        guess = _use_of(coloring, n, probe.vector.device)
        if guess is not None:
            yield guess, _read(products, guess, probe)
    for rank in (r for r in RANKS if 6 * r <= n):
        yield ("low-rank", rank), _read(products, ("low-rank", rank), probe)


def _patterns(products: Products, known: Coloring | None, rows: int, n: int) -> Iterator[Coloring]:
    """Yield patterns: the one known, that of the first instance, and all that the last instance adds."""
    if known is not None:
        yield known
    first = _discover(products, 0, rows, n)
    if first is None:
        return
    yield first
    last = _discover(products, -1, rows, n)
    if last is not None:
        yield merge(first, last)


def _discover(products: Products, instance: int, rows: int, n: int) -> Coloring | None:
    one = products.select(torch.tensor([instance]))

    def product(seeds: np.ndarray) -> np.ndarray:
        pulled: np.ndarray = one.many(torch.from_numpy(seeds))[:, 0].cpu().numpy()
        return pulled

    return discover(product, n, rows, max(8, min(rows, n) // 4))


def _use_of(coloring: Coloring, n: int, device: torch.device) -> Guess | None:
    groups = components(coloring)
    largest = max(map(len, groups))
    if largest <= min(BLOCK_LIMIT, n // 4):
        return "blocks", _pack(groups, largest, n, device)
    return ("sparse", coloring) if n >= SPARSE_FROM else None


def _pack(groups: list[list[int]], size: int, n: int, device: torch.device) -> Grouping:
    """Pack groups into blocks of one size, the largest first, each into the first block that has room."""
    blocks: list[list[int]] = []
    open_from = 0
    for group in sorted(groups, key=len, reverse=True):
        while open_from < len(blocks) and len(blocks[open_from]) == size:
            open_from += 1
        room = next((b for b in blocks[open_from:] if len(b) + len(group) <= size), None)
        if room is None:
            blocks.append(list(group))
        else:
            room.extend(group)
    order = torch.tensor([block + [n] * (size - len(block)) for block in blocks]).flatten()
    place = torch.empty(n, dtype=torch.int64)
    real = order < n
    place[order[real]] = real.nonzero()[:, 0]
    return Grouping(order.to(device), place.to(device), size)


def _read(products: HessianProducts, guess: Guess, probe: _Probe) -> AbstractMatrix:
    """Read the entries of a structure off products."""
    name, detail = guess
    readers: dict[str, Callable[..., AbstractMatrix]] = {
        "diagonal": _read_diagonal,
        "blocks": _read_blocks,
        "sparse": _read_rows,
        "low-rank": _read_low_rank,
    }
    return readers[name](products, detail, probe.vector)


def _read_diagonal(products: HessianProducts, detail: None, like: Tensor) -> BlockMatrix:
    diagonal = products(torch.ones_like(like))
    return BlockMatrix(_singles(like), diagonal[:, :, None, None], like[:, :, None][..., :0], like[:, :0])


def _singles(like: Tensor) -> Grouping:
    order = torch.arange(like.shape[-1], device=like.device)
    return Grouping(order, order, 1)


def _read_blocks(products: HessianProducts, grouping: Grouping, like: Tensor) -> BlockMatrix:
    n, size = like.shape[-1], grouping.size
    where = (grouping.place % size)[:, None] == torch.arange(size, device=like.device)
    read = torch.stack([products(seed.to(like).expand_as(like)) for seed in where.T], dim=-1)
    blocks = grouping.blocks(read)
    empty = (grouping.order == n).unflatten(0, (-1, size))
    blocks = torch.where(empty[..., None] | empty[:, None, :], 0.0, blocks)
    return BlockMatrix(grouping, blocks, like[:, :, None][..., :0], like[:, :0])


def _read_rows(products: Products, coloring: Coloring, like: Tensor) -> SparseMatrix:
    """Read the rows of a transposed Jacobian, or of a symmetric matrix: colours are those of the weights."""
    pulled = products.many(torch.from_numpy(coloring.seeds).to(like))
    columns, rows = (torch.from_numpy(a).to(like.device) for a in (coloring.columns, coloring.rows))
    colors = torch.from_numpy(coloring.colors).to(like.device)
    return SparseMatrix(Pattern(columns, rows, coloring.shape[::-1]), pulled[colors[columns], :, rows].T)


def _read_low_rank(products: HessianProducts, rank: int, like: Tensor) -> BlockMatrix:
    """Read a diagonal plus a symmetric matrix of low rank off a few columns.

    With disjoint index sets S, T, R of ``rank`` indices, blocks of H off the diagonal hold the low rank alone:
    ``(VCV')_SS = H_ST (H_RT)^+ H_RS``, and ``VCV' = X (VCV')_SS^+ X'`` with its columns X at S.
    """
    n = like.shape[-1]
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(7))[: 3 * rank].to(like.device)
    s, t, r = chosen.split(rank)
    place = torch.arange(n, device=like.device)
    columns, others = (
        torch.stack([products((place == i).to(like).expand_as(like)) for i in index], -1) for index in (s, t)
    )
    core = others[:, s] @ torch.linalg.pinv(others[:, r], rtol=1e-9) @ columns[:, r]
    columns = columns.index_copy(1, s, core)
    values, vectors = torch.linalg.eigh(0.5 * (core + core.mT))
    known = values.abs() > 1e-9 * values.abs().amax(-1, keepdim=True)
    root = torch.where(known, values.abs(), 1.0).rsqrt() * known
    low = columns @ (vectors * root[:, None, :])
    sign = torch.where(known, values.sign(), 1.0)
    ones = torch.ones_like(like)
    diagonal = products(ones) - (low @ (sign[..., None] * (low.mT @ ones[..., None])))[..., 0]
    return BlockMatrix(_singles(like), diagonal[:, :, None, None], low, sign)
