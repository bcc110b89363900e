"""Robust pooling as torch modules."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import argminlayer as al

from ._penalties import Barron
from ._problem import pooling_problem


class _Pooling(al.ArgminLayer):
    """What pooling of numbers and of vectors have in common."""

    vectors: bool

    def __init__(
        self,
        penalty: str = "huber",
        alpha: float | Tensor = 1.0,
        dim: int | tuple[int, ...] = (-2, -1),
        *,
        shape: float | Tensor | None = None,
        keepdim: bool = False,
        learnable: bool = True,
        solver: str | al.AbstractSolver | None = None,
        backward: al.AbstractBackward = al.KKT(),
        options: Mapping[str, Any] | None = None,
        throw: bool = True,
    ):
        problem = pooling_problem(penalty, vectors=self.vectors)
        super().__init__(problem, solver=solver, backward=backward, options=options, throw=throw)
        if shape is not None and penalty != Barron.name:
            raise al.ProblemError(f"the penalty {penalty!r} has no shape; only 'barron' has one")
        self.penalty = penalty
        self.dim = (dim,) if isinstance(dim, int) else tuple(dim)
        self.keepdim = keepdim
        self.alpha = _parameter(alpha, learnable, torch.get_default_dtype())
        if not bool(((self.alpha > 0) & self.alpha.isfinite()).all()):
            raise al.ProblemError(f"alpha must be positive and finite, not {self.alpha.min().item():g}")
        given = 0.0 if shape is None and penalty == Barron.name else shape
        self.shape = None if given is None else _parameter(given, learnable, self.alpha.dtype)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        weights: Tensor | None = None,
        *,
        solver: str | al.AbstractSolver | None = None,
        start: Any = None,
    ) -> Tensor:
        """Return the pooled values, in the shape of ``x`` without the pooled dimensions.

        Args:
            x: the points.
            weights: nonnegative, broadcast to ``x``, without its channels if they are those of vectors: masks,
                attention. A point of weight zero does not count.
            solver: for this call only.
            start: for this call only.

        Raises:
            ProblemError: an empty pool, no such dimension, no channels; NaN or infinity (only with ``throw``).
        """
        dims = self._dimensions(x)
        positions, pooled_positions = x.shape, dims
        if self.vectors:
            channel = self._channel(x, dims)
            positions = torch.Size(size for d, size in enumerate(x.shape) if d != channel)
            pooled_positions = tuple(d - (d > channel) for d in dims)
        if weights is not None:
            weights = _last(weights.broadcast_to(positions), pooled_positions)
        pooled = self._argmin(_last(x, dims), weights, solver, start)
        if self.keepdim:
            pooled = pooled.reshape([1 if d in dims else size for d, size in enumerate(x.shape)])
        return pooled

    def extra_repr(self) -> str:
        """Return penalty and dimensions."""
        return f"{self.penalty!r}, dim={self.dim}"

    def _dimensions(self, x: Tensor) -> tuple[int, ...]:
        """Return the pooled dimensions, counted from the front.

        Raises:
            ProblemError: no floats, no such dimension, one is named twice, or they hold nothing.
        """
        if not x.is_floating_point():
            raise al.ProblemError(f"the input has dtype {x.dtype}; pooling needs floats: pass x.float()")
        dims = _counted(self.dim, x.ndim)
        if dims is None:
            raise al.ProblemError(
                f"the dimensions to pool are {self.dim}, but the input has shape {tuple(x.shape)}; give dim= among its "
                f"{x.ndim} dimensions"
            )
        if len(set(dims)) < len(dims) or not dims:
            raise al.ProblemError(f"the dimensions to pool are {self.dim}; name each once, and at least one")
        if x.numel() == 0 and any(x.shape[d] == 0 for d in dims):
            raise al.ProblemError(
                f"an empty pool: the dimensions {self.dim} of an input of shape {tuple(x.shape)} hold no points"
            )
        return dims

    def _channel(self, x: Tensor, dims: tuple[int, ...]) -> int:
        """Return the dimension of the channels of vectors, the last that is not pooled."""
        rest = [d for d in range(x.ndim) if d not in dims]
        if not rest:
            raise al.ProblemError(
                f"an input of shape {tuple(x.shape)}, pooled over {self.dim}, has no dimension left for the channels"
            )
        return rest[-1]

    def _argmin(self, x: Tensor, weights: Tensor | None, solver: str | al.AbstractSolver | None, start: Any) -> Tensor:
        scales: tuple[Tensor, ...] = (self.alpha,) if self.shape is None else (self.alpha, self.shape)
        if x.dtype != self.alpha.dtype and x.dtype in (torch.float32, torch.float64):
            scales = tuple(scale.to(x.dtype) for scale in scales)
        if weights is None:
            return super().forward(x, *scales, solver=solver, start=start)  # type: ignore[return-value]
        layer = al.ArgminLayer(
            pooling_problem(self.penalty, weighted=True, vectors=self.vectors),
            solver=self.solver,
            backward=self.backward,
            options=self.options,
            throw=self.throw,
        )
        return layer(x, weights.to(x.dtype), *scales, solver=solver, start=start)  # type: ignore[no-any-return]


@functools.cache
def _counted(dims: tuple[int, ...], ndim: int) -> tuple[int, ...] | None:
    """Return dimensions counted from the front, None if one does not exist."""
    return tuple(d % ndim for d in dims) if all(-ndim <= d < ndim for d in dims) else None


def _parameter(value: float | Tensor, learnable: bool, dtype: torch.dtype) -> nn.Parameter:
    tensor = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(float(value), dtype=dtype)
    return nn.Parameter(tensor, requires_grad=learnable)


def _last(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return ``x`` with the dimensions as one, the last."""
    ends = tuple(range(x.ndim - len(dims), x.ndim))
    return (x if dims == ends else x.movedim(dims, ends)).flatten(-len(dims))


