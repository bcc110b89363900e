"""Rules of operators that combine entries: products of matrices, sums, norms, and sums at indices."""

import math
from typing import Any

import torch
from torch import Tensor

from ._machine import Machine, Unsupported, Value, boolean, known
from ._pointwise import logaddexp
from ._rules import Arguments, Rules

RULES = Rules()

# Products


@RULES.rule("mm", "mv", "dot", "vdot", "bmm", "matmul", "inner", "_sparse_mm")
def _matmul(m: Machine[Any], a: Arguments) -> Any:
    if a["target"] == "_sparse_mm":
        return m.matmul(a["sparse"], a["dense"])
    names = {"mm": "mat2", "mv": "vec", "bmm": "mat2", "dot": "tensor", "vdot": "other"}
    return m.matmul(a["self"], a[names.get(a["target"], "other")])


@RULES.rule("addmm", "addmv", "baddbmm", "addbmm", "_sparse_addmm")
def _addmm(m: Machine[Any], a: Arguments) -> Any:
    left, right = {
        "addmm": ("mat1", "mat2"),
        "_sparse_addmm": ("mat1", "mat2"),
        "addmv": ("mat", "vec"),
        "baddbmm": ("batch1", "batch2"),
        "addbmm": ("batch1", "batch2"),
    }[a["target"]]
    product = m.matmul(a[left], a[right])
    if a["target"] == "addbmm":
        product = m.sum(product, 0)
    alpha, beta = a.get("alpha", 1), a.get("beta", 1)
    product = product if alpha == 1 else m.mul(product, float(alpha))
    if beta == 0:
        return product
    return m.add(a["self"] if beta == 1 else m.mul(a["self"], float(beta)), product)


@RULES.rule("addr")
def _addr(m: Machine[Any], a: Arguments) -> Any:
    columns, row = m.move(lambda p: p[:, None], a["vec1"]), a["vec2"]
    product, alpha, beta = m.mul(columns, row), a.get("alpha", 1), a.get("beta", 1)
    product = product if alpha == 1 else m.mul(product, float(alpha))
    return m.add(a["self"] if beta == 1 else m.mul(a["self"], float(beta)), product)


@RULES.rule("linalg_cross")
def _cross(m: Machine[Any], a: Arguments) -> Any:
    dim = int(a.get("dim", -1))

    def rolled(x: Any, by: int) -> Any:
        return m.move(lambda p: p.roll(-by, dim), x)

    x, y = a["self"], a["other"]
    return m.sub(m.mul(rolled(x, 1), rolled(y, 2)), m.mul(rolled(x, 2), rolled(y, 1)))


@RULES.rule("_trilinear")
def _trilinear(m: Machine[Any], a: Arguments) -> Any:
    factors = []
    for k in "123":
        factor = a[f"i{k}"]
        for dim in a[f"expand{k}"]:
            factor = m.move(lambda p, d=dim: p.unsqueeze(d), factor)
        factors.append(factor)
    return m.sum(m.mul(m.mul(factors[0], factors[1]), factors[2]), a["sumdim"])


@RULES.rule("trace")
def _trace(m: Machine[Any], a: Arguments) -> Any:
    return m.sum(m.move(lambda p: p.diagonal(), a["self"]))


# Reductions


def _dims(a: Arguments) -> Any:
    return a["dim"] if "dim" in a else a.get("dims")


@RULES.rule("sum", "nansum")
def _sum(m: Machine[Any], a: Arguments) -> Any:
    return m.sum(a["self"], _dims(a), a.get("keepdim", False))


@RULES.rule("mean")
def _mean(m: Machine[Any], a: Arguments) -> Any:
    return mean(m, a["self"], _dims(a), a.get("keepdim", False))


def mean(m: Machine[Any], x: Any, dims: Any, keepdim: bool) -> Value[Any]:
    """Return the mean over dimensions."""
    count = m.rows(x, dims, keepdim)[1]
    return m.mul(m.sum(x, dims, keepdim), 1.0 / count) if count else m.mul(m.sum(x, dims, keepdim), math.nan)


@RULES.rule("var", "std", "var_mean", "std_mean")
def _var(m: Machine[Any], a: Arguments) -> Any:
    dims, keepdim = _dims(a), a.get("keepdim", False)
    correction = a.get("correction", 1 if a.get("unbiased", True) else 0)
    correction = 1 if correction is None else correction
    x = m.value(a["self"])
    count = m.rows(x, dims, keepdim)[1]
    if count <= correction:
        raise Unsupported(f"takes the variance of {count} values")
    centre = mean(m, x, dims, True)
    squares = m.sum(m.power(m.sub(x, centre), 2.0), dims, keepdim)
    found = m.mul(squares, 1.0 / (count - correction))
    found = m.root(found) if a["target"].startswith("std") else found
    return (found, m.sum(centre, dims, keepdim)) if a["target"].endswith("_mean") else found


@RULES.rule("prod")
def _prod(m: Machine[Any], a: Arguments) -> Any:
    return m.fold("mul", a["self"], a.get("dim"), a.get("keepdim", False))


@RULES.rule("amax", "amin")
def _amax(m: Machine[Any], a: Arguments) -> Any:
    return m.fold(a["target"].removeprefix("a"), a["self"], _dims(a), a.get("keepdim", False))


@RULES.rule("max", "min", "aminmax")
def _max(m: Machine[Any], a: Arguments) -> Any:
    if "other" in a:
        return m.binary(a["target"], a["self"], a["other"])
    if a["target"] == "aminmax":
        return tuple(m.fold(f, a["self"], a.get("dim"), a.get("keepdim", False)) for f in ("min", "max"))
    found = m.fold(a["target"], a["self"], a.get("dim"), a.get("keepdim", False))
    return (found, None) if "dim" in a else found


