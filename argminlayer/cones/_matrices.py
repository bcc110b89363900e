"""The matrices P and A of a batch as dense tensors, and what is computed from their entries alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._faces import Faces
from ._pattern import ConePattern
from ._system import System


@dataclass(frozen=True, eq=False)
class Matrices:
    """P and A of every instance, dense.

    Attributes:
        P: symmetric, (1 or batch, n, n), None where the pattern has no entries.
        A: (1 or batch, m, n).
    """

    P: Tensor | None
    A: Tensor

    @classmethod
    def of(cls, pattern: ConePattern, P: Tensor, A: Tensor) -> "Matrices":
        """Spread values P (1 or batch, entries) and A likewise over dense matrices."""
        n, m, at = pattern.size, pattern.cones.rows, pattern.places
        spread = A.new_zeros(len(A), m * n).index_add_(1, at.A_rows * n + at.A_columns, A).reshape(len(A), m, n)
        if not len(at.P_rows):
            return cls(None, spread)
        upper = P.new_zeros(len(P), n * n).index_add_(1, at.P_rows * n + at.P_columns, P)
        upper.index_add_(1, at.P_columns[at.off] * n + at.P_rows[at.off], P[:, at.off])
        return cls(upper.reshape(-1, n, n), spread)

    def select(self, index: Tensor) -> "Matrices":
        """Return the matrices of the instances in ``index``."""
        P, A = (part if part is None or len(part) == 1 else part[index] for part in (self.P, self.A))
        assert A is not None
        return Matrices(P, A)

    def lengths(self) -> Tensor:
        """Return the lengths of the rows of A, (1 or batch, m)."""
        found: Tensor = torch.linalg.vector_norm(self.A, dim=-1)
        return found

    def largest(self) -> Tensor:
        """Return the largest diagonal entry of P, (1 or batch,)."""
        if self.P is None or not self.A.shape[-1]:
            return self.A.new_zeros(1)
        return self.P.diagonal(dim1=1, dim2=2).amax(1)

    def P_times(self, x: Tensor) -> Tensor:
        """Return P x for x (batch, n)."""
        return torch.zeros_like(x) if self.P is None else (self.P @ x[..., None])[..., 0]

    def A_times(self, x: Tensor) -> Tensor:
        """Return A x for x (batch, n)."""
        return (self.A @ x[..., None])[..., 0]

    def A_pulled(self, z: Tensor) -> Tensor:
        """Return A'z for z (batch, m)."""
        return (z[:, None, :] @ self.A)[:, 0]

    def system(self, faces: Faces, gamma: Tensor, weak_active: bool, shift: float = 0.0) -> System:
        """Return the factorised KKT systems; see :class:`System`."""
        return System.of(self.P, self.A, faces, gamma, weak_active, shift)


def A_product(pattern: ConePattern, A: Tensor, x: Tensor) -> Tensor:
    """Return A x (batch, m) from values A (1 or batch, entries) and x (batch, n); differentiable in both."""
    at = pattern.places
    out = x.new_zeros(x.shape[0], pattern.cones.rows)
    return out.index_add(1, at.A_rows, A * x[:, at.A_columns])


def A_pulled(pattern: ConePattern, A: Tensor, z: Tensor) -> Tensor:
    """Return A'z (batch, n) from values A (1 or batch, entries) and z (batch, m); differentiable in both."""
    at = pattern.places
    out = z.new_zeros(z.shape[0], pattern.size)
    return out.index_add(1, at.A_columns, A * z[:, at.A_rows])


def P_product(pattern: ConePattern, P: Tensor, x: Tensor) -> Tensor:
    """Return P x (batch, n) from values P (1 or batch, entries) of its upper triangle; differentiable in both."""
    at = pattern.places
    out = x.new_zeros(x.shape[0], pattern.size)
    out = out.index_add(1, at.P_rows, P * x[:, at.P_columns])
    return out.index_add(1, at.P_columns[at.off], P[:, at.off] * x[:, at.P_rows[at.off]])


def P_outer(pattern: ConePattern, a: Tensor, x: Tensor) -> Tensor:
    """Return the entries (batch, entries of P) of ``a x' + x a'``, those on the diagonal halved."""
    at = pattern.places
    product = a[:, at.P_rows] * x[:, at.P_columns]
    return product + torch.where(at.off, a[:, at.P_columns] * x[:, at.P_rows], 0.0)


def A_outer(pattern: ConePattern, z: Tensor, a: Tensor) -> Tensor:
    """Return the entries (batch, entries of A) of ``z a'``."""
    at = pattern.places
    return z[:, at.A_rows] * a[:, at.A_columns]