class RobustPool(_Pooling):
    """Pool numbers: ``y = argmin_u sum_i w_i phi(x_i - u; alpha)`` over some dimensions, every other item on its own.

    Args:
        penalty: ``"quadratic"`` (the mean), ``"pseudo-huber"``, ``"huber"``, ``"welsch"``, ``"truncated-quadratic"``
            (Gould, Hartley and Campbell, table 2), ``"geman-mcclure"`` or ``"barron"`` (Barron 2019, of any ``shape``
            up to 2).
        alpha: the distance up to which a point counts in full, positive; a number, or a tensor that broadcasts to the
            result (one for each channel, for example). It becomes a parameter of the module, with exact gradient.
        dim: the dimensions to pool.
        shape: of Barron's penalty, zero (Cauchy's) by default; a parameter of the module too.
        keepdim: keep the pooled dimensions, with size one.
        learnable: whether alpha and shape require a gradient.
        solver: by default the exact and global one that comes with this plugin, or faster kernels if installed.
        backward: as for :class:`argminlayer.ArgminLayer`.
        options: fields of the solver to replace.
        throw: raise when an item is not finite; otherwise its result is NaN.

    The minimum is the global one; of several that are equal the leftmost is taken. Where the minima of Huber's penalty
    fill an interval it is the middle of that, and its gradient goes to the two neighbouring points.

    Raises:
        ProblemError: unknown penalty, alpha not positive, a shape for a penalty that has none.
    """

    vectors = False


class RobustVectorPool(_Pooling):
    """Pool vectors: ``y = argmin_u sum_p w_p phi(|x_p - u|; alpha)`` over positions, (B, C, h, w) -> (B, C).

    A point p is a vector with one entry for each channel; its distance counts as a whole. The channels are the last
    dimension that is not pooled.

    Args: as for :class:`RobustPool`; ``alpha`` and ``weights`` have no channels.

    For penalties that are not convex the result is the best of several descents, from the mean, the median and points
    with near neighbours, and need not be the global minimum; options ``starts`` and ``sample`` try more. It is always
    inside the hull of the points. Where no point is within reach of another, it is one of the points.

    Raises:
        ProblemError: unknown penalty, alpha not positive, a shape for a penalty that has none.
    """

    vectors = True
