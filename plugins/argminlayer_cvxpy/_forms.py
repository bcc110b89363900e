"""Writing quadratics: sums of squares, forms with constant matrices, and forms whose matrix depends on parameters."""

import cvxpy as cp
import numpy as np
import scipy.sparse
from numpy.typing import NDArray

import argminlayer as al

from ._affine import Affine, joined
from ._dcp import indefinite
from ._numbers import Numbers
from ._quadratic import Form, Quadratic, eigenvalue_range, factor
from ._translate_write import MIXED, NEGATIVE, POSITIVE, Expression, Writer, flat

WIDEST = 3000
"""Variables of a form whose eigenvalues are computed, at most."""
LARGEST = 50_000_000
"""Entries of a dense matrix that is formed on the way, at most."""


def write_quadratic(writer: Writer, quadratic: Quadratic, objective: bool) -> tuple[Affine, Expression]:
    """Return an affine part and a convex or concave expression whose sum is the vector.

    Args:
        writer: writes.
        quadratic: the vector.
        objective: whether it stands in the objective, where matrices that depend on parameters may stay as they are.

    Raises:
        Unsupported: an entry is neither convex nor concave; says which eigenvalues its matrix has.
    """
    zeros = Affine.of(writer.program.constant(np.zeros(quadratic.size)))
    sums = _squares(writer, quadratic)
    if sums is not None:
        return zeros, sums
    parts = [_single(writer, quadratic.take(np.array([row])), objective) for row in range(quadratic.size)]
    return joined([affine for affine, _ in parts]), flat([expression for _, expression in parts])


def _squares(writer: Writer, quadratic: Quadratic) -> Expression | None:
    """Return sums of squares with weights of one sign, None for anything else."""
    if not quadratic.squares.all():
        return None
    sign = writer.sign(quadratic.weights)
    if sign == MIXED:
        return None
    base, weights = writer.affine(quadratic.left), quadratic.weights
    if quadratic.size == 1 and weights.constant is not None:
        root = np.sqrt(np.abs(weights.constant))
        return sign * cp.reshape(cp.sum_squares(base if (root == 1).all() else cp.multiply(root, base)), (1,), "F")
    squares, size = cp.square(base), quadratic.size
    if weights.constant is None:
        squares = cp.multiply(writer.number(weights, sign), squares)
    elif not (weights.constant == 1).all():
        squares = cp.multiply(weights.constant, squares)
    if size == quadratic.left.size and (quadratic.targets == np.arange(size)).all():
        return squares
    if size == 1:
        return cp.reshape(cp.sum(squares), (1,), order="F")
    ones, terms = np.ones(quadratic.left.size), np.arange(quadratic.left.size)
    return scipy.sparse.csr_array((ones, (quadratic.targets, terms)), (size, len(terms))) @ squares


def _single(writer: Writer, quadratic: Quadratic, objective: bool) -> tuple[Affine, Expression]:
    """Return one quadratic as an affine part and a form; squares stay what they are where the rest is convex."""
    if not len(quadratic.targets):
        return Affine.of(writer.program.constant([0.0])), cp.Constant(np.zeros(1))
    wide = len(np.union1d(quadratic.left.columns, quadratic.right.columns))
    if wide > WIDEST or wide * len(quadratic.targets) > LARGEST:
        raise al.algebra.Unsupported(f"makes a quadratic form of {wide} variables that is no sum of squares")
    for sign in (POSITIVE, NEGATIVE):
        kept = quadratic.squares & (sign * quadratic.weights.sample >= 0)
        if kept.any() and not kept.all():
            squares, form = _where(quadratic, kept), Form.of(_where(quadratic, ~kept))
            if definiteness(writer, form.matrix) == sign and writer.sign(squares.weights) == sign:
                affine, expression = _form(writer, form, sign, objective)
                sums = _squares(writer, squares)
                assert sums is not None
                return affine, expression + sums
    form = Form.of(quadratic)
    sign = definiteness(writer, form.matrix)
    if sign == MIXED:
        low, high = eigenvalue_range(form.matrix).sample
        raise al.algebra.Unsupported(indefinite(float(low), float(high)))
    return _form(writer, form, sign, objective)


def _where(quadratic: Quadratic, mask: NDArray[np.bool_]) -> Quadratic:
    index = np.flatnonzero(mask)
    return quadratic.terms(index, quadratic.targets[index], quadratic.size)


def definiteness(writer: Writer, matrix: Numbers) -> int:
    """Return whether a symmetric matrix is positive semidefinite, negative semidefinite, or neither."""
    return writer.sign(eigenvalue_range(matrix))


def _form(writer: Writer, form: Form, sign: int, objective: bool) -> tuple[Affine, Expression]:
    """Return a semidefinite form as its affine part and a quadratic that keeps the problem DPP."""
    x, n = form.variables, len(form.columns)
    places = np.arange(n)
    affine = x.mapped(0 * places, places, form.slope, 1) + Affine.of(form.constant)
    if form.matrix.constant is not None:
        matrix = scipy.sparse.csc_array(sign * form.matrix.constant.reshape(n, n))
        value = sign * cp.quad_form(writer.affine(x), cp.psd_wrap(matrix))
    elif objective and sign == POSITIVE:
        value = cp.quad_form(writer.affine(x), writer.semidefinite(form.matrix, n))
    else:
        value = sign * cp.sum_squares(writer.affine(factored(form.matrix, x, sign)))
    return affine, cp.reshape(value, (1,), order="F")


def factored(matrix: Numbers, x: Affine, sign: int = POSITIVE) -> Affine:
    """Return ``R x`` with ``R'R`` the matrix times the sign."""
    rows, columns = (part.reshape(-1) for part in np.indices((x.size, x.size)))
    return x.mapped(rows, columns, factor(matrix, float(sign)), x.size)
