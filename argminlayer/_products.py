"""Products with derivative matrices that are never formed: one graph at a point, any number of vectors."""

import functools

import torch
from torch import Tensor

from ._autodiff import gradient
from ._bound import BoundProblem

ONE_BY_ONE = 16
"""Up to so many products are taken one after another; more are mapped together, which costs something to set up."""
CHUNK = 64
"""Products mapped together, which bounds the memory."""


class HessianProducts:
    """Products of the Hessian of the Lagrangian at a point with vectors, from one graph of its gradient."""

    def __init__(self, bound: BoundProblem, z: Tensor, nu: Tensor, lam: Tensor):
        self._bound = bound
        self._point = z, nu, lam

    @property
    def size(self) -> int:
        """Number of variables."""
        return self._bound.size

    @functools.cached_property
    def _graph(self) -> tuple[Tensor, Tensor]:
        z, nu, lam = self._point
        with torch.enable_grad():
            point = z.detach().requires_grad_()
            slope = gradient(
                lambda t: self._bound.functions.lagrangian(t, nu, lam, self._bound.parameters).sum(), point
            )[0]
        return point, slope

    def __call__(self, vector: Tensor) -> Tensor:
        """Return ``H v`` for ``v`` (batch, n)."""
        return _pull(self._graph, vector)

    def many(self, directions: Tensor) -> Tensor:
        """Return ``H v`` for each ``v`` of (c, n), which all instances share: (c, batch, n)."""
        return _pull_many(self._graph, directions)

    def select(self, index: Tensor) -> "HessianProducts":
        """Return the products of the instances in ``index``."""
        z, nu, lam = self._point
        return HessianProducts(self._bound.select(index), z[index], nu[index], lam[index])


class JacobianProducts:
    """Values of constraints at a point, and products of their transposed Jacobian with vectors."""

    def __init__(self, bound: BoundProblem, which: str, z: Tensor):
        self._bound = bound
        self._which = which
        self._z = z

    @functools.cached_property
    def _graph(self) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            point = self._z.detach().requires_grad_()
            return point, getattr(self._bound.functions, self._which)(point, self._bound.parameters)

    @property
    def values(self) -> Tensor:
        """Values of the constraints, (batch, p)."""
        return self._graph[1].detach()

    def __call__(self, weights: Tensor) -> Tensor:
        """Return ``A' w`` for ``w`` (batch, p)."""
        return _pull(self._graph, weights)

    def many(self, weights: Tensor) -> Tensor:
        """Return ``A' w`` for each ``w`` of (c, p), which all instances share: (c, batch, n)."""
        return _pull_many(self._graph, weights)

    def select(self, index: Tensor) -> "JacobianProducts":
        """Return the products of the instances in ``index``."""
        return JacobianProducts(self._bound.select(index), self._which, self._z[index])


Products = HessianProducts | JacobianProducts


def _pull(graph: tuple[Tensor, Tensor], weights: Tensor) -> Tensor:
    point, values = graph
    if not values.requires_grad:
        return torch.zeros_like(point)
    (row,) = torch.autograd.grad(values, point, weights, retain_graph=True, materialize_grads=True)
    return row


def _pull_many(graph: tuple[Tensor, Tensor], directions: Tensor) -> Tensor:
    point, values = graph
    if len(directions) <= ONE_BY_ONE or not values.requires_grad:
        return torch.stack([_pull(graph, direction.expand_as(values)) for direction in directions])
    weights = directions[:, None].expand(len(directions), *values.shape)
    pulled = []
    for chunk in weights.split(CHUNK):
        (rows,) = torch.autograd.grad(values, point, chunk, retain_graph=True, is_grads_batched=True, allow_unused=True)
        pulled.append(point.new_zeros(len(chunk), *point.shape) if rows is None else rows)
    return torch.cat(pulled)