@RULES.rule("any", "all")
def _any(m: Machine[Any], a: Arguments) -> Any:
    found = m.fold("max" if a["target"] == "any" else "min", m.truth(a["self"]), _dims(a), a.get("keepdim", False))
    return boolean(found)


@RULES.rule("cumsum", "cumprod")
def _cumulative(m: Machine[Any], a: Arguments) -> Any:
    return m.scan(m.add if a["target"] == "cumsum" else m.mul, a["self"], int(a["dim"]))


@RULES.rule("logcumsumexp")
def _log_cumulative(m: Machine[Any], a: Arguments) -> Any:
    return m.scan(lambda x, y: logaddexp(m, x, y), a["self"], int(a["dim"]))


@RULES.rule("linalg_vector_norm", "norm")
def _norm(m: Machine[Any], a: Arguments) -> Any:
    order = a.get("ord", a.get("p", 2))
    return norm(m, a["self"], 2.0 if order is None else float(order), _dims(a), a.get("keepdim", False))


def norm(m: Machine[Any], x: Any, order: float, dims: Any = None, keepdim: bool = False) -> Value[Any]:
    """Return the vector norm of an order over dimensions."""
    if order == 2.0:
        return m.root(m.sum(m.power(x, 2.0), dims, keepdim))
    sizes = m.unary("abs", x)
    if order == 1.0:
        return m.sum(sizes, dims, keepdim)
    if math.isinf(order):
        return m.fold("max" if order > 0 else "min", sizes, dims, keepdim)
    if order == 0.0:
        return m.sum(m.truth(x), dims, keepdim)
    return m.power(m.sum(m.power(sizes, order), dims, keepdim), 1.0 / order)


@RULES.rule("dist")
def _dist(m: Machine[Any], a: Arguments) -> Any:
    return norm(m, m.sub(a["self"], a["other"]), float(a.get("p", 2)))


@RULES.rule("_cdist_forward", "cdist", "_euclidean_dist")
def _cdist(m: Machine[Any], a: Arguments) -> Any:
    left = m.move(lambda p: p.unsqueeze(-2), a["x1"])
    right = m.move(lambda p: p.unsqueeze(-3), a["x2"])
    return norm(m, m.sub(left, right), float(a.get("p", 2.0)), -1)


@RULES.rule("_pdist_forward")
def _pdist(m: Machine[Any], a: Arguments) -> Any:
    rows = torch.combinations(torch.arange(a["self"].shape[0]), 2)
    pairs = [m.move(lambda p, k=k: p[rows[:, k]], a["self"]) for k in (0, 1)]
    return norm(m, m.sub(*pairs), float(a.get("p", 2.0)), -1)


@RULES.rule("logsumexp")
def _logsumexp(m: Machine[Any], a: Arguments) -> Any:
    return m.logsumexp(a["self"], _dims(a), a.get("keepdim", False))


@RULES.rule("_softmax", "_log_softmax", "softmax", "log_softmax")
def _softmax(m: Machine[Any], a: Arguments) -> Any:
    shifted = m.sub(a["self"], m.logsumexp(a["self"], int(a["dim"]), True))
    return shifted if "log" in a["target"] else m.unary("exp", shifted)


@RULES.rule("native_layer_norm")
def _layer_norm(m: Machine[Any], a: Arguments) -> Any:
    x = m.value(a["input"])
    dims = list(range(len(x.shape) - len(a["normalized_shape"]), len(x.shape)))
    centred = m.sub(x, mean(m, x, dims, True))
    variance = mean(m, m.power(centred, 2.0), dims, True)
    scale = m.div(1.0, m.unary("sqrt", m.add(variance, float(a["eps"]))))
    scaled = m.mul(centred, scale)
    scaled = scaled if a.get("weight") is None else m.mul(scaled, a["weight"])
    return scaled if a.get("bias") is None else m.add(scaled, a["bias"]), mean(m, x, dims, True), scale


# Sums at indices


@RULES.rule("index_add", "scatter_add", "scatter_reduce", "index_put", "put")
def _scatter(m: Machine[Any], a: Arguments) -> Any:
    target = a["target"]
    base = m.value(a["self"])
    positions = torch.arange(base.shape.numel()).reshape(base.shape)
    if target == "index_put":
        indices = tuple(slice(None) if i is None else known(i, "an index") for i in a["indices"])
        places = positions[indices]
        source = m.move(lambda p: p.expand(places.shape), a["values"])
        if not a.get("accumulate", False):
            return m.move(lambda p, q: p.index_put(_tensors(a["indices"]), q), base, source)
    else:
        if target == "scatter_reduce" and a["reduce"] != "sum":
            raise Unsupported(f"reduces by {a['reduce']!r}")
        index, source = known(a["index"], "an index"), m.value(a.get("source", a.get("src")))
        if target == "index_add":
            places = positions.index_select(a["dim"], index)
            source = source if a.get("alpha", 1) == 1 else m.mul(source, float(a["alpha"]))
        elif target == "put":
            raise Unsupported("accumulates at flat positions; use index_put")
        else:
            places = positions.gather(a["dim"], index)
            source = m.move(lambda p: p[tuple(slice(0, s) for s in index.shape)], source)
            if target == "scatter_reduce" and not a.get("include_self", True):
                base = m.move(lambda p: p.scatter(a["dim"], index, 0), base)
    return m.scatter_sum(base, places, source)


def _tensors(indices: Any) -> list[Tensor | None]:
    return [None if i is None else known(i, "an index") for i in indices]
