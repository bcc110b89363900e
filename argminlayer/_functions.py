"""Objective, constraints and Lagrangian of a problem for a whole batch of flat variables."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._autodiff import gradient, jacobian
from ._errors import ProblemError
from ._layout import WORKING_DTYPE, Layout
from ._problem import Bound, Problem


class Functions:
    """Objective and constraints of a problem as functions of flat variables, evaluated for a whole batch.

    All take ``z`` (batch, n) and prepared parameters and are differentiable by autograd. Batches run through
    ``torch.vmap``; functions that it cannot map (control flow that depends on data) run instance by instance.
    """

    def __init__(self, problem: Problem, layout: Layout, mapped: bool = True):
        self.problem = problem
        self.layout = layout
        self.mappable = mapped
        self.mapped = mapped and layout.batch > 1

    def on(self, layout: Layout) -> "Functions":
        """Return the same functions for another batch."""
        return Functions(self.problem, layout, self.mappable)

    @property
    def key(self) -> Hashable:
        """What a recorded program depends on besides the problem."""
        return type(self).__name__, self.layout, self.mapped

    def batched(self, function: Callable[..., Tensor], z: Tensor | None, parameters: Sequence[Tensor]) -> Tensor:
        """Return ``function([z,] *parameters)`` of every instance, stacked along the first dimension."""
        arguments = parameters if z is None else (z, *parameters)
        shared = self.layout.shared if z is None else (False, *self.layout.shared)
        if self.mapped and not all(shared):
            mapped = torch.vmap(function, in_dims=tuple(None if s else 0 for s in shared))
            result: Tensor = mapped(*arguments)
            return result
        if all(shared):
            once = function(*arguments)
            return once.expand(self.layout.batch, *once.shape)
        if self.layout.batch == 0:
            dummies = (a if s else a.new_full(a.shape[1:], 0.5) for a, s in zip(arguments, shared, strict=True))
            return function(*dummies).detach()[None][:0]
        each = (
            function(*(a if s else a[i] for a, s in zip(arguments, shared, strict=True)))
            for i in range(self.layout.batch)
        )
        stacked = list(each)
        for i, one in enumerate(stacked):
            if one.shape != stacked[0].shape:
                raise ProblemError(
                    f"a function returned {one.numel()} values for instance {i} of the flattened batch, but "
                    f"{stacked[0].numel()} for the first: their number may not depend on the parameters"
                )
        return torch.stack(stacked)

    def objective(self, z: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return what is minimised, (batch,): the objective, its negative when maximising, zero without one."""
        if self.problem.objective is None:
            return z.sum(-1) * 0.0
        return self.batched(self.objective_one, z, parameters)

    def equality(self, z: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return the equality constraints, (batch, p)."""
        if self.problem.equality is None:
            return z.new_zeros(z.shape[0], 0)
        return self.batched(self.equality_one, z, parameters)

    def inequality(self, z: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return the inequality constraints, (batch, q)."""
        if self.problem.inequality is None:
            return z.new_zeros(z.shape[0], 0)
        return self.batched(self.inequality_one, z, parameters)

    def bound(self, which: str, parameters: Sequence[Tensor]) -> Tensor:
        """Return the ``"lower"`` or ``"upper"`` bounds, (batch, n), infinite where there is none."""
        return self.batched(functools.partial(self.bound_one, which), None, parameters).expand(
            self.layout.batch, self.layout.size
        )

    def objective_one(self, z: Tensor, *parameters: Tensor) -> Tensor:
        """Return what is minimised, of one instance."""
        assert self.problem.objective is not None
        value: Tensor = self.problem.objective(self.layout.unflatten(z), *parameters)
        return -value if self.problem.maximize else value

    def equality_one(self, z: Tensor, *parameters: Tensor) -> Tensor:
        """Return the equality constraints of one instance, (p,)."""
        assert self.problem.equality is not None
        return _vector(self.problem.equality(self.layout.unflatten(z), *parameters), z)

    def inequality_one(self, z: Tensor, *parameters: Tensor) -> Tensor:
        """Return the inequality constraints of one instance, (q,)."""
        assert self.problem.inequality is not None
        return _vector(self.problem.inequality(self.layout.unflatten(z), *parameters), z)

    def bound_one(self, which: str, *parameters: Tensor) -> Tensor:
        """Return the bounds of one instance, (n,)."""
        bound: Bound | None = self.problem.lower if which == "lower" else self.problem.upper
        absent = -torch.inf if which == "lower" else torch.inf
        given = bound(*parameters) if callable(bound) else bound
        several = given if isinstance(given, tuple) else (given,) * len(self.layout.shapes)
        if len(several) != len(self.layout.shapes):
            raise ProblemError(
                f"{which} is a tuple of {len(several)} bounds, but the signature has {len(self.layout.shapes)} "
                f"{'variable' if len(self.layout.shapes) == 1 else 'variables'}: give one bound for each"
            )
        pieces = [
            self._one_bound(which, absent if b is None else b, shape)
            for b, shape in zip(several, self.layout.shapes, strict=True)
        ]
        return torch.cat(pieces)

    def _one_bound(self, which: str, bound: Any, shape: torch.Size) -> Tensor:
        try:
            tensor = torch.as_tensor(bound, dtype=WORKING_DTYPE, device=self.layout.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ProblemError(
                f"the {which} bound is of type {type(bound).__name__}; give a number, a tensor, or a function of the "
                "parameters that returns one"
            ) from error
        try:
            return tensor.broadcast_to(shape).reshape(-1)
        except RuntimeError as error:
            raise ProblemError(
                f"the {which} bound has shape {tuple(tensor.shape)}, which does not broadcast to the variable's "
                f"shape {tuple(shape)}"
            ) from error

    def values(self, function: Callable[..., Any], z: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return the flattened values (batch, r) of any function ``(u, *x)`` of one instance."""
        return self.batched(lambda t, *x: _vector(function(self.layout.unflatten(t), *x), t), z, parameters)

    def lagrangian(self, z: Tensor, nu: Tensor, lam: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return ``f + nu'h + lambda'g``, (batch,)."""
        total = self.objective(z, parameters)
        if self.problem.equality is not None:
            total = total + (nu * self.equality(z, parameters)).sum(-1)
        if self.problem.inequality is not None:
            total = total + (lam * self.inequality(z, parameters)).sum(-1)
        return total

    def slope(self, z: Tensor, nu: Tensor, lam: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return the gradient of the Lagrangian in ``z``, (batch, n)."""
        return gradient(lambda t: self.lagrangian(t, nu, lam, parameters).sum(), z)[0]

    def hessian(self, z: Tensor, nu: Tensor, lam: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return the Hessian of the Lagrangian in ``z``, (batch, n, n)."""
        return jacobian(lambda t: self.slope(t, nu, lam, parameters), z)[1]

    def weighted(
        self, z: Tensor, nu: Tensor, lam: Tensor, parameters: Sequence[Tensor], weights: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        """Return ``w_z' grad L + w_nu' h + w_lambda' g`` summed over the batch."""
        w_z, w_nu, w_lam = weights
        total = (w_z * self.slope(z, nu, lam, parameters)).sum()
        if self.problem.equality is not None:
            total = total + (w_nu * self.equality(z, parameters)).sum()
        if self.problem.inequality is not None:
            total = total + (w_lam * self.inequality(z, parameters)).sum()
        return total

    def start_one(self, start: Any, *parameters: Tensor) -> Tensor:
        """Return a start given as a function, of one instance, (n,)."""
        return self.layout.flatten(start(*parameters), "the start")


def _vector(value: Any, z: Tensor) -> Tensor:
    parts = value if isinstance(value, tuple | list) else (value,)
    for part in parts:
        if not isinstance(part, Tensor | float | int):
            raise ProblemError(f"it must return a tensor, or a tuple of tensors, not {type(part).__name__}")
        if isinstance(part, bool) or (isinstance(part, Tensor) and part.dtype == torch.bool):
            raise ProblemError(
                "it returned booleans: return the expression itself, h(u) = 0 for equality and g(u) <= 0 for "
                "inequality, for example `u - 1` instead of `u <= 1`"
            )
    if not parts:
        return z.new_zeros(0)
    if len(parts) == 1 and isinstance(parts[0], Tensor):
        return parts[0].reshape(-1)
    return torch.cat([torch.as_tensor(part, dtype=z.dtype, device=z.device).reshape(-1) for part in parts])
