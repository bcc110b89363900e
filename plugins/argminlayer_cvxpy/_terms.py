"""Terms: vectors of expressions as sums of an affine, a quadratic and a curved part, so that each meets its like."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import argminlayer as al

from ._affine import Affine
from ._ordered import Ordered
from ._quadratic import Quadratic
from ._translate_write import Expression


@dataclass(frozen=True, eq=False)
class Pattern:
    """What a curved vector is, where a function of it is known better than by the composition of both.

    Attributes:
        kind: ``"exp"``: entry i is the sum of exp over the entries i c, ..., i c + c - 1 of every base, a vector of c k
            entries; ``"log"``: log of the base, an affine vector; ``"max"``: a maximum.
        bases: see there; none for a maximum.
    """

    kind: Literal["exp", "log", "max"]
    bases: tuple["Term", ...] = ()


@dataclass(frozen=True, eq=False)
class Curved:
    """A constant multiple of a vector that CVXPY knows as a whole.

    Attributes:
        atom: the vector, an expression.
        factor: the multiple.
        pattern: what the vector is, if that is worth knowing.
        doubt: why the vector is neither convex nor concave, although sums with it or functions of it may be.
    """

    atom: Expression
    factor: float = 1.0
    pattern: Pattern | None = None
    doubt: str = ""

    @property
    def expression(self) -> Expression:
        """The multiple.

        Raises:
            Unsupported: it is neither convex nor concave.
        """
        if self.doubt:
            raise al.algebra.Unsupported(self.doubt)
        return self.atom if self.factor == 1.0 else self.factor * self.atom


@dataclass(frozen=True, eq=False)
class Term:
    """A vector: the sum of its parts, or entries of something ordered.

    Attributes:
        affine: its affine part.
        quadratic: its quadratic part, not yet known to be convex or concave.
        curved: its curved parts.
        ordered: stands alone.
    """

    affine: Affine
    quadratic: Quadratic | None = None
    curved: tuple[Curved, ...] = ()
    ordered: Ordered | None = None

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.affine.size

    @property
    def is_affine(self) -> bool:
        """Whether it has an affine part only."""
        return self.quadratic is None and not self.curved and self.ordered is None

    @property
    def is_number(self) -> bool:
        """Whether no variable occurs."""
        return self.is_affine and self.affine.is_number

    def is_of(self, kind: str) -> bool:
        """Whether all of it but the affine part are curved parts of one kind."""
        kinds = {curved.pattern.kind if curved.pattern is not None else "" for curved in self.curved}
        return self.quadratic is None and kinds == {kind}


def total(parts: Sequence[Curved]) -> Expression:
    """Return the sum of curved parts."""
    expressions = [part.expression for part in parts]
    return expressions[0] if len(parts) == 1 else sum(expressions[1:], expressions[0])


def have_one_curvature(parts: Sequence[Curved]) -> bool:
    """Say whether all parts are convex, or all concave, so that their sum is."""
    signs = [(part.atom.is_convex(), part.atom.is_concave(), part.factor > 0) for part in parts]
    convex = all(up if positive else down for up, down, positive in signs)
    return convex or all(down if positive else up for up, down, positive in signs)
