"""Factors of symmetric matrices ``[[P, B'], [B, -D]]`` with P and D semidefinite, which may be singular.

Programs written with epigraph variables are singular as a rule: where a constraint is inactive, what bounds its two
sides is free. A shift ``delta`` of P and D makes the matrix quasi-definite; what it annihilates without the shift is
found by inverse iteration, taken out of right-hand sides and solutions, and the effect of the shift is refined away.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SHIFT = 1e-10
"""What is added to the diagonals of P and D, of matrices with entries of size one."""
NULL = 1e-9
"""Eigenvalues below this count as zero."""
GROWTH = 1e7
"""A solution larger than its right-hand side by more than this makes a matrix suspect of being singular."""
WIDTH = 8
"""Number of null vectors that are looked for at first."""
ACCURATE = 1e-13
"""Residual over right-hand side at which refinement ends."""
ROUNDS = 5
"""Rounds of refinement, at most."""


@dataclass(frozen=True, eq=False)
class Factor:
    """Factorised matrices of a batch.

    Attributes:
        shifted: the matrices with their shift, (batch, N, N), entries of size one.
        shift: the shift, (N,).
        packed: Bunch-Kaufman factors of the shifted matrices, as LAPACK's sytrf returns them.
        pivots: likewise.
        kernel: orthonormal null vectors (batch, N, d), padded with zeros; d is 0 where all matrices are regular.
    """

    shifted: Tensor
    shift: Tensor
    packed: Tensor
    pivots: Tensor
    kernel: Tensor

    @classmethod
    def of(cls, matrix: Tensor, leading: int) -> "Factor":
        """Factorise matrices whose block P has ``leading`` rows; they are overwritten."""
        size = matrix.shape[-1]
        shift = matrix.new_full((size,), -SHIFT)
        shift[:leading] = SHIFT
        matrix.diagonal(dim1=1, dim2=2).add_(shift)
        packed, pivots, _ = torch.linalg.ldl_factor_ex(matrix)
        plain = cls(matrix, shift, packed, pivots, matrix[..., :0])
        if not matrix.numel():
            return plain
        grown = torch.linalg.ldl_solve(packed, pivots, _probes(size, 2, matrix).expand(len(matrix), size, 2))
        suspect = (grown.abs().amax((1, 2)) > GROWTH).nonzero()[:, 0]
        if not len(suspect):
            return plain
        found = plain._null(suspect)
        kernel = matrix.new_zeros(len(matrix), size, found.shape[-1]).index_copy(0, suspect, found)
        return cls(matrix, shift, packed, pivots, kernel)

    def _null(self, index: Tensor) -> Tensor:
        """Return the null vectors of the matrices in ``index``, padded with zeros to as many as one of them has."""
        matrix, packed, pivots = self.shifted[index], self.packed[index], self.pivots[index]
        size, width = matrix.shape[-1], WIDTH
        while True:
            width = min(width, size)
            V = _probes(size, width, matrix).expand(len(matrix), size, width)
            for _ in range(2):
                V, _ = torch.linalg.qr(torch.linalg.ldl_solve(packed, pivots, V))
            values, turn = torch.linalg.eigh(V.mT @ (matrix @ V - self.shift[:, None] * V))
            null = values.abs() <= NULL
            count = int(null.sum(-1).max())
            if count < width or width == size:
                break
            width *= 4
        order = torch.argsort(null.to(torch.int8), dim=-1, descending=True, stable=True)[:, None, :count]
        vectors = (V @ turn).gather(2, order.expand(len(matrix), size, count))
        found: Tensor = vectors * null[:, None, :].gather(2, order)
        return found

    def solve(self, right: Tensor) -> Tensor:
        """Return the solution for (batch, N, c) of least norm; what null vectors have of ``right`` is left out."""
        right = self._without_null(right)
        found = torch.linalg.ldl_solve(self.packed, self.pivots, right)
        allowed = ACCURATE * right.abs().amax((1, 2)) if right.numel() else right.sum((1, 2))
        for _ in range(ROUNDS):
            rest = right - (self.shifted @ found - self.shift[:, None] * found)
            if bool((rest.abs().amax((1, 2)) <= allowed).all()) if rest.numel() else True:
                break
            found = found + torch.linalg.ldl_solve(self.packed, self.pivots, self._without_null(rest))
        return self._without_null(found)

    def _without_null(self, values: Tensor) -> Tensor:
        if not self.kernel.shape[-1]:
            return values
        return values - self.kernel @ (self.kernel.mT @ values)


def _probes(size: int, width: int, like: Tensor) -> Tensor:
    """Return vectors in general position, (size, width)."""
    # drawn by NumPy: torch draws nothing inside torch.vmap
    drawn = np.random.default_rng(20210401).standard_normal((size, width))
    return torch.from_numpy(drawn).to(like.dtype)
