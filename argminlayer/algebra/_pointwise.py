"""Rules of operators that work entry by entry."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._backend import UNARY, Rule
from ._machine import COMPARISONS, Machine, Unsupported, Value, boolean
from ._rules import Arguments, Rules

RULES = Rules()

# Functions of one argument


def _plain(function: str) -> Rule:
    return lambda m, a: m.unary(function, a["self"])


RULES.update({name: _plain(name) for name in UNARY})

_COMPOSED: dict[str, Callable[[Machine[Any], Any], Any]] = {
    "sgn": lambda m, x: m.unary("sign", x),
    "rsqrt": lambda m, x: m.div(1.0, m.unary("sqrt", x)),
    "reciprocal": lambda m, x: m.div(1.0, x),
    "square": lambda m, x: m.power(x, 2.0),
    "log2": lambda m, x: m.mul(m.unary("log", x), 1.0 / math.log(2.0)),
    "log10": lambda m, x: m.mul(m.unary("log", x), 1.0 / math.log(10.0)),
    "exp2": lambda m, x: m.unary("exp", m.mul(x, math.log(2.0))),
    "erfc": lambda m, x: m.sub(1.0, m.unary("erf", x)),
    "sigmoid": lambda m, x: m.add(m.mul(m.unary("tanh", m.mul(x, 0.5)), 0.5), 0.5),
    "silu": lambda m, x: m.mul(x, m.add(m.mul(m.unary("tanh", m.mul(x, 0.5)), 0.5), 0.5)),
    "relu": lambda m, x: m.binary("max", x, 0.0),
    "trunc": lambda m, x: m.mul(m.unary("sign", x), m.unary("floor", m.unary("abs", x))),
    "frac": lambda m, x: m.sub(x, m.mul(m.unary("sign", x), m.unary("floor", m.unary("abs", x)))),
    "deg2rad": lambda m, x: m.mul(x, math.pi / 180.0),
    "rad2deg": lambda m, x: m.mul(x, 180.0 / math.pi),
    "special_entr": lambda m, x: m.unary("neg", m.mul(x, m.unary("log", x))),
    "logical_not": lambda m, x: boolean(m.sub(1.0, m.truth(x))),
    "positive": lambda m, x: x,
    # what is not a number is no point of the model either
    "nan_to_num": lambda m, x: x,
}


def _composed(function: Callable[[Machine[Any], Any], Any]) -> Rule:
    return lambda m, a: function(m, m.value(a["self"]))


RULES.update({name: _composed(function) for name, function in _COMPOSED.items()})


@RULES.rule("softplus")
def _softplus(m: Machine[Any], a: Arguments) -> Any:
    beta = float(a["beta"])
    x = m.mul(a["self"], beta) if beta != 1.0 else m.value(a["self"])
    return m.div(softplus(m, x), beta) if beta != 1.0 else softplus(m, x)


def softplus(m: Machine[Any], x: Any) -> Value[Any]:
    """Return log(1 + exp(x)), without overflow."""
    if "softplus" in m.backend.functions:
        return m.unary("softplus", x)
    tail = m.unary("log1p", m.unary("exp", m.unary("neg", m.unary("abs", x))))
    return m.add(m.binary("max", x, 0.0), tail)


@RULES.rule("log_sigmoid_forward")
def _log_sigmoid(m: Machine[Any], a: Arguments) -> Any:
    return m.unary("neg", softplus(m, m.unary("neg", a["self"]))), None


@RULES.rule("logit")
def _logit(m: Machine[Any], a: Arguments) -> Any:
    x = m.value(a["self"])
    if a.get("eps") is not None:
        x = m.binary("max", m.binary("min", x, 1.0 - a["eps"]), float(a["eps"]))
    return m.unary("log", m.div(x, m.sub(1.0, x)))


@RULES.rule("round")
def _round(m: Machine[Any], a: Arguments) -> Any:
    if a.get("decimals"):
        raise Unsupported("rounds to decimals")
    return m.unary("floor", m.add(a["self"], 0.5))


# Arithmetic


@RULES.rule("add", "sub")
def _add(m: Machine[Any], a: Arguments) -> Any:
    other = a["other"] if a.get("alpha", 1) == 1 else m.mul(a["other"], float(a["alpha"]))
    return (m.add if a["target"] == "add" else m.sub)(a["self"], other)


@RULES.rule("rsub")
def _rsub(m: Machine[Any], a: Arguments) -> Any:
    return m.sub(a["other"], a["self"] if a.get("alpha", 1) == 1 else m.mul(a["self"], float(a["alpha"])))


@RULES.rule("mul")
def _mul(m: Machine[Any], a: Arguments) -> Any:
    return m.mul(a["self"], a["other"])


@RULES.rule("div", "true_divide", "floor_divide")
def _div(m: Machine[Any], a: Arguments) -> Any:
    quotient = m.div(a["self"], a["other"])
    mode = "floor" if a["target"] == "floor_divide" else a.get("rounding_mode")
    if mode is None:
        return quotient
    return m.unary("floor", quotient) if mode == "floor" else _COMPOSED["trunc"](m, quotient)


@RULES.rule("remainder", "fmod")
def _remainder(m: Machine[Any], a: Arguments) -> Any:
    quotient = m.div(a["self"], a["other"])
    whole = m.unary("floor", quotient) if a["target"] == "remainder" else _COMPOSED["trunc"](m, quotient)
    return m.sub(a["self"], m.mul(whole, a["other"]))


@RULES.rule("pow", "float_power")
def _pow(m: Machine[Any], a: Arguments) -> Any:
    base, exponent = a["self"], a["exponent"]
    if isinstance(exponent, Tensor) and exponent.numel() and bool((exponent == exponent.reshape(-1)[0]).all()):
        powered = m.power(base, float(exponent.reshape(-1)[0]))
        return m.expand(powered, torch.broadcast_shapes(powered.shape, exponent.shape))
    if isinstance(exponent, int | float):
        return m.power(base, float(exponent))
    return m.binary("pow", m.floats(base), exponent)


_SINGLE = 4
"""Bytes of the shortest float that variables may be converted to: shorter ones have another value."""
_PAIRS = {"maximum": "max", "minimum": "min", "fmax": "max", "fmin": "min", "atan2": "atan2"}
_PAIRS |= {name: name for name in COMPARISONS}


def _pairwise(function: str) -> Rule:
    return lambda m, a: m.binary(function, a["self"], a["other"])


RULES.update({name: _pairwise(function) for name, function in _PAIRS.items()})


@RULES.rule("hypot")
def _hypot(m: Machine[Any], a: Arguments) -> Any:
    return m.root(m.add(m.power(a["self"], 2.0), m.power(a["other"], 2.0)))


@RULES.rule("logaddexp")
def _logaddexp(m: Machine[Any], a: Arguments) -> Any:
    return logaddexp(m, a["self"], a["other"])


def logaddexp(m: Machine[Any], x: Any, y: Any) -> Value[Any]:
    """Return log(exp(x) + exp(y))."""
    return m.add(y, softplus(m, m.sub(x, y)))


@RULES.rule("isnan", "isinf", "isposinf", "isneginf")
def _is_no_number(m: Machine[Any], a: Arguments) -> Any:
    """The entries of a model are numbers; where they are not, it has no value at all."""
    return torch.zeros(m.value(a["self"]).shape, dtype=torch.bool)


@RULES.rule("copysign")
def _copysign(m: Machine[Any], a: Arguments) -> Any:
    sign = m.sub(m.mul(m.floats(m.binary("ge", a["other"], 0.0)), 2.0), 1.0)
    return m.mul(m.unary("abs", a["self"]), sign)


@RULES.rule("heaviside")
def _heaviside(m: Machine[Any], a: Arguments) -> Any:
    x = m.value(a["self"])
    return m.where(m.binary("eq", x, 0.0), a["values"], m.binary("gt", x, 0.0))


@RULES.rule("xlogy", "special_xlog1py")
def _xlogy(m: Machine[Any], a: Arguments) -> Any:
    logarithm = m.unary("log" if a["target"] == "xlogy" else "log1p", a["other"])
    if isinstance(a["self"], Tensor):
        # 0 log y is 0 even where log y is not a number
        factor = a["self"].to(torch.float64)
        return m.where(factor == 0, 0.0 * factor, m.mul(factor, logarithm))
    return m.mul(a["self"], logarithm)


@RULES.rule("logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not")
def _logical(m: Machine[Any], a: Arguments) -> Any:
    name = a["target"]
    x = m.value(a["self"])
    if name.startswith("bitwise") and not x.boolean:
        raise Unsupported("works on the bits of variables")
    x = m.floats(m.truth(x))
    if name.endswith("not"):
        return boolean(m.sub(1.0, x))
    y = m.floats(m.truth(a["other"]))
    both = m.mul(x, y)
    if name.endswith("_and"):
        return boolean(both)
    either = m.sub(m.add(x, y), both)
    return boolean(either if name.endswith("_or") else m.sub(either, both))


@RULES.rule("clamp", "clip", "clamp_min", "clamp_max", "hardtanh")
def _clamp(m: Machine[Any], a: Arguments) -> Any:
    x = a["self"]
    low, high = a.get("min", a.get("min_val")), a.get("max", a.get("max_val"))
    if low is not None:
        x = m.binary("max", x, low)
    return x if high is None else m.binary("min", x, high)


@RULES.rule("where")
def _where(m: Machine[Any], a: Arguments) -> Any:
    return m.where(a["condition"], a["self"], a["other"])


@RULES.rule("masked_fill")
def _masked_fill(m: Machine[Any], a: Arguments) -> Any:
    return m.where(a["mask"], a["value"], a["self"])


@RULES.rule("_to_copy", "to", "_conj", "real")
def _to_copy(m: Machine[Any], a: Arguments) -> Any:
    x, dtype = m.value(a["self"]), a.get("dtype")
    if dtype is None or (dtype.is_floating_point and dtype.itemsize >= _SINGLE):
        return m.floats(x)
    if dtype == torch.bool:
        return m.truth(x)
    if x.boolean and not dtype.is_complex:
        return m.floats(x)
    raise Unsupported(f"converts variables to {str(dtype).removeprefix('torch.')}")


@RULES.rule("addcmul", "addcdiv")
def _addcmul(m: Machine[Any], a: Arguments) -> Any:
    combine = m.mul if a["target"] == "addcmul" else m.div
    term, value = combine(a["tensor1"], a["tensor2"]), a.get("value", 1)
    return m.add(a["self"], term if value == 1 else m.mul(term, float(value)))


@RULES.rule("lerp")
def _lerp(m: Machine[Any], a: Arguments) -> Any:
    return m.add(a["self"], m.mul(a["weight"], m.sub(a["end"], a["self"])))
