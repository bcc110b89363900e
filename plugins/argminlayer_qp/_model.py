"""Reading ``qpsolvers.Problem``: its arrays become constants of a quadratic program, or its parameters where named."""

from typing import Any

import qpsolvers
import torch

import argminlayer as al

NAMES = {"P": "P", "q": "q", "G": "G", "h": "h", "A": "A", "b": "b", "lb": "lower", "ub": "upper"}
"""The attributes of a ``qpsolvers.Problem``, and the blocks they become."""


def read_problem(model: qpsolvers.Problem, parameters: Any, variables: Any) -> al.QuadraticProgram:
    """Return the program with the arrays that ``parameters`` names, such as ``["q", "lb"]``, as its parameters.

    Raises:
        ProblemError: a name that the problem does not have, or ``variables``.
    """
    if variables is not None:
        raise al.ProblemError("a qpsolvers.Problem has one variable; leave `variables` out")
    present = [name for name in NAMES if getattr(model, name) is not None]
    named = list(parameters or ())
    for name in named:
        if name not in present:
            raise al.ProblemError(f"the qpsolvers.Problem has no array {name!r} to be a parameter; it has {present}")
    blocks = {NAMES[name]: True if name in named else _tensor(getattr(model, name)) for name in present}
    return al.QuadraticProgram(**{name: blocks.get(name) for name in NAMES.values()})


def _tensor(array: Any) -> torch.Tensor:
    dense = array if not hasattr(array, "toarray") else array.toarray()
    return torch.as_tensor(dense, dtype=torch.float64)
