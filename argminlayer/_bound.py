"""A problem bound to its parameters: the batch, flat variables, and the derivative oracle that solvers ask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ._autodiff import gradient, jacobian
from ._errors import ProblemError
from ._functions import Functions
from ._layout import Layout
from ._parameters import read_parameters
from ._probe import maps, probe
from ._problem import Problem
from ._solution import Solution


@dataclass(frozen=True, eq=False)
class BoundProblem:
    """A problem with its parameters: what a solver is given, and what the certificate measures.

    All methods work on flat variables ``z`` of shape (batch, n) in float64 and return detached tensors; ``batch`` is
    the flattened batch. Signs are those of the minimisation: the objective is negated when the problem maximises.

    Attributes:
        problem: the problem, for its constraint kinds and structure.
        layout: shapes, batch, dtype and device.
        functions: objective and constraints as batched functions that autograd differentiates.
        parameters: prepared and detached, (batch, *core), or (*core) where ``layout.shared`` says so.
        lower: (batch, n), ``-inf`` where there is no bound.
        upper: (batch, n), ``inf`` where there is no bound.
        equalities: number of equality constraints of an instance, p.
        inequalities: number of inequality constraints of an instance, q.
        kinks: whether a function uses an operation whose derivative jumps somewhere, such as ``abs``.
    """

    problem: Problem
    layout: Layout
    functions: Functions
    parameters: tuple[Tensor, ...]
    lower: Tensor
    upper: Tensor
    equalities: int
    inequalities: int
    kinks: bool = False

    @property
    def batch(self) -> int:
        """Number of instances."""
        return self.layout.batch

    @property
    def size(self) -> int:
        """Number of variables of one instance, n."""
        return self.layout.size

    def select(self, index: Tensor) -> "BoundProblem":
        """Return the problem of the instances in ``index``, a vector of positions in the flattened batch."""
        layout = replace(self.layout, batch_shape=torch.Size([len(index)]))
        functions = Functions(self.problem, layout, self.functions.mapped)
        parameters = tuple(
            p if shared else p[index] for p, shared in zip(self.parameters, self.layout.shared, strict=True)
        )
        return replace(
            self,
            layout=layout,
            functions=functions,
            parameters=parameters,
            lower=self.lower[index],
            upper=self.upper[index],
        )

    @torch.no_grad()
    def objective(self, z: Tensor) -> Tensor:
        """Return the objective, (batch,)."""
        return self.functions.objective(z, self.parameters)

    @torch.no_grad()
    def gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective (batch,) and its gradient (batch, n)."""
        values, rows = jacobian(lambda t: self.functions.objective(t, self.parameters)[:, None], z)
        return values[:, 0], rows[:, 0]

    @torch.no_grad()
    def equality(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the equality constraints (batch, p) and their Jacobian (batch, p, n)."""
        return jacobian(lambda t: self.functions.equality(t, self.parameters), z)

    @torch.no_grad()
    def inequality(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inequality constraints (batch, q) and their Jacobian (batch, q, n)."""
        return jacobian(lambda t: self.functions.inequality(t, self.parameters), z)

    @torch.no_grad()
    def derivative(self, function: Callable[..., Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values (batch, r) of a function ``(u, *x) -> tensor`` of one instance, and their Jacobian."""
        return jacobian(lambda t: self.functions.values(function, t, self.parameters), z)

    @torch.no_grad()
    def hessian(self, z: Tensor, nu: Tensor, lam: Tensor) -> Tensor:
        """Return the Hessian of the Lagrangian, (batch, n, n)."""
        return self.functions.hessian(z, nu, lam, self.parameters)

    @torch.no_grad()
    def hessian_product(self, z: Tensor, nu: Tensor, lam: Tensor, v: Tensor) -> Tensor:
        """Return the Hessian of the Lagrangian times ``v`` (batch, n), without forming it."""
        return gradient(lambda t: (self.functions.slope(t, nu, lam, self.parameters) * v).sum(), z)[0]


def arrange(problem: Problem, parameters: Sequence[Any], start: Any = None) -> tuple[Layout, tuple[Tensor, ...]]:
    """Lay out parameters and variables: everything about them but their values.

    Args:
        problem: the problem.
        parameters: tensors with the signature's core dimensions and any leading dimensions that broadcast; numbers
            and arrays become tensors.
        start: tells sizes that no parameter has, in place of the problem's own.

    Returns:
        The layout, and the parameters prepared for it: differentiable in the caller's, see :meth:`Layout.prepare`.

    Raises:
        SignatureError: shapes do not fit the signature.
        ProblemError: not a problem, or parameters of no use.
    """
    if not isinstance(problem, Problem):
        raise ProblemError(
            f"the first argument must be an argminlayer.Problem, not a {type(problem).__name__}; write "
            "al.Problem(objective, '(n)->(n)'), or al.ArgminLayer(model, ...) for a model that a plugin reads"
        )
    tensors = read_parameters(parameters, problem.parameter_names)
    sizes, batch_shape = problem.signature.match(tensors, problem.parameter_names)
    core_ndims = tuple(map(len, problem.signature.inputs))
    floating = [t for t in tensors if t.is_floating_point()]
    layout = Layout(
        batch_shape=batch_shape,
        shapes=(),
        shared=tuple(t.shape[: t.ndim - k].numel() == 1 for t, k in zip(tensors, core_ndims, strict=True)),
        dtype=floating[0].dtype if floating else torch.get_default_dtype(),
        device=tensors[0].device if tensors else torch.get_default_device(),
    )
    prepared = layout.prepare(tensors, core_ndims)
    return replace(layout, shapes=_variable_shapes(problem, sizes, layout, prepared, start)), prepared


def bind(problem: Problem, parameters: Sequence[Any]) -> BoundProblem:
    """Bind parameters to a problem, their values only; see :func:`arrange` and :func:`bind_prepared`."""
    layout, prepared = arrange(problem, parameters)
    return bind_prepared(problem, layout, tuple(p.detach() for p in prepared))


def bind_prepared(problem: Problem, layout: Layout, prepared: tuple[Tensor, ...]) -> BoundProblem:
    """Bind prepared parameters to a problem after checking its functions on the first instance.

    Raises:
        ProblemError: functions that break their contract.
    """
    functions = Functions(problem, layout)
    equalities, inequalities, kinks = probe(functions, tuple(p.clone() for p in _first(layout, prepared)))
    if functions.mapped:
        functions = Functions(problem, layout, maps(functions, prepared))
    with torch.no_grad():
        lower, upper = functions.bound("lower", prepared), functions.bound("upper", prepared)
    return BoundProblem(problem, layout, functions, prepared, lower, upper, equalities, inequalities, kinks)


def _first(layout: Layout, prepared: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the parameters of the first instance, of a made-up one when the batch is empty."""
    return tuple(
        p if shared else p[0] if layout.batch else p.new_ones(p.shape[1:])
        for p, shared in zip(prepared, layout.shared, strict=True)
    )


def _variable_shapes(
    problem: Problem, sizes: dict[str, int], layout: Layout, prepared: tuple[Tensor, ...], start: Any
) -> tuple[torch.Size, ...]:
    known = problem.signature.variable_shapes(sizes)
    if all(shape is not None for shape in known):
        return tuple(shape for shape in known if shape is not None)
    start = problem.start if start is None else start
    start = start[0] if isinstance(start, list) and start else start
    start = start.iterate if isinstance(start, Solution) else start
    if callable(start):
        start = start(*_first(layout, prepared))
    given = start if isinstance(start, tuple) else (start,)
    shapes = []
    for index, (shape, dims) in enumerate(zip(known, problem.signature.outputs, strict=True)):
        if shape is not None:
            shapes.append(shape)
        elif index < len(given) and isinstance(given[index], Tensor) and given[index].ndim >= len(dims):
            shapes.append(given[index].shape[given[index].ndim - len(dims) :])
        else:
            unknown = [d for d in dims if isinstance(d, str) and d not in sizes]
            raise ProblemError(
                f"no parameter has the dimension {unknown[0]!r} of variable {index} in the signature "
                f"{problem.signature}: write its size as an integer, or pass a `start` of the right shape"
            )
    return tuple(shapes)
