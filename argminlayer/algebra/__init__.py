"""Torch functions as algebra: recorded once, checked, and written in any modelling language by a few primitives."""

from ._backend import BINARY, UNARY, Backend, Rule
from ._cache import ModelCache
from ._degree import Degree
from ._graph import Algebra, record
from ._interpret import Expressions, interpret
from ._machine import Machine, Unsupported, Value
from ._verify import verify

__all__ = [
    "BINARY",
    "UNARY",
    "Algebra",
    "Backend",
    "Degree",
    "Expressions",
    "Machine",
    "ModelCache",
    "Rule",
    "Unsupported",
    "Value",
    "interpret",
    "record",
    "verify",
]
