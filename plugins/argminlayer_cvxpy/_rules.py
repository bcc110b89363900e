"""Operators with convex forms of their own: norms, losses, entropies, extremes, and functions of matrices."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import cvxpy as cp
import numpy as np
import torch

import argminlayer as al

from . import _atoms
from ._affine import Affine
from ._arithmetic import Terms
from ._dcp import refusal
from ._ordered import Kind, Ordered
from ._terms import Term
from ._translate_write import Expression, rows_of

Machine = al.algebra.Machine[Term]
Value = al.algebra.Value[Term]
Arguments = Mapping[str, Any]


def _terms(m: Machine) -> Terms:
    terms: Terms = m.backend.terms  # type: ignore[attr-defined]
    return terms


def _dims(a: Arguments) -> Any:
    return a["dim"] if "dim" in a else a.get("dims")


def _rows(m: Machine, a: Arguments, atom: Callable[[Expression], Expression], function: str) -> Any:
    """Return an atom of the rows that a reduction takes: ``atom`` maps a matrix (rows, columns) to a vector."""
    matrix, columns, shape = m.rows(a["self"], _dims(a), a.get("keepdim", False))
    if columns == 0:
        raise al.algebra.Unsupported(f"takes the {function} of nothing")
    terms, x = _terms(m), matrix.data
    expression = terms.expression(x)
    found = terms.curve(atom(rows_of(expression, matrix.shape[0], columns)), function, expression)
    return al.algebra.Value(found, shape)


def _norm(m: Machine, a: Arguments) -> Any:
    order = a.get("ord", a.get("p", 2))
    order = 2.0 if order is None else float(order)
    if order == 2.0:
        total = m.sum(m.power(a["self"], 2.0), _dims(a), a.get("keepdim", False)) if _is_affine(m, a) else None
        if total is not None:
            return m.root(total)
    if order < 1.0:
        raise al.algebra.Unsupported(f"is a norm of order {order:g}, which is not convex; the order must be at least 1")
    if order == 1.0:
        return _rows(m, a, lambda x: cp.norm1(x, axis=1), "norm")
    if math.isinf(order):
        return _rows(m, a, lambda x: cp.norm_inf(x, axis=1), "norm")
    approx = _atoms.has_short_tower(order)

    def norms(matrix: Expression) -> Expression:
        return cp.hstack([cp.pnorm(matrix[row], order, approx=approx) for row in range(matrix.shape[0])])

    return _rows(m, a, norms, "norm")


def _leaky(m: Machine, a: Arguments) -> Any:
    slope = float(a["negative_slope"])
    if slope > 1.0:
        raise al.algebra.Unsupported("has a slope above one for negative arguments, so that it is concave")
    return m.binary("max", a["self"], m.mul(a["self"], slope))


def _is_affine(m: Machine, a: Arguments) -> bool:
    return m.value(a["self"]).data.is_affine


def _extreme(m: Machine, a: Arguments) -> Any:
    """Return the largest or the smallest entry along dimensions, or of two tensors."""
    target = a["target"].removeprefix("a")
    if "other" in a:
        return m.binary(target, a["self"], a["other"])
    ordered = m.value(a["self"]).data.ordered
    if ordered is not None and _dims(a) in (None, [], 0, -1, [0], [-1]):
        place = np.argmin(ordered.index) if target == "max" else np.argmax(ordered.index)
        term = _terms(m).take(m.value(a["self"]).data, np.array([place]))
        value = al.algebra.Value(term, torch.Size([1] if a.get("keepdim") else []))
    else:
        value = _rows(m, a, lambda x: (cp.max if target == "max" else cp.min)(x, axis=1), target)
    return (value, None) if a["target"] in ("max", "min") and "dim" in a else value


def _log_sum_exp(m: Machine, x: Any, dims: Any, keepdim: bool) -> Value:
    matrix, columns, shape = m.rows(x, dims, keepdim)
    return al.algebra.Value(_atoms.log_sum_exp(_terms(m), matrix.data, matrix.shape[0], columns), shape)


def _logsumexp(m: Machine, a: Arguments) -> Any:
    return _log_sum_exp(m, a["self"], _dims(a), a.get("keepdim", False))


def _log_softmax(m: Machine, a: Arguments) -> Any:
    return m.sub(a["self"], _log_sum_exp(m, a["self"], int(a["dim"]), True))


def _logaddexp(m: Machine, a: Arguments) -> Any:
    pair = m.move(lambda *p: torch.stack(torch.broadcast_tensors(*p)), a["self"], a["other"])
    return _log_sum_exp(m, pair, 0, False)


def _huber(m: Machine, a: Arguments) -> Any:
    """Return Huber's loss; smooth_l1 is Huber's over its threshold. ``target`` is what entries are compared with."""
    difference = m.sub(a["self"], a["target"])
    delta = float(a.get("delta", a.get("beta", 1.0)))
    if delta == 0.0:
        return _reduced(m, m.unary("abs", difference), a)
    terms = _terms(m)
    expression = terms.expression(difference.data)
    scale = 0.5 / delta if "beta" in a else 0.5
    found = terms.curve(scale * cp.huber(expression, delta), "huber", expression)
    return _reduced(m, al.algebra.Value(found, difference.shape), a)


def _reduced(m: Machine, losses: Value, a: Arguments) -> Value:
    none, mean = 0, 1
    if a.get("reduction", mean) == none:
        return losses
    total = m.sum(losses)
    return m.div(total, losses.shape.numel()) if a.get("reduction", mean) == mean else total


def _top(m: Machine, a: Arguments) -> Any:
    """Return the entries of a vector in order, or the first k of them."""
    x = m.floats(a["self"])
    if len(x.shape) != 1:
        raise al.algebra.Unsupported("orders the entries of more than one vector")
    n = x.shape[0]
    falling = bool(a.get("descending", a.get("largest", True) if a["target"] == "topk" else False))
    ranks = np.arange(n) if falling else np.arange(n)[::-1].copy()
    ranks = ranks[: int(a["k"])] if a["target"] == "topk" else ranks
    return _ordered(m, "entries", _terms(m).expression(x.data), n, ranks), None


def _ordered(m: Machine, kind: Kind, base: Expression, count: int, ranks: Any) -> Value:
    terms = _terms(m)
    term = Term(terms.zeros(len(ranks)), ordered=Ordered(kind, base, count, ranks))
    return al.algebra.Value(term, torch.Size([len(ranks)]))


def _eigenvalues(m: Machine, a: Arguments) -> Any:
    """Return the eigenvalues of a symmetric matrix, of which torch reads one triangle, in rising order."""
    x, pick = m.floats(a["A"]), torch.tril if a.get("UPLO", "L") == "L" else torch.triu
    n = _side(x)
    mirrored = m.moved(lambda p: pick(p) + pick(p, -1 if pick is torch.tril else 1).mT, x)
    matrix = _matrix(_terms(m), mirrored.data, n)
    return _ordered(m, "eigenvalues", matrix, n, np.arange(n)[::-1].copy()), None


def _singular_values(m: Machine, a: Arguments) -> Any:
    x = m.floats(a["A"])
    if len(x.shape) != 2:
        raise al.algebra.Unsupported("takes the singular values of more than one matrix")
    matrix = rows_of(_terms(m).expression(x.data), *x.shape)
    count = min(x.shape)
    return None, _ordered(m, "singular values", matrix, count, np.arange(count)), None


def _log_determinant(m: Machine, a: Arguments) -> Any:
    """Return sign 1 and log det of a matrix that is symmetric by construction; its domain are the positive ones."""
    x = m.floats(a["A"])
    n, terms = _side(x), _terms(m)
    transposed = m.moved(lambda p: p.mT, x)
    if not (x.data.is_affine and _same(x.data.affine, transposed.data.affine)):
        raise al.algebra.Unsupported(
            "needs a matrix that is affine and symmetric by construction: write 0.5 * (X + X.mT) for X"
        )
    matrix = _matrix(terms, x.data, n)
    value = al.algebra.Value(terms.curve(cp.log_det(matrix), "log", matrix), torch.Size([]))
    return m.constant(1.0), value, None, None


def _same(one: Affine, other: Affine) -> bool:
    """Say whether vectors are equal, up to rounding of constants."""
    if one.identity == other.identity:
        return True
    if len(one.rows) != len(other.rows) or (one.rows != other.rows).any() or (one.columns != other.columns).any():
        return False
    pairs = ((one.coefficients, other.coefficients), (one.offset, other.offset))
    return all(np.allclose(x.sample, y.sample, rtol=1e-12, atol=1e-14) for x, y in pairs)


def _side(x: Value) -> int:
    if len(x.shape) != 2 or x.shape[0] != x.shape[1]:
        raise al.algebra.Unsupported("works on more than one matrix")
    return x.shape[0]


def _matrix(terms: Terms, x: Term, n: int) -> Expression:
    if not x.is_affine:
        raise al.algebra.Unsupported(refusal("eigenvalues", [terms.expression(x)]))
    return cp.symmetric_wrap(rows_of(terms.expression(x), n, n))


RULES: Mapping[str, al.algebra.Rule] = MappingProxyType(
    {
        **dict.fromkeys(("linalg_vector_norm", "norm"), _norm),
        **dict.fromkeys(("amax", "amin", "max", "min"), _extreme),
        **dict.fromkeys(("topk", "sort"), _top),
        "logsumexp": _logsumexp,
        "_log_softmax": _log_softmax,
        "logaddexp": _logaddexp,
        **dict.fromkeys(("huber_loss", "smooth_l1_loss"), _huber),
        "leaky_relu": _leaky,
        "_linalg_eigh": _eigenvalues,
        "_linalg_svd": _singular_values,
        "_linalg_slogdet": _log_determinant,
    }
)
