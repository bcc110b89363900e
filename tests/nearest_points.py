"""Nearest points computed another way: in extended precision, one row after another, by sorting and bisection."""

import math

import numpy as np

LD = np.longdouble


def simplex(x, r):
    """Return the point of {u >= 0, sum u = r} nearest to x, by sorting."""
    x, r = np.asarray(x, LD), LD(r)
    descending = np.sort(x)[::-1]
    threshold = ((np.cumsum(descending) - r) / np.arange(1, len(x) + 1)).max()
    return np.maximum(x - threshold, 0)


def sphere(x, r, p, ball=False):
    """Return the point of the Lp sphere or ball of radius r nearest to x, with sign + at zeros."""
    x, r = np.asarray(x, LD), LD(r)
    size = norm(x, p)
    if ball and size <= r:
        return x
    sign, a = np.where(x < 0, LD(-1), LD(1)), np.abs(x)
    if math.isinf(p):
        return sign * _outwards(np.minimum(a, r), r)
    if p == 1:
        return sign * (simplex(a, r) if size >= r else a + (r - size) / len(a))
    if p == 2:
        return x * (r / size) if size > 0 else np.full_like(x, r / np.sqrt(LD(len(x))))
    assert size >= r, "from inside only p = 1, 2 and infinity are easy"
    return sign * _power(a, r, p)


def norm(x, p):
    """Return the p-norm in extended precision."""
    a = np.abs(np.asarray(x, LD))
    top = a.max()
    if math.isinf(p) or top == 0:
        return top
    return top * ((a / top) ** LD(p)).sum() ** (LD(1) / LD(p))


def _outwards(a, r):
    if (a < r).all():
        a = a.copy()
        a[np.argmax(a)] = r
    return a


def _power(a, r, p):
    low, high = LD(0), LD(1)
    while norm(_shrunk(a, high, p), p) > r:
        high *= 4
    for _ in range(110):
        middle = (low + high) / 2
        low, high = (middle, high) if norm(_shrunk(a, middle, p), p) > r else (low, middle)
    return _shrunk(a, high, p)


def _shrunk(a, force, p):
    """Return u with ``u + force u^(p - 1) = a``, by bisection."""
    low, high = np.zeros_like(a), a.copy()
    for _ in range(90):
        middle = (low + high) / 2
        above = middle + force * middle ** LD(p - 1) > a
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return high
