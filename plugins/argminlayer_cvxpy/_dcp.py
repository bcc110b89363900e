"""What disciplined convex programming cannot follow, in words: the arguments, their curvature, and what to write."""

from collections.abc import Sequence
from typing import Any

_ADVICE: dict[str, str] = {
    "sqrt": "the length of a vector is torch.linalg.vector_norm, also of torch.cat of what is squared under the root",
    "log": "the logarithm of a sum of exponentials is torch.logsumexp; a logarithm needs a concave argument",
    "exp": "an exponential needs a convex argument",
    "mul": "a product of variables is convex as a quadratic form with a positive semidefinite matrix, and a factor "
    "that does not depend on the variables must have one sign",
    "div": "a quotient needs a positive denominator: bound the variables so that it is one, or multiply the "
    "constraint by it",
    "add": "minimise convex and maximise concave terms, and subtract only terms of the other kind",
    "sub": "minimise convex and maximise concave terms, and subtract only terms of the other kind",
    "abs": "an absolute value needs an affine argument",
    "max": "a maximum needs convex arguments, and a minimum concave ones",
    "min": "a maximum needs convex arguments, and a minimum concave ones",
    "power": "an odd power, or a negative one, is convex only where its argument is not negative: bound it from below "
    "(lower=0.0), or use torch.relu",
    "norm": "a norm needs an affine argument",
    "logsumexp": "it needs convex arguments",
    "softplus": "it needs a convex argument",
    "entropy": "it needs an affine argument",
    "huber": "it needs an affine argument",
}
_ADVICE |= dict.fromkeys(
    ("lt", "le", "gt", "ge", "eq", "ne", "where"), "write the pieces with torch.maximum, torch.abs or torch.relu"
)
_NOTHING = "write the problem with convex functions, or use a solver of smooth problems"


def refusal(function: str, arguments: Sequence[Any]) -> str:
    """Return why a function has no known curvature, to follow the words "the operator ...".

    Args:
        function: what was applied.
        arguments: the CVXPY expressions that it was applied to.
    """
    kinds = " and ".join(describe(argument) for argument in arguments)
    noun = "argument" if len(arguments) == 1 else "arguments"
    article = "an" if kinds.startswith("a") else "a"
    of = f"of {article} {kinds} {noun}" if len(arguments) == 1 else f"of {kinds} {noun}"
    return f"{of} is neither convex nor concave by the rules of disciplined convex programming: {advice(function)}"


def advice(function: str) -> str:
    """Return what to write instead of a function."""
    return _ADVICE.get(function, _NOTHING)


def describe(expression: Any) -> str:
    """Return the curvature and the sign of an expression in words."""
    if expression.is_constant():
        curvature = "constant"
    elif expression.is_affine():
        curvature = "affine"
    elif expression.is_convex():
        curvature = "convex"
    elif expression.is_concave():
        curvature = "concave"
    else:
        curvature = "curved"
    if expression.is_nonneg():
        return f"{curvature}, nonnegative"
    return f"{curvature}, nonpositive" if expression.is_nonpos() else curvature


def indefinite(low: float, high: float) -> str:
    """Return why a quadratic form is neither convex nor concave."""
    return (
        f"makes a quadratic form that is neither convex nor concave: the eigenvalues of its matrix range from "
        f"{low:.3g} to {high:.3g}, but all must have one sign; add to the diagonal, or project the matrix onto the "
        "semidefinite ones"
    )
