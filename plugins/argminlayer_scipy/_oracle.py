"""One instance as NumPy callbacks with exact derivatives, counted against the time limit."""

import time
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

import argminlayer as al

Array = NDArray[np.float64]

RUNAWAY_VALUE = -1e20
RUNAWAY_POINT = 1e15
SENSIBLE = (1e-2, 1e4)
"""Objectives with gradients of this size are left as they are."""
WALL = 1e50
DEPENDENT = 1e-10
"""A gradient that adds less than this to the span of the others, all of length one, depends on them."""


class Stopped(Exception):
    """A solve is cut short; ``status`` says why."""

    def __init__(self, status: al.Status):
        super().__init__(status.name)
        self.status = status


class Oracle:
    """Values and derivatives of one instance at NumPy points; each function is evaluated once per point.

    Args:
        problem: a batch of one.
        time_limit: seconds from now after which an evaluation raises :class:`Stopped`.
    """

    def __init__(self, problem: al.BoundProblem, time_limit: float | None):
        self.problem = problem
        self.device = problem.layout.device
        self.deadline = None if time_limit is None else time.monotonic() + time_limit
        self.last: Array | None = None
        self.scale = 1.0
        self.rows = np.arange(problem.equalities)
        self._cache: dict[str, tuple[Array, Any]] = {}

    def drop_redundant(self, start: Array) -> None:
        """Leave out equalities whose gradients depend on the others' at the start and near it.

        SciPy's methods break down on them. Whether the point found meets those left out as well, the certificate says.
        """
        if self.problem.equalities < 2:
            return
        jacobians = [self._once("equality", point, self.problem.equality)[1][0] for point in self._two_points(start)]
        both = np.concatenate(jacobians, axis=1)
        if not np.all(np.isfinite(both)):
            return
        length = np.linalg.norm(both, axis=1, keepdims=True)
        _, triangle, order = scipy.linalg.qr(
            (both / np.where(length > 0, length, 1.0)).T, mode="economic", pivoting=True
        )
        rank = int(np.sum(np.abs(np.diag(triangle)) > DEPENDENT))
        self.rows = np.sort(order[:rank])

    def _two_points(self, start: Array) -> tuple[Array, Array]:
        near = start + 0.1 * (1.0 + np.abs(start)) * np.sin(1.0 + np.arange(start.size))
        return start, np.clip(near, *self.limits())

    def rescale(self, start: Array) -> None:
        """Divide the objective by the size of its gradient at and near ``start`` where that is far from one.

        SciPy's tolerances are absolute: an objective of size 1e-8 would be called optimal anywhere.

        Raises:
            Stopped: the objective or its gradient is not finite at ``start``.
        """
        begin, near = self._two_points(start)
        value, slope = self.objective(begin)
        if not np.isfinite(value) or not np.all(np.isfinite(slope)):
            raise Stopped(al.Status.NOT_FINITE)
        slopes = (slope, self.objective(near)[1])
        size = max((np.abs(slope).max(initial=0.0) for slope in slopes if np.all(np.isfinite(slope))), default=0.0)
        if size > 0 and not SENSIBLE[0] <= size <= SENSIBLE[1]:
            self.scale = 1.0 / float(size)

    def limits(self) -> tuple[Array, Array]:
        """Return the bounds, (n,) each."""
        return _numpy(self.problem.lower)[0], _numpy(self.problem.upper)[0]

    def objective(self, z: Array) -> tuple[float, Array]:
        """Return the objective and its gradient (n,), scaled."""
        value, slope = self._once("objective", z, lambda t: self.problem.gradient(t))
        scaled = self.scale * float(value[0])
        if scaled < RUNAWAY_VALUE:
            raise Stopped(al.Status.UNBOUNDED)
        return scaled, self.scale * slope[0]

    def barred_objective(self, z: Array) -> tuple[float, Array]:
        """Return the objective and its gradient, a wall where it is not finite: so a trust region shrinks."""
        value, slope = self.objective(z)
        return (value, slope) if np.isfinite(value) and np.all(np.isfinite(slope)) else (WALL, np.zeros_like(z))

    def equality(self, z: Array) -> tuple[Array, Array]:
        """Return the equalities that are not left out, (p,), and their Jacobian (p, n)."""
        value, rows = self._once("equality", z, self.problem.equality)
        return value[0][self.rows], rows[0][self.rows]

    def inequality(self, z: Array) -> tuple[Array, Array]:
        """Return the inequalities (q,), feasible when not positive, and their Jacobian (q, n)."""
        value, rows = self._once("inequality", z, lambda t: self.problem.inequality(t))
        return value[0], rows[0]

    def hessian(self, z: Array, nu: Array, lam: Array) -> Array:
        """Return the Hessian of the Lagrangian, (n, n)."""
        hessian: Array = _numpy(self.problem.hessian(self._tensor(z), self._tensor(nu), self._tensor(lam)))[0]
        return hessian

    def hessian_product(self, z: Array, v: Array) -> Array:
        """Return the Hessian of the objective times ``v``."""
        nu, lam = np.zeros(self.problem.equalities), np.zeros(self.problem.inequalities)
        arguments = (self._tensor(a) for a in (z, nu, lam, v))
        product: Array = _numpy(self.problem.hessian_product(*arguments))[0]
        return self.scale * product

    def objective_hessian(self, z: Array) -> Array:
        """Return the Hessian of the objective, (n, n), scaled."""
        return self.scale * self._plain_hessian(z)

    def constraint_hessian(self, z: Array, nu: Array, lam: Array) -> Array:
        """Return the Hessian of ``nu'h + lam'g``, (n, n), ``nu`` for the equalities that are not left out."""
        every = np.zeros(self.problem.equalities)
        every[self.rows] = nu
        return self.hessian(z, every, lam) - self._plain_hessian(z)

    def _plain_hessian(self, z: Array) -> Array:
        return self.hessian(z, np.zeros(self.problem.equalities), np.zeros(self.problem.inequalities))

    def violation(self, z: Array) -> tuple[Array, Array]:
        """Return ``(h, max(g, 0))`` and its Jacobian: zero exactly where all constraints are met."""
        (h, A), (g, G) = self._once("equality", z, self.problem.equality), self.inequality(z)
        h, A = h[0], A[0]
        return np.concatenate([h, np.maximum(g, 0.0)]), np.concatenate([A, G * (g > 0)[:, None]])

    def residual(self, z: Array) -> tuple[Array, Array]:
        """Return the residual of a declared least-squares problem, flattened, and its Jacobian."""
        value, rows = self._once("residual", z, self._residual)
        return value[0], rows[0]

    def _residual(self, z: Tensor) -> tuple[Tensor, Tensor]:
        structure = self.problem.problem.structure
        assert structure is not None
        return self.problem.derivative(structure.data["residual"], z)

    def _once(self, name: str, z: Array, evaluate: Any) -> tuple[Array, Array]:
        seen = self._cache.get(name)
        if seen is not None and np.array_equal(seen[0], z):
            found: tuple[Array, Array] = seen[1]
            return found
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise Stopped(al.Status.TIME_LIMIT)
        if not np.all(np.abs(z) < RUNAWAY_POINT):
            raise Stopped(al.Status.UNBOUNDED)
        value, rows = evaluate(self._tensor(z))
        result = _numpy(value), _numpy(rows)
        self.last = z.copy()
        self._cache[name] = (self.last, result)
        return result

    def _tensor(self, array: Array) -> Tensor:
        return torch.as_tensor(np.array(array, dtype=np.float64), device=self.device)[None]


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.cpu().numpy()
    return array
