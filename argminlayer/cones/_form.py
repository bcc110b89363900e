"""The numbers of a batch of cone programs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ._pattern import Array, ConePattern


@dataclass(frozen=True, eq=False)
class ConeForm:
    """The numbers of a batch of cone programs, float64 NumPy; leading dimensions are 1 where the batch shares values.

    Attributes:
        pattern: sizes, cones, and where P and A have entries.
        P: values of the upper triangle of P, (1 or batch, entries of P).
        q: (1 or batch, n).
        A: values of A, (1 or batch, entries of A).
        b: (1 or batch, m).
        batch: number of instances.
    """

    pattern: ConePattern
    P: Array
    q: Array
    A: Array
    b: Array
    batch: int

    @classmethod
    def of(cls, pattern: ConePattern, data: tuple[Tensor, Tensor, Tensor, Tensor], batch: int) -> "ConeForm":
        """Return the form of tensors P, q, A and b."""
        P, q, A, b = (np.ascontiguousarray(part.numpy(force=True)) for part in data)
        return cls(pattern, P, q, A, b, batch)

    def select(self, index: Array) -> "ConeForm":
        """Return the programs at some positions of the batch."""
        P, q, A, b = (part if len(part) == 1 else part[index] for part in (self.P, self.q, self.A, self.b))
        return ConeForm(self.pattern, P, q, A, b, len(index))

    def instance(self, index: int) -> tuple[Any, Array, Any, Array]:
        """Return (P, q, A, b) of one instance, with P (upper triangle) and A as sparse matrices of SciPy, by columns.

        Entries with the same place are added up; zeros stay entries, so that all instances have the same pattern.
        """
        from scipy.sparse import csc_array

        pattern = self.pattern
        n, m = pattern.size, pattern.cones.rows
        P, q, A, b = (part[index if len(part) > 1 else 0] for part in (self.P, self.q, self.A, self.b))
        upper, rows = pattern.P_columnwise, pattern.A_columnwise
        return (
            csc_array((upper.values(P), upper.indices, upper.pointers), shape=(n, n)),
            q,
            csc_array((rows.values(A), rows.indices, rows.pointers), shape=(m, n)),
            b,
        )
