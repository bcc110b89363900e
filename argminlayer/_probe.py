"""Checks of a problem's functions against their contract, made once per call on one instance."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._errors import ProblemError
from ._functions import Functions
from ._layout import WORKING_DTYPE
from ._problem import Problem, captured_message

KINKED = re.compile(
    r"(Linalg)?(Vector)?(Abs|Sgn|Sign|Relu|LeakyRelu|Prelu|Elu|Threshold|Hardtanh|Hardshrink|Softshrink|Clamp|Max|Min|Amax"
    r"|Amin|Fmax|Fmin|Median|Nanmedian|Kthvalue|Sort|Topk|Cummax|Cummin|Aminmax|Norm|Dist|Cdist|Sqrt|Where|L1Loss"
    r"|SmoothL1Loss|HuberLoss|HingeEmbedding|Frac|Fmod|Remainder|Floor|Ceil|Round|Trunc|Eigh|Svd)",
    re.IGNORECASE,
)
"""Operations that may have a kink, as autograd names them."""

_NOT_MAPPED = (RuntimeError, NotImplementedError, ValueError, TypeError)
"""What ``torch.vmap`` raises for functions that it cannot map."""


def probe(functions: Functions, first: tuple[Tensor, ...]) -> tuple[int, int, bool]:
    """Evaluate the functions once, for the first instance, and check their contract.

    Returns:
        The numbers p and q of equalities and inequalities, and whether an operation may have a kink.
    """
    problem, layout = functions.problem, functions.layout
    check_arguments(problem)
    with torch.enable_grad():
        z = torch.full((layout.size,), 0.5, dtype=WORKING_DTYPE, device=layout.device, requires_grad=True)
        counts, kinks = {}, False
        if problem.objective is not None:
            value = _call("objective", functions.objective_one, z, first)
            if not isinstance(value, Tensor) or value.ndim:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ProblemError(
                    f"objective must return a scalar tensor of shape () for one instance, not {shape}; sum it, for "
                    "example with `.sum()`"
                )
            if not value.is_floating_point():
                raise ProblemError(
                    f"objective must return a real floating-point number, not {str(value.dtype).removeprefix('torch.')}"
                )
            kinks |= _check_graph("objective", value, z)
        for name, function in (("equality", functions.equality_one), ("inequality", functions.inequality_one)):
            counts[name] = 0
            if getattr(problem, name) is not None:
                values = _call(name, function, z, first)
                counts[name] = len(values)
                if len(values):
                    kinks |= _check_graph(name, values, z)
        for name in ("lower", "upper"):
            if callable(getattr(problem, name)):
                _walk(f"the {name} bound", _call(name, functools.partial(functions.bound_one, name), None, first))
    return counts["equality"], counts["inequality"], kinks


def _call(name: str, function: Callable[..., Any], z: Tensor | None, parameters: tuple[Tensor, ...]) -> Any:
    where = f"the {name} bound" if z is None else name
    versions = [p._version for p in parameters]
    try:
        value = function(*(() if z is None else (z,)), *parameters)
    except ProblemError as error:
        raise ProblemError(f"{where}: {error}") from error
    except Exception as error:
        shapes = ", ".join(f"{tuple(p.shape)} {str(p.dtype).removeprefix('torch.')}" for p in parameters)
        advice = "; convert captured tensors with `.to(u.dtype)`" if "dtype" in str(error) else ""
        called = "(*parameters)" if z is None else "(u, *parameters)"
        raise ProblemError(
            f"{where} raised {type(error).__name__} for one instance with parameters {shapes or 'none'}: {error}. "
            f"It is called as {called} with core shapes and in float64{advice}"
        ) from error
    if versions != [p._version for p in parameters]:
        raise ProblemError(f"{where} changes its parameters in place; write `x * 2` rather than `x.mul_(2)`")
    return value


def check_arguments(problem: Problem) -> None:
    """Refuse functions that cannot be called with the variables and the parameters of the signature.

    Raises:
        ProblemError: names the function, what it takes and what it is called with.
    """
    count = len(problem.signature.inputs)
    for name in ("objective", "equality", "inequality", "lower", "upper"):
        function = getattr(problem, name)
        if not callable(function):
            continue
        bound = name in ("lower", "upper")
        arguments = [f"x{i}" for i in range(count)] if bound else ["u", *(f"x{i}" for i in range(count))]
        try:
            inspect.signature(function).bind(*arguments)
        except ValueError:
            continue
        except TypeError as error:
            takes = inspect.signature(function)
            raise ProblemError(
                f"{f'the {name} bound' if bound else name} takes the arguments {takes}, but the signature "
                f"{problem.signature} has {count} {'parameter' if count == 1 else 'parameters'}: it is called as "
                f"({', '.join(arguments)})"
            ) from error


def _check_graph(name: str, value: Tensor, z: Tensor) -> bool:
    """Check that a value depends on z; return whether an operation on the way may have a kink."""
    reached, operations = _walk(name, value, z)
    if not reached:
        hint = "; for a feasibility problem pass objective=None" if name == "objective" else ""
        raise ProblemError(
            f"{name} does not depend on the variables u: it ignores them, or detaches them (`.detach()`, `.item()`, "
            f"`.data`, `torch.no_grad()`, conversion to NumPy){hint}"
        )
    # operations of torch end in a digit; what others write may do anything
    return any(not name[-1].isdigit() or KINKED.match(name) for name in operations)


def _walk(name: str, value: Tensor, z: Tensor | None = None) -> tuple[bool, set[str]]:
    """Walk the graph of ``value``, refuse leaves other than ``z``; return whether ``z`` was met, and the operations."""
    reached = False
    operations: set[str] = set()
    seen, stack = set(), [value.grad_fn]
    if value.grad_fn is None and value.requires_grad and value is not z:
        raise ProblemError(captured_message(name))
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is None:
            operations.add(node.name())
        else:
            if leaf is not z:
                raise ProblemError(captured_message(name))
            reached = True
        stack.extend(parent for parent, _ in node.next_functions)
    return reached, operations


def maps(functions: Functions, parameters: tuple[Tensor, ...]) -> bool:
    """Say whether ``torch.vmap`` can map the functions, which are known to run on one instance."""
    layout = functions.layout
    z = torch.full((layout.batch, layout.size), 0.5, dtype=WORKING_DTYPE, device=layout.device)
    try:
        with torch.no_grad():
            for function in (functions.objective, functions.equality, functions.inequality):
                function(z, parameters)
            for which in ("lower", "upper"):
                functions.bound(which, parameters)
    except _NOT_MAPPED:
        each = Functions(functions.problem, layout, mapped=False)
        for name, function in (("equality", each.equality), ("inequality", each.inequality)):
            try:
                with torch.no_grad():
                    function(z, parameters)
            except ProblemError as error:
                raise ProblemError(f"{name}: {error}") from error
        return False
    return True
