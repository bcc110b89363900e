"""Atoms: functions of entries as CVXPY has them, and the patterns that are convex although their parts are not."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import argminlayer as al

from ._affine import Affine, joined
from ._arithmetic import Terms
from ._dcp import advice, refusal
from ._forms import definiteness, factored
from ._numbers import Numbers
from ._quadratic import Form
from ._terms import Curved, Pattern, Term
from ._translate_write import POSITIVE, Expression

LONGEST_TOWER = 4.0
"""Powers of this size and smaller, in halves, are written with second-order cones, which most solvers know."""

Atom = Callable[[Terms, Term], Term]
Ufunc = Callable[..., Tensor]


def function_of(terms: Terms, function: str, x: Term) -> Term:
    """Return a function of every entry.

    Raises:
        Unsupported: it has no convex form.
    """
    if x.is_number:
        return of_numbers(terms, function, x)
    atom = _ATOMS.get(function)
    if atom is None:
        raise al.algebra.Unsupported(f"needs {function}, which is neither convex nor concave: {advice(function)}")
    return atom(terms, x)


def of_numbers(terms: Terms, function: str, *arguments: Term) -> Term:
    """Return a function of terms without variables."""
    size = max(x.size for x in arguments)
    numbers = tuple(x.affine.offset for x in arguments)
    return Term(Affine.of(terms.program.apply(function, numeric(function), numbers, size)))


def numeric(function: str) -> Ufunc:
    """Return a function of the algebra on tensors."""
    if function == "softplus":
        return torch.nn.functional.softplus
    found = getattr(torch, {"max": "maximum", "min": "minimum"}.get(function, function))
    return lambda *x: found(*x).to(torch.float64)


def _plain(atom: Callable[[Expression], Expression], function: str) -> Atom:
    def of(terms: Terms, x: Term) -> Term:
        expression = terms.nonnegative(x)
        return terms.curve(atom(expression), function, expression)

    return of


def _exp(terms: Terms, x: Term) -> Term:
    return terms.exponential(x)


def _expm1(terms: Terms, x: Term) -> Term:
    return terms.add(terms.exponential(x), terms.number([-1.0]))


def _cosh(terms: Terms, x: Term) -> Term:
    half = terms.program.constant([0.5])
    return terms.scale(terms.add(terms.exponential(x), terms.exponential(terms.negative(x))), half)


def _log(terms: Terms, x: Term) -> Term:
    """Return log(x); of sums of exponentials and positive constants by their exponents."""
    bases = terms.exponents(x)
    if bases is not None:
        return _log_sums(terms, bases, x.size)
    expression = terms.expression(x)
    pattern = Pattern("log", (x,)) if x.is_affine else None
    return terms.curve(cp.log(expression), "log", expression, pattern=pattern)


def _log_sums(terms: Terms, bases: tuple[Term, ...], rows: int) -> Term:
    """Return log sum exp of rows that consist of a part of every base, what is common to all taken out."""
    common = bases[0].curved
    if len(bases) > 1 and common and all(_same(base.curved, common) and base.size == rows for base in bases):
        apart = tuple(replace(base, curved=()) for base in bases)
        return terms.add(_log_sums(terms, apart, rows), Term(terms.zeros(rows), curved=common))
    widths = [base.size // rows for base in bases]
    if sum(widths) == 1:
        return bases[0]
    starts = np.cumsum([0, *(base.size for base in bases[:-1])])
    row = np.arange(rows)[:, None]
    places = [s + row * w + np.arange(w) for s, w in zip(starts, widths, strict=True)]
    whole = terms.take(bases[0] if len(bases) == 1 else terms.join(bases), np.concatenate(places, axis=1).reshape(-1))
    return log_sum_exp(terms, whole, rows, sum(widths))


def _same(one: tuple[Curved, ...], other: tuple[Curved, ...]) -> bool:
    return [(id(part.atom), part.factor) for part in one] == [(id(part.atom), part.factor) for part in other]


def log_sum_exp(terms: Terms, x: Term, rows: int, columns: int) -> Term:
    """Return log sum exp of the rows of a matrix in C order."""
    expression = terms.expression(x)
    if rows == 1:
        return terms.curve(cp.log_sum_exp(expression), "logsumexp", expression)
    matrix = cp.reshape(expression, (rows, columns), order="C")
    return terms.curve(cp.log_sum_exp(matrix, axis=1), "logsumexp", expression)


def _log1p(terms: Terms, x: Term) -> Term:
    return _log(terms, terms.add(x, terms.number([1.0])))


def softplus(terms: Terms, x: Term) -> Term:
    """Return log(1 + exp(x))."""
    expression = terms.expression(x)
    return terms.curve(cp.logistic(expression), "softplus", expression)


def _sqrt(terms: Terms, x: Term) -> Term:
    """Return the square root; of sums of squares and of positive semidefinite forms it is a norm."""
    if x.quadratic is not None and not x.curved:
        return terms.join([root_of_form(terms, terms.take(x, np.array([row]))) for row in range(x.size)])
    expression = terms.expression(x)
    return terms.curve(cp.sqrt(expression), "sqrt", expression)


def root_of_form(terms: Terms, x: Term) -> Term:
    """Return the square root of a quadratic that is nowhere negative: the norm of an affine vector."""
    quadratic, affine = x.quadratic, x.affine
    assert quadratic is not None
    plain = affine.is_number and terms.writer.sign(affine.offset) == POSITIVE
    if plain and quadratic.squares.all() and terms.writer.sign(quadratic.weights) == POSITIVE:
        inside = [quadratic.left.scaled(_root(quadratic.weights))]
        if not affine.offset.is_constant(0.0):
            inside.append(Affine.of(_root(affine.offset)))
        vector = terms.writer.affine(joined(inside))
        return terms.curve(cp.norm(vector, 2), "norm", vector)
    form = Form.of(quadratic)
    if not affine.is_number and np.isin(affine.columns, form.columns).all():
        slope = affine.coefficients.add_up(np.searchsorted(form.columns, affine.columns), len(form.columns))
        form = replace(form, slope=form.slope + slope)
    elif not affine.is_number:
        raise al.algebra.Unsupported(refusal("sqrt", [terms.expression(x)]))
    form = replace(form, constant=form.constant + affine.offset)
    pure = affine.is_number and all(
        numbers.is_constant(0.0) for numbers in (affine.offset, quadratic.left.offset, quadratic.right.offset)
    )
    matrix, point = (form.matrix, form.variables) if pure else (form.homogeneous, form.point)
    if definiteness(terms.writer, matrix) != POSITIVE:
        raise al.algebra.Unsupported(refusal("sqrt", [terms.expression(x)]))
    vector = terms.writer.affine(factored(matrix, point))
    return terms.curve(cp.norm(vector, 2), "norm", vector)


def _root(numbers: Numbers) -> Numbers:
    return numbers.program.apply("sqrt", torch.sqrt, (numbers,), numbers.size)


def power(terms: Terms, x: Term, exponent: float) -> Term:
    """Return every entry to a constant power; where CVXPY's has a smaller domain than torch's, only if that is met."""
    if x.is_number:
        powers = terms.program.apply(("power", exponent), lambda a: a**exponent, (x.affine.offset,), x.size)
        return Term(Affine.of(powers))
    if exponent == 2.0 and x.is_affine:
        return terms.multiply(x, x)
    bases = terms.exponents(x)
    if bases is not None and len(bases) == 1 and bases[0].size == x.size:
        return terms.exponential(terms.scale(bases[0], terms.program.constant([exponent])))
    expression = terms.nonnegative(x)
    whole = exponent.is_integer()
    even = whole and exponent > 0 and exponent % 2 == 0
    if whole and not even and not expression.is_nonneg():
        raise al.algebra.Unsupported(refusal("power", [expression]))
    return terms.curve(cp.power(expression, exponent, approx=has_short_tower(exponent)), "power", expression)


def has_short_tower(exponent: float) -> bool:
    """Say whether a power is exactly a few second-order cones; any other needs a power cone, or is an approximation."""
    return (2.0 * exponent).is_integer() and abs(exponent) <= LONGEST_TOWER


def quotient(terms: Terms, x: Term, y: Term) -> Term:
    """Return x / y; with a denominator that depends on the variables where it is known to be positive."""
    if y.is_number:
        return terms.scale(x, y.affine.offset.inverse())
    size = max(x.size, y.size)
    x, y = terms.spread(x, size), terms.spread(y, size)
    below = terms.nonnegative(y)
    if not below.is_nonneg():
        raise al.algebra.Unsupported(refusal("div", [terms.expression(x), below]))
    if x.is_number:
        return terms.scale(terms.curve(cp.inv_pos(below), "div", below), x.affine.offset)
    if x.quadratic is not None and not x.curved and x.affine.is_number and x.affine.offset.is_constant(0.0):
        if x.quadratic.squares.all() and terms.writer.sign(x.quadratic.weights) == POSITIVE:
            return _over_linear(terms, x, below)
    raise al.algebra.Unsupported(refusal("div", [terms.expression(x), below]))


def _over_linear(terms: Terms, x: Term, below: Expression) -> Term:
    rows = []
    assert x.quadratic is not None
    for row in range(x.size):
        quadratic = x.quadratic.take(np.array([row]))
        above = terms.writer.affine(quadratic.left.scaled(_root(quadratic.weights)))
        rows.append(terms.curve(cp.quad_over_lin(above, below[row]), "div", above, below[row]))
    return terms.join(rows) if len(rows) > 1 else rows[0]


def pairwise(terms: Terms, function: str, x: Term, y: Term) -> Term:
    """Return the maximum or the minimum of two vectors, or a constant to the power of a vector."""
    if x.is_number and y.is_number:
        return of_numbers(terms, function, x, y)
    if function == "pow" and x.is_number:
        if terms.writer.sign(x.affine.offset) != POSITIVE:
            raise al.algebra.Unsupported("has a negative base")
        return terms.exponential(terms.scale(y, of_numbers(terms, "log", x).affine.offset))
    if function not in ("max", "min"):
        what = "compares variables" if function in _COMPARISONS else f"needs {function!r} of variables"
        raise al.algebra.Unsupported(f"{what}, which is neither convex nor concave: {advice(function)}")
    size = max(x.size, y.size)
    pair = [terms.expression(terms.spread(part, size)) for part in (x, y)]
    atom = cp.maximum(*pair) if function == "max" else cp.minimum(*pair)
    return terms.curve(atom, function, *pair, pattern=Pattern("max") if function == "max" else None)


_COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
_ATOMS: Mapping[str, Atom] = {
    "abs": _plain(cp.abs, "abs"),
    "exp": _exp,
    "expm1": _expm1,
    "cosh": _cosh,
    "log": _log,
    "log1p": _log1p,
    "sqrt": _sqrt,
    "softplus": softplus,
}
