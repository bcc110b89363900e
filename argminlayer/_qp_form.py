"""The numbers of a batch of quadratic programs: symmetric P, one stack of two-sided rows, and what is known of P."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

DEFINITE = 1e-9
"""P counts as definite when the squares of its Cholesky pivots exceed this, over its largest diagonal entry."""
INDEFINITE = 1e-9
"""P is indefinite when its most negative eigenvalue exceeds this, over its largest in size."""


class QuadraticForm(NamedTuple):
    """``min 1/2 u'Pu + q'u  s.t.  low <= (u, A u, G u) <= high`` for every instance of a batch, in float64 NumPy.

    Leading dimensions are the batch, or 1 where the instances share an array. The rows of u itself are there only if
    there are bounds. Multipliers y follow the rows, positive where the upper side holds and negative where the lower
    side does: ``P u + q + (I, A', G') y = 0``.

    Attributes:
        P: symmetric, (1 or batch, n, n); None for linear programs.
        q: (1 or batch, n).
        rows: A above G, (1 or batch, p + m, n).
        low: (1 or batch, s), s = n + p + m with bounds, p + m without.
        high: (1 or batch, s).
        equalities: p.
        bounded: whether the rows begin with those of u itself.
        batch: number of instances.
        cholesky: lower factors of P, (1 or batch, n, n); what they hold is of use only where P is definite.
        definite: whether P is positive definite, (1 or batch,).
        largest: the largest diagonal entry of P, (1 or batch, 1).
    """

    P: Array | None
    q: Array
    rows: Array
    low: Array
    high: Array
    equalities: int
    bounded: bool
    batch: int
    cholesky: Tensor
    definite: Array
    largest: Array

    @property
    def size(self) -> int:
        """Number of variables, n."""
        return int(self.q.shape[-1])

    @property
    def offset(self) -> int:
        """Number of rows that belong to bounds: n or 0."""
        return self.size if self.bounded else 0

    @property
    def height(self) -> int:
        """Number of rows, s."""
        return int(self.low.shape[-1])

    @property
    def linear(self) -> bool:
        """Whether there is no quadratic term."""
        return self.P is None

    def select(self, index: Array) -> "QuadraticForm":
        """Return the programs at some positions of the batch."""
        return self._taken(index, len(index))

    def window(self, start: int, stop: int) -> "QuadraticForm":
        """Return the programs from ``start`` to ``stop``, without a copy."""
        return self._taken(slice(start, stop), min(stop, self.batch) - start)

    def _taken(self, index: Array | slice, batch: int) -> "QuadraticForm":
        def taken(array: Any) -> Any:
            return array if array is None or len(array) == 1 else array[index]

        return self._replace(
            P=taken(self.P),
            q=taken(self.q),
            rows=taken(self.rows),
            low=taken(self.low),
            high=taken(self.high),
            batch=batch,
            cholesky=taken(self.cholesky),
            definite=taken(self.definite),
            largest=taken(self.largest),
        )

    def objective(self, u: Array) -> Array:
        """Return the objectives (batch,) at points (batch, n)."""
        value: Array = (self.q * u).sum(-1)
        return value if self.P is None else value + 0.5 * (u * np.matmul(self.P, u[..., None])[..., 0]).sum(-1)

    def eigenvalue_range(self, instance: int) -> tuple[float, float]:
        """Return the smallest and the largest eigenvalue of P of an instance."""
        if self.P is None:
            return 0.0, 0.0
        values = np.linalg.eigvalsh(at(self.P, instance))
        return float(values[0]), float(values[-1])

    def indefinite(self) -> Array:
        """Return where P has a negative eigenvalue beyond rounding, (1 or batch,)."""
        if self.P is None or bool(self.definite.all()):
            return np.zeros(len(self.definite), dtype=bool)
        found = np.zeros(len(self.definite), dtype=bool)
        for i in np.flatnonzero(~self.definite):
            if np.isfinite(self.P[i]).all():
                smallest, largest = self.eigenvalue_range(int(i))
                found[i] = smallest < -INDEFINITE * max(abs(smallest), abs(largest))
        return found

    def finite(self) -> Array:
        """Return which instances consist of numbers, bounds apart, which may be infinite on their side, (batch,)."""
        fine = np.ones(self.batch, dtype=bool)
        for array in (self.P, self.q, self.rows):
            if array is not None and not np.isfinite(array.sum()):
                fine &= np.isfinite(array).reshape(len(array), -1).all(-1)
        sides = ~(self.low < np.inf) | ~(self.high > -np.inf)
        return fine & ~sides.any(-1)


def within_bounds(form: QuadraticForm, u: Array) -> Array:
    """Return points (batch, n) moved into the bounds, which back ends miss by their rounding."""
    n = form.offset
    return np.minimum(np.maximum(u, form.low[:, :n]), form.high[:, :n]) if form.bounded else u


def at(array: Array, instance: int) -> Array:
    """Return the entry of an instance, or the one that all share."""
    found: Array = array[instance if len(array) > 1 else 0]
    return found


def quadratic_form(blocks: Mapping[str, Tensor], batch_shape: torch.Size) -> QuadraticForm:
    """Return the numbers of blocks, float64 tensors whose leading dimensions broadcast to ``batch_shape``.

    Written for speed: a program of ten variables is solved in a few microseconds.
    """
    arrays = {name: _flat(block, 2 if name in "PGA" else 1, batch_shape) for name, block in blocks.items()}
    n = next(a.shape[-1] for name, a in arrays.items() if name not in "hb")
    P = arrays.get("P")
    if P is None:
        cholesky, definite, largest = (
            torch.zeros(1, n, n, dtype=torch.float64),
            np.zeros(1, dtype=bool),
            np.zeros((1, 1)),
        )
    else:
        mirrored = P.swapaxes(-1, -2)
        if not (P == mirrored).all():
            P = 0.5 * (P + mirrored)
        cholesky, definite, largest = factorised(P)
    matrices = [arrays[name] for name in "AG" if name in arrays]
    low, high = _sides(arrays, n)
    return QuadraticForm(
        P=P,
        q=arrays["q"] if "q" in arrays else np.zeros((1, n)),
        rows=_joined(matrices) if matrices else np.zeros((1, 0, n)),
        low=low,
        high=high,
        equalities=arrays["A"].shape[-2] if "A" in arrays else 0,
        bounded="lower" in arrays or "upper" in arrays,
        batch=batch_shape.numel(),
        cholesky=cholesky,
        definite=definite,
        largest=largest,
    )


def _flat(block: Tensor, core: int, batch_shape: torch.Size) -> Array:
    block = block.detach()
    if block.is_cuda:
        block = block.cpu()
    lead = block.shape[: block.ndim - core]
    if lead and lead != batch_shape and lead.numel() != 1:
        block = block.expand(batch_shape + block.shape[len(lead) :])
        lead = batch_shape
    array = block.numpy()
    if len(lead) != 1:
        array = array.reshape(lead.numel(), *array.shape[len(lead) :]) if lead else array[None]
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _joined(arrays: list[Array], length: int = 1) -> Array:
    """Return arrays one below the other, each repeated for the batch where another, or ``length``, is not shared."""
    lengths = (length, *map(len, arrays))
    length = max(lengths) if all(lengths) else 0
    if len(arrays) == 1 and len(arrays[0]) == length:
        return arrays[0]
    if any(len(array) != length for array in arrays):
        arrays = [np.broadcast_to(array, (length, *array.shape[1:])) for array in arrays]
        return np.ascontiguousarray(np.concatenate(arrays, 1))
    return np.concatenate(arrays, 1)


def _sides(arrays: Mapping[str, Array], n: int) -> tuple[Array, Array]:
    low, high = [], []
    if "lower" in arrays or "upper" in arrays:
        low.append(arrays["lower"] if "lower" in arrays else np.full((1, n), -np.inf))
        high.append(arrays["upper"] if "upper" in arrays else np.full((1, n), np.inf))
    if "b" in arrays:
        low.append(arrays["b"])
        high.append(arrays["b"])
    if "h" in arrays:
        low.append(np.full(arrays["h"].shape, -np.inf))
        high.append(arrays["h"])
    if not low:
        return np.zeros((1, 0)), np.zeros((1, 0))
    lengths = [len(array) for array in (*low, *high)]
    length = max(lengths) if all(lengths) else 0
    return _joined(low, length), _joined(high, length)


def factorised(P: Array) -> tuple[Tensor, Array, Array]:
    """Factorise symmetric matrices (batch, n, n).

    Returns:
        Lower Cholesky factors; which matrices are positive definite by a margin, (batch,); and the largest diagonal
        entries, (batch, 1).
    """
    batch = len(P)
    factor, info = torch.linalg.cholesky_ex(torch.from_numpy(P))
    if P.size == 0:
        return factor, np.ones(batch, dtype=bool), np.zeros((batch, 1))
    pivots = np.minimum.reduce(factor.numpy().diagonal(0, 1, 2), 1)
    largest = np.maximum.reduce(P.diagonal(0, 1, 2), 1, keepdims=True)
    definite = pivots * abs(pivots) > DEFINITE * largest[:, 0]
    if info.any():
        definite &= info.numpy() == 0
    return factor, definite, largest
