"""Arithmetic of terms: sums that meet their like, products, sparse maps, and the expressions that they become."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse
import torch

import argminlayer as al

from . import _quadratic
from ._affine import Affine, joined
from ._dcp import refusal
from ._forms import write_quadratic
from ._numbers import Index, Numbers
from ._ordered import Ordered
from ._terms import Curved, Pattern, Term, have_one_curvature, total
from ._translate_write import MIXED, POSITIVE, Expression, Writer, flat, rows_of

LIFT_FROM = 20_000
"""Products of sparse matrices with fewer terms than this are written out."""
LIFT_FACTOR = 4
"""Those with this many times the terms of both factors get variables for the second factor instead."""


class Terms:
    """Arithmetic of terms.

    Args:
        writer: writes what has to be an expression.
    """

    def __init__(self, writer: Writer):
        self.writer, self.program = writer, writer.program

    # Parts

    def number(self, values: Any) -> Term:
        """Return constants."""
        return Term(Affine.of(self.program.constant(values)))

    def zeros(self, size: int) -> Affine:
        """Return a vector of zeros."""
        return Affine.of(self.program.constant(np.zeros(size)))

    def curve(
        self,
        expression: Expression,
        function: str,
        *arguments: Expression,
        pattern: Pattern | None = None,
        doubtful: bool = False,
    ) -> Term:
        """Return an expression as a term.

        Args:
            expression: the term, () or (k,).
            function: what it is.
            arguments: of what.
            pattern: as for :class:`Curved`.
            doubtful: whether it may be neither convex nor concave, for the time being.

        Raises:
            Unsupported: it is neither convex nor concave; says so of ``function`` and its arguments.
        """
        doubt = "" if expression.is_convex() or expression.is_concave() else refusal(function, arguments)
        if doubt and not doubtful:
            raise al.algebra.Unsupported(doubt)
        expression = cp.reshape(expression, (1,), order="F") if expression.ndim == 0 else expression
        return Term(self.zeros(expression.size), curved=(Curved(expression, 1.0, pattern, doubt),))

    def take(self, term: Term, index: Index) -> Term:
        """Return the entries at some positions."""
        if len(index) == term.size and (index == np.arange(term.size)).all():
            return term
        if term.ordered is not None:
            ordered = replace(term.ordered, index=term.ordered.index[index])
            return Term(self.zeros(len(index)), ordered=ordered)
        curved = tuple(
            replace(part, atom=_picked(part.atom, index), pattern=self._taken(part.pattern, index, term.size))
            for part in term.curved
        )
        return Term(term.affine.take(index), term.quadratic and term.quadratic.take(index), curved)

    def _taken(self, pattern: Pattern | None, index: Index, size: int) -> Pattern | None:
        if pattern is None:
            return None
        widths = [base.size // size for base in pattern.bases]
        places = [(index[:, None] * width + np.arange(width)).reshape(-1) for width in widths]
        bases = tuple(self.take(base, place) for base, place in zip(pattern.bases, places, strict=True))
        return replace(pattern, bases=bases)

    def spread(self, term: Term, size: int) -> Term:
        """Return a vector of this length, for one of length one or of that length."""
        return term if term.size == size else self.take(term, np.zeros(size, dtype=np.int64))

    def join(self, terms: Sequence[Term]) -> Term:
        """Return vectors one after the other."""
        terms = [self.plain(term) for term in terms]
        sizes = [term.size for term in terms]
        size, shifts = sum(sizes), np.cumsum([0, *sizes[:-1]])
        quadratics = [
            term.quadratic.placed(shift + np.arange(term.size), size)
            for term, shift in zip(terms, shifts, strict=True)
            if term.quadratic is not None
        ]
        curved: tuple[Curved, ...] = ()
        if any(term.curved for term in terms):
            parts = [total(term.curved) if term.curved else np.zeros(term.size) for term in terms]
            curved = (Curved(flat(parts)),)
        quadratic = _quadratic.added(quadratics, size) if quadratics else None
        return Term(joined([term.affine for term in terms]), quadratic, curved)

    # Sums and multiples

    def add(self, left: Term, right: Term, function: str = "add") -> Term:
        """Return the sum."""
        left, right = self.plain(left), self.plain(right)
        size = max(left.size, right.size)
        left, right = self.spread(left, size), self.spread(right, size)
        quadratics = [part for part in (left.quadratic, right.quadratic) if part is not None]
        quadratic = None if not quadratics else quadratics[0]
        if len(quadratics) == 2:
            quadratic = _quadratic.added(quadratics, size)
        curved = self._sum(left.curved, right.curved)
        if (
            size == 1
            and left.curved
            and right.curved
            and curved
            and not self._may_stand(left.curved, right.curved, curved)
        ):
            raise al.algebra.Unsupported(refusal(function, [total(left.curved), total(right.curved)]))
        return Term(left.affine + right.affine, quadratic, curved)

    def _may_stand(self, left: tuple[Curved, ...], right: tuple[Curved, ...], whole: tuple[Curved, ...]) -> bool:
        """Say whether a sum is convex or concave, or may become so: in doubt, or one of logarithms."""
        if len(right) == 1 and len(whole) == len(left) + 1 and left[0].pattern is None:
            # what was added up before is of one curvature; long sums are checked at their ends
            return bool(left[0].doubt or right[0].doubt) or have_one_curvature((left[0], right[0]))
        logarithms = all(part.pattern is not None and part.pattern.kind == "log" for part in whole)
        return logarithms or any(part.doubt for part in whole) or have_one_curvature(whole)

    def _sum(self, left: tuple[Curved, ...], right: tuple[Curved, ...]) -> tuple[Curved, ...]:
        """Return the curved parts of a sum: multiples of the same vector, and sums of exponentials, become one part."""
        parts = list(left)
        known = {id(part.atom): place for place, part in enumerate(parts)}
        powers = None
        if any(_are_exponentials(part) for part in right):
            powers = next((place for place, part in enumerate(parts) if _are_exponentials(part)), None)
        for new in right:
            place = known.get(id(new.atom))
            if place is not None:
                parts[place] = replace(parts[place], factor=parts[place].factor + new.factor)
            elif powers is not None and _are_exponentials(new):
                parts[powers] = self._exponentials(parts[powers], new)
            else:
                parts.append(new)
        return tuple(part for part in parts if part.factor != 0.0)

    def _exponentials(self, *parts: Curved) -> Curved:
        bases = [self._shifted(base, part.factor) for part in parts if part.pattern for base in part.pattern.bases]
        atom = sum((part.factor * part.atom for part in parts[1:]), parts[0].factor * parts[0].atom)
        return Curved(atom, 1.0, Pattern("exp", tuple(bases)), next((part.doubt for part in parts if part.doubt), ""))

    def _shifted(self, exponent: Term, factor: float) -> Term:
        return exponent if factor == 1.0 else self.add(exponent, self.number([np.log(factor)]))

    def exponents(self, term: Term) -> tuple[Term, ...] | None:
        """Return bases as of an ``"exp"`` pattern for a vector that is a sum of exponentials and positive constants."""
        constant = term.affine.offset.constant
        if not (term.is_of("exp") and len(term.curved) == 1 and term.affine.is_number and constant is not None):
            return None
        (part,) = term.curved
        if part.factor <= 0 or (constant < 0).any() or ((constant == 0).any() and (constant > 0).any()):
            return None
        assert part.pattern is not None
        bases = tuple(self._shifted(base, part.factor) for base in part.pattern.bases)
        return bases if (constant == 0).all() else (*bases, self.number(np.log(constant)))

    def negative(self, term: Term) -> Term:
        """Return the negative."""
        return self.scale(term, self.program.constant([-1.0]))

    def scale(self, term: Term, factor: Numbers) -> Term:
        """Return the product with numbers, entry by entry."""
        term = self.plain(term)
        size = max(term.size, factor.size)
        quadratic = term.quadratic and term.quadratic.scaled(factor)
        term = self.spread(term, size) if term.curved else term
        curved = tuple(self._scaled(part, factor, size) for part in term.curved)
        return Term(term.affine.scaled(factor), quadratic, tuple(part for part in curved if part.factor != 0.0))

    def _scaled(self, curved: Curved, factor: Numbers, size: int) -> Curved:
        if factor.constant is not None and (factor.constant == factor.constant[0]).all():
            return replace(curved, factor=curved.factor * float(factor.constant[0]))
        sign = MIXED if factor.constant is not None else self.writer.sign(factor)
        weight = self.writer.number(factor, sign)
        weight = weight if factor.size == size else cp.promote(cp.sum(weight), (size,))
        atom = cp.multiply(weight, curved.atom if curved.factor == 1.0 else curved.factor * curved.atom)
        pattern = None
        if _are_exponentials(curved) and factor.constant is not None and (factor.constant > 0).all():
            assert curved.pattern is not None
            logarithm, bases = np.log(curved.factor * factor.constant), curved.pattern.bases
            shifts = [self.number(np.repeat(logarithm, base.size // size)) for base in bases]
            pattern = Pattern("exp", tuple(self.add(base, shift) for base, shift in zip(bases, shifts, strict=True)))
        return Curved(atom, 1.0, pattern, curved.doubt)

    def multiply(self, left: Term, right: Term) -> Term:
        """Return the product of vectors, entry by entry.

        Raises:
            Unsupported: it is no product of affine vectors, nor any other that is known to be convex or concave.
        """
        left, right = self.plain(left), self.plain(right)
        for one, other in ((left, right), (right, left)):
            if one.is_number:
                return self.scale(other, one.affine.offset)
        size = max(left.size, right.size)
        left, right = self.spread(left, size), self.spread(right, size)
        if left.is_affine and right.is_affine:
            affine, quadratic = _quadratic.product(left.affine, right.affine)
            return Term(affine, quadratic)
        for one, other in ((left, right), (right, left)):
            if one.is_affine and other.is_of("log"):
                return self._entropy(one, other)
        bases = [self.exponents(part) for part in (left, right)]
        if bases[0] is not None and bases[1] is not None:
            if all(len(several) == 1 and several[0].size == size for several in bases if several is not None):
                return self.exponential(self.add(bases[0][0], bases[1][0]))
        raise al.algebra.Unsupported(refusal("mul", [self.expression(left), self.expression(right)]))

    def _entropy(self, factor: Term, logarithms: Term) -> Term:
        """Return an affine factor times a sum of logarithms: entropies and relative entropies."""
        affine, quadratic = _quadratic.product(factor.affine, logarithms.affine)
        rest, x, own, pieces = Term(affine, quadratic), self.writer.affine(factor.affine), 0.0, []
        for part in logarithms.curved:
            assert part.pattern is not None
            base, weight = part.pattern.bases[0].affine, part.factor
            ratio, y = _ratio(factor.affine, base), self.writer.affine(base)
            if ratio is None:
                # w x log(y) = -w (x log(x) - x log(y)) + w x log(x)
                pieces.append(-weight * cp.rel_entr(x, y))
                own += weight
            elif self.writer.sign(ratio) == POSITIVE:
                logarithm = self.program.apply("log", torch.log, (ratio,), ratio.size)
                rest = self.add(rest, self.scale(factor, logarithm * self.program.constant([weight])))
                own += weight
            else:
                entropy = self.curve(cp.entr(y), "entropy", y)
                rest = self.add(rest, self.scale(entropy, ratio.inverse() * self.program.constant([-weight])))
        if own != 0.0:
            pieces.append(-own * cp.entr(x))
        if not pieces:
            return rest
        return self.add(rest, self.curve(sum(pieces[1:], pieces[0]), "entropy", x))

    def exponential(self, exponent: Term) -> Term:
        """Return exp of every entry; of a negative maximum it may become convex within a sum under a logarithm."""
        doubtful = exponent.is_of("max")
        x = self.expression(exponent)
        return self.curve(cp.exp(x), "exp", x, pattern=Pattern("exp", (exponent,)), doubtful=doubtful)

    # Sparse maps

    def map(self, term: Term, targets: Index, sources: Index, weights: Numbers, size: int) -> Term:
        """Return the product of a sparse matrix and a vector; arguments as for :meth:`Affine.mapped`."""
        term = self.plain(term)
        affine = term.affine
        many = affine.terms_of_product(sources)
        if many > LIFT_FROM and many > LIFT_FACTOR * (len(targets) + len(affine.rows)):
            affine = self.writer.lift(affine)
        quadratic = term.quadratic and term.quadratic.mapped(targets, sources, weights, size)
        curved: tuple[Curved, ...] = ()
        if term.curved:
            matrix = self._matrix(targets, sources, weights, (size, term.size))
            curved = tuple(replace(part, atom=matrix @ part.atom, pattern=None) for part in term.curved)
        return Term(affine.mapped(targets, sources, weights, size), quadratic, curved)

    def _matrix(self, targets: Index, sources: Index, weights: Numbers, shape: tuple[int, int]) -> Expression:
        if weights.constant is not None:
            return scipy.sparse.csr_array((weights.constant, (targets, sources)), shape)
        order = np.argsort(sources * shape[0] + targets)
        places = (sources * shape[0] + targets)[order]
        scatter = scipy.sparse.csc_array(
            (np.ones(len(order)), (places, np.arange(len(order)))), (shape[0] * shape[1], len(order))
        )
        entries = self.writer.number(weights.take(order), self.writer.sign(weights))
        return cp.reshape(scatter @ entries, shape, order="F")

    def sum_rows(self, term: Term, rows: int, columns: int) -> Term:
        """Return the sums of the rows of a matrix in C order."""
        if term.ordered is not None:
            return self._sum_ordered(term.ordered, rows)
        entries = np.arange(term.size)
        one = self.program.constant(np.ones(term.size))
        mapped = self.map(replace(term, curved=()), entries // columns, entries, one, rows)
        curved = tuple(self._row_sums(part, rows, columns) for part in term.curved)
        if rows == 1 and curved and not any(part.doubt for part in curved):
            if not have_one_curvature(curved):
                raise al.algebra.Unsupported(refusal("add", [total(term.curved)]))
        return replace(mapped, curved=curved)

    def _row_sums(self, part: Curved, rows: int, columns: int) -> Curved:
        kept = part.pattern if part.pattern is not None and part.pattern.kind == "exp" else None
        return replace(part, atom=cp.sum(rows_of(part.atom, rows, columns), axis=1), pattern=kept)

    def _sum_ordered(self, ordered: Ordered, rows: int) -> Term:
        if rows != 1:
            raise al.algebra.Unsupported("is summed over parts of what was ordered")
        return self.curve(ordered.sum(), "sum", ordered.base)

    # Expressions

    def expression(self, term: Term, objective: bool = False) -> Expression:
        """Return a term as an expression, its quadratics proved to be convex or concave.

        Args:
            term: the term.
            objective: as for :func:`write_quadratic`.

        Raises:
            Unsupported: a quadratic is neither; says which eigenvalues its matrix has.
        """
        if term.ordered is not None:
            if term.size > 1:
                raise al.algebra.Unsupported(term.ordered.refusal)
            return cp.reshape(term.ordered.sum(), (1,), order="F")
        affine, curves = term.affine, []
        if term.quadratic is not None:
            extra, expression = write_quadratic(self.writer, term.quadratic, objective)
            affine = affine + extra
            curves.append(expression)
        if term.curved:
            curves.append(total(term.curved))
        if not curves or not (affine.is_number and affine.offset.is_constant(0.0)):
            curves.append(self.writer.affine(affine))
        return curves[0] if len(curves) == 1 else sum(curves[1:], curves[0])

    def nonnegative(self, term: Term) -> Expression:
        """Return a term as an expression that is known to be nonnegative where the bounds make it so."""
        return self.writer.signed(term.affine) if term.is_affine else self.expression(term)

    def plain(self, term: Term) -> Term:
        """Return a term that arithmetic can be done with: one of several ordered entries has a curvature.

        Raises:
            Unsupported: there are several.
        """
        if term.ordered is None:
            return term
        return self.curve(self.expression(term), "max", term.ordered.base)


def _picked(expression: Expression, index: Index) -> Expression:
    if len(index) == expression.size and (index == np.arange(len(index))).all():
        return expression
    if expression.size == 1:
        return cp.promote(cp.sum(expression), (len(index),))
    return expression[index]


def _are_exponentials(*parts: Curved) -> bool:
    return all(part.pattern is not None and part.pattern.kind == "exp" and part.factor > 0 for part in parts)


def _ratio(factor: Affine, base: Affine) -> Numbers | None:
    """Return q with ``base = q factor``, entry by entry, None where that is not the structure."""
    if factor.identity == base.identity:
        return factor.program.constant(np.ones(factor.size))
    same = len(factor.rows) == len(base.rows) == factor.size and (factor.rows == base.rows).all()
    if same and (factor.columns == base.columns).all():
        if factor.offset.is_constant(0.0) and base.offset.is_constant(0.0):
            return base.coefficients * factor.coefficients.inverse()
    return None
