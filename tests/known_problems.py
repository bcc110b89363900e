"""Small problems whose solutions are known as explicit formulas, or by an independent solve of the same conditions."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import argminlayer as al

FOUR_POINT = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))
"""Offsets and weights of the central difference of fourth order."""


@dataclass(frozen=True)
class Case:
    """A problem, parameters, and its solution as a function of the parameters of ONE instance.

    Attributes:
        name: what the problem is.
        problem: the problem.
        parameters: float64, with any leading dimensions.
        known: ``(*x) -> u`` for one instance; autograd gives the true derivative unless ``differences``.
        differences: the derivative is taken by central differences of ``known``.
        floor: gradients smaller than this are compared absolutely.
        either_sign: the solution is known up to its sign.
        slsqp: whether SLSQP is expected to solve it.
        trust_constr: whether trust-constr is expected to solve it.
        single: expected accuracy in float32, None where float32 cannot resolve the problem.
    """

    name: str
    problem: al.Problem
    parameters: tuple[Tensor, ...]
    known: Callable[..., Any]
    differences: bool = False
    floor: float = 1e-3
    either_sign: bool = False
    slsqp: bool = True
    trust_constr: bool = True
    single: float | None = 1e-4
    cache: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of the parameters."""
        dims = self.problem.signature.inputs
        return torch.broadcast_shapes(*(p.shape[: p.ndim - len(d)] for p, d in zip(self.parameters, dims, strict=True)))

    def solution(self, *parameters: Tensor) -> tuple[Tensor, ...]:
        """Return the known solution of the whole batch, as a tuple of variables."""
        each = [as_tuple(self.known(*instance)) for instance in self.instances(parameters)]
        return tuple(
            torch.stack(parts).reshape(self.batch_shape + parts[0].shape) for parts in zip(*each, strict=True)
        )

    def instances(self, parameters: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
        """Return the parameters of each instance of the batch."""
        dims = self.problem.signature.inputs
        full = [
            p.expand(self.batch_shape + p.shape[p.ndim - len(d) :]).flatten(0, len(self.batch_shape) - 1)
            if self.batch_shape
            else p[None]
            for p, d in zip(parameters, dims, strict=True)
        ]
        return zip(*full, strict=True)

    def answer(self) -> tuple[Tensor, ...]:
        """Return the known solution at the parameters, computed once."""
        if "answer" not in self.cache:
            self.cache["answer"] = tuple(part.detach() for part in self.solution(*self.parameters))
        found: tuple[Tensor, ...] = self.cache["answer"]
        return found

    def cotangents(self, seed: int = 0) -> tuple[Tensor, ...]:
        """Return random cotangents of the solution."""
        return tuple(normal(100 + seed, *part.shape) for part in self.answer())

    def gradients(self, seed: int = 0) -> tuple[Tensor, ...]:
        """Return the true vector-Jacobian product with :meth:`cotangents`, computed once."""
        key = f"gradients {seed}"
        if key not in self.cache:
            method = self._differences if self.differences else self._autograd
            self.cache[key] = method(self.cotangents(seed))
        found: tuple[Tensor, ...] = self.cache[key]
        return found

    def _autograd(self, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        leaves = tuple(p.clone().requires_grad_() for p in self.parameters)
        return torch.autograd.grad(self.solution(*leaves), leaves, cotangents, materialize_grads=True)

    def _differences(self, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found = []
        for index, parameter in enumerate(self.parameters):
            gradient = torch.zeros_like(parameter).flatten()
            for entry in range(parameter.numel()):
                step = 1e-3 * max(1.0, abs(float(parameter.flatten()[entry])))
                for offset, weight in FOUR_POINT:
                    moved = [p.clone() for p in self.parameters]
                    moved[index].view(-1)[entry] += offset * step
                    value = self.solution(*moved)
                    total = sum((c * v).sum() for c, v in zip(cotangents, value, strict=True))
                    gradient[entry] += weight / step * total
            found.append(gradient.reshape(parameter.shape))
        return tuple(found)


    def value_error(self, value: Any) -> float:
        """Return the largest error of a solution, relative to the largest entry of each variable."""
        pairs = zip(as_tuple(value), self.signed(self.answer(), value), strict=True)
        return max(relative(got, want, 1e-3) for got, want in pairs)

    def gradient_error(self, value: Any, parameters: tuple[Tensor, ...], seed: int = 0) -> float:
        """Return the largest error of the vector-Jacobian product, relative to the largest entry for each parameter."""
        cotangents = self.signed(self.cotangents(seed), value)
        typed = tuple(c.to(v.dtype) for c, v in zip(cotangents, as_tuple(value), strict=True))
        found = torch.autograd.grad(as_tuple(value), parameters, typed, retain_graph=True, materialize_grads=True)
        return max(relative(got, want, self.floor) for got, want in zip(found, self.gradients(seed), strict=True))

    def signed(self, tensors: tuple[Tensor, ...], value: Any) -> tuple[Tensor, ...]:
        """Return tensors of the shape of the solution with the sign that ``value`` has against the known one."""
        if not self.either_sign:
            return tensors
        sign = (as_tuple(value)[0].detach() * self.answer()[0]).sum(-1, keepdim=True).sign()
        return tuple(sign * tensor for tensor in tensors)


def relative(got: Tensor, want: Tensor, floor: float) -> float:
    """Return the largest error relative to the largest entry, NaN counting as infinite."""
    error = (got.detach().double() - want).abs().amax() / want.abs().amax().clamp_min(floor)
    return float(torch.nan_to_num(error, nan=torch.inf))


def as_tuple(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def as_variables(parts: tuple[Tensor, ...]) -> Any:
    """Return variables as the library takes them: a tensor when there is one, else the tuple."""
    return parts if len(parts) > 1 else parts[0]


def normal(seed: int, *shape: int) -> Tensor:
    """Return fixed normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(seed: int, *shape: int) -> Tensor:
    """Return fixed numbers in (0.5, 1.5)."""
    return 0.5 + torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def definite(seed: int, n: int, *batch: int) -> Tensor:
    """Return fixed positive definite matrices."""
    root = normal(seed, *batch, n, n)
    return root @ root.mT / n + torch.eye(n, dtype=torch.float64)


def values(*numbers: Any) -> Tensor:
    """Return numbers as float64."""
    return torch.tensor(numbers, dtype=torch.float64)


def root(conditions: Callable[[Tensor], Tensor], begin: Tensor) -> Tensor:
    """Return where ``conditions`` vanish, by damped Newton steps to the last digit."""
    z = begin.detach()
    for _ in range(60):
        residual = conditions(z)
        jacobian = torch.func.jacrev(conditions)(z)
        step = torch.linalg.solve(jacobian, residual)
        scale = 1.0
        while bool(conditions(z - scale * step).norm() > residual.norm()) and scale > 1e-4:
            scale *= 0.5
        moved = z - scale * step
        if torch.equal(moved, z) or float(step.abs().max()) < 1e-15 * float(1 + z.abs().max()):
            return moved
        z = moved
    return z


def minimiser(objective: Callable[[Tensor], Tensor], begin: Tensor) -> Tensor:
    """Return the minimiser of a convex function, by Newton's method."""
    return root(torch.func.grad(objective), begin)


def eye(n: int) -> Tensor:
    """Return the identity."""
    return torch.eye(n, dtype=torch.float64)


def symmetric(matrix: Tensor) -> Tensor:
    """Return the symmetric part."""
    return 0.5 * (matrix + matrix.mT)


def equality_program(P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """Return the minimiser of ``u'Pu/2 + q'u`` with ``Au = b``, from its KKT system."""
    n, p = len(q), len(b)
    matrix = torch.cat([torch.cat([P, A.mT], 1), torch.cat([A, P.new_zeros(p, p)], 1)])
    return torch.linalg.solve(matrix, torch.cat([-q, b]))[:n]


def to_simplex(x: Tensor, total: Any = 1.0) -> Tensor:
    """Return the projection onto ``u >= 0, sum u = total``, by sorting."""
    ordered = x.sort(descending=True).values
    shift = (ordered.cumsum(0) - total) / torch.arange(1, len(x) + 1)
    active = int((ordered > shift).sum())
    return (x - shift[active - 1]).clamp_min(0.0)


def sinkhorn(C: Tensor, r: Tensor, c: Tensor) -> Tensor:
    """Return the transport plan with entropy of weight one."""
    K, v = torch.exp(-C), torch.ones_like(c)
    for _ in range(200):
        v = c / (K.mT @ (r / (K @ v)))
    return (r / (K @ v))[:, None] * K * v


def pool_adjacent(x: Tensor) -> Tensor:
    """Return the nondecreasing vector nearest to ``x``."""
    blocks: list[list[Tensor]] = []
    for entry in x:
        blocks.append([entry])
        while len(blocks) > 1 and sum(blocks[-2]) / len(blocks[-2]) > sum(blocks[-1]) / len(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return torch.stack([sum(block) / len(block) for block in blocks for _ in block])


def nonnegative_program(P: Tensor, q: Tensor) -> Tensor:
    """Return the minimiser of ``u'Pu/2 + q'u`` with ``u >= 0``, by trying every set of free variables."""
    n = len(q)
    for pattern in range(2**n):
        free = torch.tensor([bool(pattern >> i & 1) for i in range(n)])
        u = torch.zeros_like(q)
        if bool(free.any()):
            u = u.index_put((free,), torch.linalg.solve(P[free][:, free], -q[free]))
        if bool((u >= 0).all()) and bool((P @ u + q >= -1e-12).all()):
            return u
    raise AssertionError("a definite program has a solution")


def water_fill(noise: Tensor, power: Tensor) -> Tensor:
    """Return the allocation that maximises ``sum log(1 + u / noise)`` with ``sum u = power``."""
    return to_simplex(-noise, power)


def to_second_order_cone(x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return the projection of ``(x, s)`` onto ``|u| <= t``, away from the apex."""
    length = x.norm()
    if length <= s:
        return x, s
    return 0.5 * (1 + s / length) * x, 0.5 * (length + s)


def polar(M: Tensor) -> Tensor:
    """Return the orthogonal factor of ``M``."""
    eigenvalues, vectors = torch.linalg.eigh(M.mT @ M)
    return M @ (vectors * eigenvalues.rsqrt()) @ vectors.mT


def polygon(sides: int) -> Tensor:
    """Return the unit normals of a regular polygon."""
    angle = 2 * torch.pi * torch.arange(sides, dtype=torch.float64) / sides
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


POLYGON = polygon(50)
LABELS = values(1.0, 1.0, 1.0, -1.0, -1.0)
DESIGN = normal(71, 12, 3)
OUTCOMES = (normal(72, 12) > 0).double()
TIMES = torch.linspace(0.0, 2.0, 6, dtype=torch.float64)


def half_square(u: Tensor, x: Tensor, *_: Tensor) -> Tensor:
    """Return ``|u - x|^2 / 2``."""
    return 0.5 * (u - x).square().sum()


def quadratic(u: Tensor, P: Tensor, q: Tensor, *_: Tensor) -> Tensor:
    """Return ``u'Pu/2 + q'u``."""
    return 0.5 * (u @ P @ u) + q @ u


def unconstrained() -> Iterator[Case]:
    """Problems without constraints."""
    yield Case(
        "a quadratic with its matrix as a parameter",
        al.Problem(quadratic, "(n,n),(n)->(n)"),
        (definite(1, 4, 3), normal(2, 3, 4)),
        lambda P, q: -torch.linalg.solve(symmetric(P), q),
    )
    yield Case(
        "a mean as a scalar variable",
        al.Problem(lambda u, x: (u - x).square().sum(), "(m)->()"),
        (normal(3, 4, 5),),
        lambda x: x.mean(),
    )
    yield Case(
        "ridge regression with a scalar penalty",
        al.Problem(
            lambda u, X, y, mu: 0.5 * (X @ u - y).square().sum() + 0.5 * mu.exp() * u.square().sum(),
            "(m,n),(m),()->(n)",
        ),
        (normal(4, 2, 7, 3), normal(5, 2, 7), values(-1.0, 0.5)),
        lambda X, y, mu: torch.linalg.solve(X.mT @ X + mu.exp() * eye(3), X.mT @ y),
    )
    yield Case(
        "declared least squares",
        al.least_squares(lambda u, X, y: X @ u - y, "(m,n),(m)->(n)"),
        (normal(6, 3, 6, 3), normal(7, 3, 6)),
        lambda X, y: torch.linalg.solve(X.mT @ X, X.mT @ y),
    )
    yield Case(
        "exponential fit by nonlinear least squares",
        al.least_squares(lambda u, y: u[0] * torch.exp(-u[1] * TIMES) - y, "(m)->(2)", start=values(1.0, 1.0)),
        (values(2.0, 1.5) [:, None] * torch.exp(-values(0.8, 1.3)[:, None] * TIMES) + 0.02 * normal(8, 2, 6),),
        lambda y: minimiser(lambda u: (u[0] * torch.exp(-u[1] * TIMES) - y).square().sum(), values(1.8, 1.0)),
        differences=True,
    )
    yield Case(
        "logistic regression with a weight for each row",
        al.Problem(
            lambda u, w, mu: (
                w * torch.nn.functional.softplus(DESIGN @ u) - w * OUTCOMES * (DESIGN @ u)
            ).sum() + 0.5 * mu * u.square().sum(),
            "(m),()->(3)",
        ),
        (positive(9, 2, 12), values(0.7)[0]),
        lambda w, mu: minimiser(
            lambda u: (w * torch.nn.functional.softplus(DESIGN @ u) - w * OUTCOMES * (DESIGN @ u)).sum()
            + 0.5 * mu * u.square().sum(),
            torch.zeros(3, dtype=torch.float64),
        ),
        differences=True,
    )
    yield Case(
        "pseudo-Huber mean with its width as a parameter",
        al.Problem(lambda u, x, a: (a.square() * ((1 + ((u - x) / a).square()).sqrt() - 1)).sum(), "(m),()->()"),
        (torch.cat([normal(10, 2, 6), values([9.0], [-7.0])], -1), values(1.0, 0.6)),
        lambda x, a: minimiser(
            lambda u: (a.square() * ((1 + ((u[0] - x) / a).square()).sqrt() - 1)).sum(), x.median()[None]
        )[0],
        differences=True,
    )
    yield Case(
        "exponentials minus a linear function",
        al.Problem(lambda u, x: u.exp().sum() - x @ u, "(n)->(n)"),
        (positive(11, 3, 4),),
        lambda x: x.log(),
    )
    yield Case(
        "log-sum-exp with a quadratic",
        al.Problem(lambda u, A, b: torch.logsumexp(A @ u + b, 0) + 0.5 * u.square().sum(), "(m,n),(m)->(n)"),
        (normal(12, 4, 2), normal(13, 2, 4)),
        lambda A, b: minimiser(
            lambda u: torch.logsumexp(A @ u + b, 0) + 0.5 * u.square().sum(), torch.zeros(2, dtype=torch.float64)
        ),
        differences=True,
    )
    yield Case(
        "the global minimum of a polynomial with three stationary points",
        al.Problem(
            lambda u, x: x * u**4 + 2 * x**2 * u**3 - 12 * u**2, "()->()", start=[values(-4.0)[0], values(4.0)[0]]
        ),
        (values(0.5, 1.0, 2.0),),
        lambda x: (-3 * x**2 - (9 * x**4 + 96 * x).sqrt()) / (4 * x),
    )
    yield Case(
        "the local minimum of the same polynomial on the right",
        al.Problem(lambda u, x: x * u**4 + 2 * x**2 * u**3 - 12 * u**2, "()->()", start=2.0),
        (values(0.5, 1.0, 2.0),),
        lambda x: (-3 * x**2 + (9 * x**4 + 96 * x).sqrt()) / (4 * x),
    )
    yield Case(
        "a curved valley",
        al.Problem(
            lambda u, a, b: (a - u[0]).square() + b * (u[1] - u[0].square()).square(), "(),()->(2)", start=values(-1, 2)
        ),
        (values(1.0, 0.5, -0.3), values(100.0)[0]),
        lambda a, b: torch.stack([a, a.square() + 0 * b]),
    )
    yield Case(
        "a quartic about several points",
        al.Problem(
            lambda u, x, mu: 0.25 * (u - x).pow(4).sum() + 0.5 * mu * u.square().sum(), "(n),()->(n)"
        ),
        (normal(14, 2, 3) + 2, values(0.5, 1.0)),
        lambda x, mu: minimiser(lambda u: 0.25 * (u - x).pow(4).sum() + 0.5 * mu * u.square().sum(), 0.1 * x),
        differences=True,
    )
    yield Case(
        "a matrix of coefficients",
        al.Problem(
            lambda U, A, B, mu: 0.5 * (U @ A - B).square().sum() + 0.5 * mu * U.square().sum(),
            "(n,m),(k,m),()->(k,n)",
        ),
        (normal(15, 2, 3, 5), normal(16, 2, 2, 5), values(0.3)[0]),
        lambda A, B, mu: torch.linalg.solve(A @ A.mT + mu * eye(3), A @ B.mT).mT,
    )
    yield Case(
        "slope and intercept as two variables",
        al.Problem(lambda u, X, y: (X @ u[0] + u[1] - y).square().sum(), "(m,n),(m)->(n),()"),
        (normal(17, 3, 8, 2), normal(18, 3, 8)),
        lambda X, y: _split_last(torch.linalg.lstsq(torch.cat([X, torch.ones_like(X[:, :1])], 1), y[:, None])[0][:, 0]),
    )
    yield Case(
        "the maximum of a likelihood",
        al.Problem(lambda u, x: len(x) * u.log() - u * x.sum(), "(m)->()", start=lambda x: 0.5 / x.mean(), maximize=True),
        (positive(19, 3, 6),),
        lambda x: len(x) / x.sum(),
    )
    for scale in (1e-8, 1e8):
        yield Case(
            f"a quadratic times {scale:g}",
            al.Problem(lambda u, P, q, s=scale: s * quadratic(u, P, q), "(n,n),(n)->(n)"),
            (definite(20, 3, 2), normal(21, 2, 3)),
            lambda P, q: -torch.linalg.solve(symmetric(P), q),
        )
    yield Case(
        "values of ten thousand",
        al.Problem(lambda u, x: (u - x).square().sum(), "(m)->()"),
        (1e4 * (1 + normal(22, 2, 5)),),
        lambda x: x.mean(),
    )
    yield Case(
        "variables in very different units",
        al.Problem(
            lambda u, x: 1e-4 * (u[0] - x[0]).square() + 1e4 * (u[1] - x[1] * 1e-4).square() + u[0] * u[1], "(2)->(2)"
        ),
        (values([1e4, 1.0], [-2e4, 3.0]),),
        lambda x: torch.linalg.solve(values([2e-4, 1.0], [1.0, 2e4]), torch.stack([2e-4 * x[0], 2.0 * x[1]])),
        single=None,
    )
    yield Case(
        "a quadratic with condition number one million",
        al.Problem(lambda u, d, x: 0.5 * (d * (u - x).square()).sum() + 0.01 * (u @ x), "(n),(n)->(n)"),
        (values(1.0, 1e3, 1e6), normal(23, 2, 3)),
        lambda d, x: x - 0.01 * x / d,
    )
    yield Case(
        "the analytic centre of a polygon",
        al.Problem(lambda u, b: -torch.log(b - polygon(5) @ u).sum(), "(m)->(2)"),
        (positive(24, 2, 5) + 0.3,),
        lambda b: minimiser(lambda u: -torch.log(b - polygon(5) @ u).sum(), torch.zeros(2, dtype=torch.float64)),
        differences=True,
    )
    yield Case(
        "batches that broadcast in two dimensions",
        al.Problem(lambda u, x, w: 0.5 * (w * (u - x).square()).sum() + u.sum(), "(n),(n)->(n)"),
        (normal(25, 3, 1, 2), positive(26, 4, 2)),
        lambda x, w: x - 1 / w,
    )
    yield Case(
        "a shared matrix and a batch of vectors",
        al.Problem(quadratic, "(n,n),(n)->(n)"),
        (definite(27, 3), normal(28, 5, 3)),
        lambda P, q: -torch.linalg.solve(symmetric(P), q),
    )
    yield Case(
        "a fixed number of variables that no parameter has",
        al.Problem(lambda u, s, x: (u - s * values(0, 1, 2)).square().sum() + (u.sum() - x.sum()).square(), "(),(n)->(3)"),
        (values(0.5, 1.5), normal(29, 4)),
        lambda s, x: torch.linalg.solve(eye(3) + 1, s * values(0, 1, 2) + x.sum()),
    )


def _split_last(u: Tensor) -> tuple[Tensor, Tensor]:
    return u[:-1], u[-1]


def equalities() -> Iterator[Case]:
    """Problems with equalities only."""
    yield Case(
        "projection onto an affine space",
        al.Problem(half_square, "(n),(p,n),(p)->(n)", equality=lambda u, x, A, b: A @ u - b),
        (normal(30, 3, 4), normal(31, 3, 2, 4), normal(32, 3, 2)),
        lambda x, A, b: x - A.mT @ torch.linalg.solve(A @ A.mT, A @ x - b),
    )
    yield Case(
        "an equality-constrained quadratic program with all its data as parameters",
        al.Problem(quadratic, "(n,n),(n),(p,n),(p)->(n)", equality=lambda u, P, q, A, b: A @ u - b),
        (definite(33, 4, 2), normal(34, 2, 4), normal(35, 2, 4), normal(36, 2, 2)),
        lambda P, q, A, b: equality_program(symmetric(P), q, A, b),
    )
    yield Case(
        "the least norm with one equation",
        al.Problem(lambda u, a, b: 0.5 * u.square().sum(), "(n),()->(n)", equality=lambda u, a, b: a @ u - b),
        (normal(37, 3, 4), values(1.0, -2.0, 0.5)),
        lambda a, b: a * b / a.square().sum(),
    )
    yield Case(
        "projection onto a sphere with its radius as a parameter",
        al.Problem(half_square, "(n),()->(n)", equality=lambda u, x, r: u @ u - r.square(), start=lambda x, r: x),
        (normal(38, 4, 3), values(0.5, 1.0, 2.0, 3.0)),
        lambda x, r: r * x / x.norm(),
    )
    yield Case(
        "projection onto a sphere from the default start",
        al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u @ u - 1),
        (normal(39, 4, 3),),
        lambda x: x / x.norm(),
    )
    for scale in (1e-6, 1e6):
        yield Case(
            f"projection onto a sphere whose equation is multiplied by {scale:g}",
            al.Problem(
                half_square, "(n)->(n)", equality=lambda u, x, s=scale: s * (u @ u - 1), start=lambda x: x / x.abs().sum()
            ),
            (normal(40, 2, 3),),
            lambda x: x / x.norm(),
        )
    for scale in (1e-8, 1e8):
        yield Case(
            f"projection onto a sphere whose objective is multiplied by {scale:g}",
            al.Problem(
                lambda u, x, s=scale: s * half_square(u, x),
                "(n)->(n)",
                equality=lambda u, x: u @ u - 1,
                start=lambda x: x / x.abs().sum(),
            ),
            (normal(41, 2, 3),),
            lambda x: x / x.norm(),
        )
    yield Case(
        "projection onto a sphere of radius ten thousand",
        al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u @ u - 1e8, start=lambda x: x),
        (2e4 * normal(42, 2, 3),),
        lambda x: 1e4 * x / x.norm(),
    )
    yield Case(
        "a linear objective on a circle with its radius as a parameter",
        al.Problem(lambda u, x, r: x @ u, "(2),()->(2)", equality=lambda u, x, r: u @ u - r.square()),
        (normal(43, 3, 2), values(1.0, 2.0, 0.7)),
        lambda x, r: -r * x / x.norm(),
    )
    yield Case(
        "a linear objective with the norm equal to one",
        al.Problem(lambda u, x: -x @ u, "(n)->(n)", equality=lambda u, x: u.norm() - 1),
        (normal(44, 3, 4),),
        lambda x: x / x.norm(),
    )
    yield Case(
        "a linear objective on an ellipse",
        al.Problem(lambda u, x, Q: x @ u, "(n),(n,n)->(n)", equality=lambda u, x, Q: u @ Q @ u - 1),
        (normal(45, 2, 3), definite(46, 3, 2)),
        lambda x, Q: _on_ellipse(x, symmetric(Q)),
    )
    yield Case(
        "projection onto an ellipse",
        al.Problem(half_square, "(n),(n)->(n)", equality=lambda u, x, d: (d * u.square()).sum() - 1, start=lambda x, d: x),
        (normal(47, 2, 2) * 2, values([1.0, 4.0], [2.0, 0.5])),
        lambda x, d: root(
            lambda w: torch.cat([w[:2] - x + w[2] * d * w[:2], ((d * w[:2].square()).sum() - 1)[None] / 2]),
            torch.cat([x / (d * x.square()).sum().sqrt(), values(0.1)]),
        )[:2],
        differences=True,
    )
    yield Case(
        "a circle cut out of a sphere by a plane",
        al.Problem(
            lambda u, x, a, b: x @ u,
            "(n),(n),()->(n)",
            equality=lambda u, x, a, b: (u @ u - 1, a @ u - b),
        ),
        (normal(48, 2, 3), normal(49, 2, 3), values(0.2, -0.3)),
        lambda x, a, b: _on_cut(x, a, b),
    )
    yield Case(
        "relative entropy to a point of the simplex",
        al.Problem(
            lambda u, x: (u * (u / x).log()).sum(), "(n)->(n)", equality=lambda u, x: u.sum() - 1, start=lambda x: x
        ),
        (positive(50, 3, 4),),
        lambda x: x / x.sum(),
    )
    yield Case(
        "relative entropy with a lower bound and no start",
        al.Problem(lambda u, x: (u * (u / x).log()).sum(), "(n)->(n)", equality=lambda u, x: u.sum() - 1, lower=1e-9),
        (positive(51, 3, 4),),
        lambda x: x / x.sum(),
    )
    yield Case(
        "the maximum of entropy plus a linear function",
        al.Problem(
            lambda u, x, t: x @ u - t * (u * u.log()).sum(),
            "(n),()->(n)",
            equality=lambda u, x, t: u.sum() - 1,
            start=lambda x, t: torch.full_like(x, 1 / len(x)),
            maximize=True,
        ),
        (normal(52, 3, 4), values(1.0, 0.5, 2.0)),
        lambda x, t: torch.softmax(x / t, 0),
    )
    yield Case(
        "the analytic centre of a weighted simplex",
        al.Problem(
            lambda u, a: -u.log().sum(),
            "(n)->(n)",
            equality=lambda u, a: a @ u - 1,
            start=lambda a: torch.full_like(a, 1 / float(len(a))),
        ),
        (positive(53, 2, 3),),
        lambda a: 1 / (3 * a),
    )
    for which, index in (("top", -1), ("bottom", 0)):
        yield Case(
            f"the {which} eigenvector",
            al.Problem(
                lambda u, A: u @ A @ u, "(n,n)->(n)", equality=lambda u, A: u @ u - 1, maximize=which == "top"
            ),
            (normal(54, 3, 4, 4),),
            lambda A, i=index: torch.linalg.eigh(symmetric(A))[1][:, i],
            either_sign=True,
        )
    yield Case(
        "the top eigenvector with the norm equal to one",
        al.Problem(
            lambda u, A: u @ A @ u,
            "(n,n)->(n)",
            equality=lambda u, A: u.norm() - 1,
            start=values(1.0, 0.5, 0.2),
            maximize=True,
        ),
        (normal(55, 2, 3, 3) + torch.diag(values(3.0, 1.0, -1.0)),),
        lambda A: torch.linalg.eigh(symmetric(A))[1][:, -1],
        either_sign=True,
    )
    yield Case(
        "a generalised eigenvector",
        al.Problem(lambda u, A, B: u @ A @ u, "(n,n),(n,n)->(n)", equality=lambda u, A, B: u @ B @ u - 1),
        (symmetric(normal(56, 3, 3)), definite(57, 3)),
        lambda A, B: _generalised(symmetric(A), symmetric(B)),
        either_sign=True,
    )
    yield Case(
        "the nearest orthogonal matrix of order two",
        al.Problem(
            lambda U, M: 0.5 * (U - M).square().sum(), "(2,2)->(2,2)", equality=lambda U, M: _orthogonality(U), start=eye(2)
        ),
        (2 * eye(2) + 0.7 * normal(58, 3, 2, 2),),
        polar,
    )
    yield Case(
        "the orthogonal Procrustes problem of order three",
        al.Problem(
            lambda U, A, B: 0.5 * (U @ A - B).square().sum(),
            "(n,k),(n,k)->(n,n)",
            equality=lambda U, A, B: _orthogonality(U),
            start=lambda A, B: torch.linalg.qr(B @ A.mT)[0] @ torch.diag(torch.linalg.qr(B @ A.mT)[1].diagonal().sign()),
        ),
        (normal(59, 3, 5), normal(59, 3, 5) + 0.3 * normal(60, 3, 5)),
        lambda A, B: polar(B @ A.mT),
    )
    yield Case(
        "entropic optimal transport",
        al.Problem(
            lambda P, C, r, c: (C * P).sum() + (P * P.log()).sum(),
            "(m,n),(m),(n)->(m,n)",
            equality=lambda P, C, r, c: (P.sum(1) - r, P.sum(0)[1:] - c[1:]),
            start=lambda C, r, c: r[:, None] * c,
        ),
        (positive(61, 2, 2, 3), values(0.4, 0.6), values([0.2, 0.3, 0.5], [0.5, 0.25, 0.25])),
        _transport,
    )
    yield Case(
        "the vertex of a hyperbola",
        al.Problem(
            lambda u, x: 0.5 * u.square().sum(), "()->(2)", equality=lambda u, x: u[0] * u[1] - x, start=values(2.0, 0.5)
        ),
        (values(1.0, 2.0, 0.3),),
        lambda x: x.sqrt() * torch.ones(2, dtype=torch.float64),
    )
    yield Case(
        "a linear objective at a point that equations determine",
        al.Problem(lambda u, x, A, b: x @ u, "(n),(n,n),(n)->(n)", equality=lambda u, x, A, b: A @ u - b),
        (normal(62, 2, 3), normal(63, 2, 3, 3) + 2 * eye(3), normal(64, 2, 3)),
        lambda x, A, b: torch.linalg.solve(A, b) + 0 * x,
    )
    yield Case(
        "a Hessian that is indefinite but positive along the constraint",
        al.Problem(lambda u, x, b: u[0].square() - 2 * u[1].square() + x @ u, "(2),()->(2)", equality=lambda u, x, b: u[1] - b),
        (normal(65, 3, 2), values(1.0, -1.0, 0.0)),
        lambda x, b: torch.stack([-0.5 * x[0], b]),
    )


def _on_ellipse(x: Tensor, Q: Tensor) -> Tensor:
    direction = torch.linalg.solve(Q, x)
    return -direction / (x @ direction).sqrt()


def _on_cut(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    square = a @ a
    along = x - a * (a @ x) / square
    return a * b / square - (1 - b.square() / square).sqrt() * along / along.norm()


def _generalised(A: Tensor, B: Tensor) -> Tensor:
    lower = torch.linalg.cholesky(B)
    inner = torch.linalg.solve(lower, torch.linalg.solve(lower, A).mT)
    return torch.linalg.solve(lower.mT, torch.linalg.eigh(symmetric(inner))[1][:, 0])


def _orthogonality(U: Tensor) -> Tensor:
    n = len(U)
    index = torch.tril_indices(n, n)
    return (U.mT @ U - eye(n))[index[0], index[1]]


def _transport(C: Tensor, r: Tensor, c: Tensor) -> Tensor:
    """Return the plan as a function of all of r and of c but its first entry, which the others determine."""
    return sinkhorn(C, r, torch.cat([(r.sum() - c[1:].sum())[None], c[1:]]))


def inequalities() -> Iterator[Case]:
    """Problems with inequalities, active or not, and equalities beside them."""
    yield Case(
        "projection onto balls, from outside and from inside",
        al.Problem(half_square, "(n),()->(n)", inequality=lambda u, x, r: u @ u - r.square()),
        (values([2.0, 1.0], [0.3, 0.2], [-1.0, 3.0], [0.1, -0.5]), values(1.0, 1.0, 2.0, 0.9)),
        lambda x, r: x if bool(x.norm() < r) else r * x / x.norm(),
    )
    yield Case(
        "projection onto halfspaces, from outside and from inside",
        al.Problem(half_square, "(n),(n),()->(n)", inequality=lambda u, x, a, b: a @ u - b),
        (normal(80, 4, 3), normal(81, 4, 3), values(-1.0, 5.0, 0.1, -2.0)),
        lambda x, a, b: x - a * (a @ x - b).clamp_min(0.0) / (a @ a),
    )
    for scale in (1e-6, 1e6):
        yield Case(
            f"projection onto halfspaces whose inequality is multiplied by {scale:g}",
            al.Problem(half_square, "(n),(n)->(n)", inequality=lambda u, x, a, s=scale: s * (a @ u - 0.5)),
            (values([2.0, 1.0], [0.2, -0.1]), values([1.0, 0.5], [1.0, 1.0])),
            lambda x, a: x - a * (a @ x - 0.5).clamp_min(0.0) / (a @ a),
        )
    for scale in (1e-8, 1e8):
        yield Case(
            f"projection onto balls whose objective is multiplied by {scale:g}",
            al.Problem(
                lambda u, x, s=scale: s * half_square(u, x), "(n)->(n)", inequality=lambda u, x: u @ u - 1
            ),
            (values([2.0, 1.0], [0.2, -0.1]),),
            lambda x: x if bool(x.norm() < 1) else x / x.norm(),
        )
    yield Case(
        "a linear objective on a ball",
        al.Problem(lambda u, x, r: x @ u, "(n),()->(n)", inequality=lambda u, x, r: u @ u - r.square()),
        (normal(82, 3, 3), values(1.0, 2.0, 0.5)),
        lambda x, r: -r * x / x.norm(),
    )
    yield Case(
        "a linear program at a vertex",
        al.Problem(
            lambda u, x, b: x @ u, "(2),(3)->(2)", inequality=lambda u, x, b: torch.stack([-u[0], -u[1], u.sum()]) - b
        ),
        (values([1.0, 2.0], [-1.0, -2.0], [1.0, -3.0]), values(0.1, 0.2, 1.0)),
        lambda x, b: _triangle_vertex(x, b),
    )
    yield Case(
        "a linear objective on the ball of the fourth power",
        al.Problem(lambda u, x: x @ u, "(n)->(n)", inequality=lambda u, x: u.pow(4).sum() - 1),
        (values([1.0, -0.5, 2.0], [0.4, 0.3, -0.9]),),
        lambda x: -x.sign() * x.abs().pow(1 / 3) / x.abs().pow(4 / 3).sum().pow(0.25),
    )
    yield Case(
        "projection onto a polygon of fifty sides",
        al.Problem(half_square, "(2)->(2)", inequality=lambda u, x: POLYGON @ u - 1),
        (torch.cat([3 * POLYGON[[4, 21]], values([0.1, 0.2]), 1.5 * POLYGON[[40]]]),),
        lambda x: x - POLYGON[int((POLYGON @ x).argmax())] * ((POLYGON @ x).max() - 1).clamp_min(0.0),
    )
    yield Case(
        "projection onto the simplex with inequalities",
        al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u.sum() - 1, inequality=lambda u, x: -u),
        (normal(83, 4, 5),),
        to_simplex,
    )
    yield Case(
        "nondecreasing regression",
        al.Problem(half_square, "(n)->(n)", inequality=lambda u, x: u[:-1] - u[1:]),
        (values([1.0, 3.0, 2.0, 4.0, 3.5], [1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 2.5, 1.0, 2.0, 0.0]),),
        pool_adjacent,
    )
    yield Case(
        "a spherical cap",
        al.Problem(
            lambda u, x, b: -x @ u,
            "(n),()->(n)",
            equality=lambda u, x, b: u @ u - 1,
            inequality=lambda u, x, b: u[0] - b,
            start=lambda x, b: torch.stack([b - 0.5, 0.6 * x[1].sign(), 0.5 * x[2].sign()]),
        ),
        (values([2.0, 0.5, 1.0], [-1.0, 0.5, 1.0], [3.0, 1.0, -1.0]), values(0.2, 0.2, 0.5)),
        lambda x, b: _on_cap(x, b),
    )
    yield Case(
        "a portfolio with a required return",
        al.Problem(
            lambda u, P, mu, t: 0.5 * (u @ P @ u),
            "(n,n),(n),()->(n)",
            equality=lambda u, P, mu, t: u.sum() - 1,
            inequality=lambda u, P, mu, t: t - mu @ u,
        ),
        (definite(84, 4), values(0.1, 0.4, 0.2, 0.3), values(0.35, 0.05)),
        lambda P, mu, t: _portfolio(symmetric(P), mu, t),
    )
    yield Case(
        "a margin between two classes",
        al.Problem(
            lambda u, X: 0.5 * (u[0] @ u[0]), "(m,2)->(2),()", inequality=lambda u, X: 1 - LABELS * (X @ u[0] + u[1])
        ),
        (values([1.0, 1.2], [3.0, 2.0], [2.5, 4.0], [-1.0, -0.9], [-3.0, -2.0])[None] + 0.1 * normal(85, 2, 5, 2),),
        lambda X: _margin(X[0], X[3]),
    )
    yield Case(
        "the largest circle in a triangle",
        al.Problem(
            lambda u, A, b: u[1],
            "(m,n),(m)->(n),()",
            inequality=lambda u, A, b: A @ u[0] + u[1] * A.norm(dim=1) - b,
            maximize=True,
        ),
        (values([-1.0, 0.1], [0.2, -1.0], [1.0, 1.3]), values([0.1, 0.2, 1.0], [1.0, 0.5, 2.0])),
        lambda A, b: _split_last(torch.linalg.solve(torch.cat([A, A.norm(dim=1)[:, None]], 1), b)),
    )
    yield Case(
        "the smallest largest distance to points on a line",
        al.Problem(lambda u, x: u[1], "(m)->(),()", inequality=lambda u, x: (u[0] - x).square() - u[1]),
        (normal(86, 3, 6),),
        lambda x: (0.5 * (x.max() + x.min()), (0.5 * (x.max() - x.min())).square()),
    )
    yield Case(
        "projection onto the second-order cone",
        al.Problem(
            lambda u, x, s: 0.5 * (u[0] - x).square().sum() + 0.5 * (u[1] - s).square(),
            "(n),()->(n),()",
            inequality=lambda u, x, s: u[0].norm() - u[1],
            start=lambda x, s: (x, x.norm() + 1),
        ),
        (normal(87, 3, 3), values(0.5, 4.0, -0.4)),
        to_second_order_cone,
    )
    yield Case(
        "a nearest point of an ellipsoid",
        al.Problem(half_square, "(n),(n)->(n)", inequality=lambda u, x, d: (d * u.square()).sum() - 1),
        (values([2.0, 1.0, -1.0], [0.2, 0.1, 0.2]), values(1.0, 2.0, 3.0)),
        lambda x, d: x if bool((d * x.square()).sum() < 1) else _on_ellipsoid(x, d),
        differences=True,
    )
    yield Case(
        "a trust region about a saddle",
        al.Problem(
            quadratic, "(n,n),(n)->(n)", inequality=lambda u, P, q: u @ u - 1, start=lambda P, q: -0.9 * q / q.norm()
        ),
        (torch.diag(values(1.0, -1.0, 2.0)) + 0.1 * symmetric(normal(88, 3, 3)), values([0.5, 1.5, 0.3], [1.0, -1.0, 1.0])),
        lambda P, q: _trust_region(symmetric(P), q),
        differences=True,
    )
    yield Case(
        "two active inequalities of a matrix-shaped variable",
        al.Problem(
            lambda U, X: 0.5 * (U - X).square().sum(),
            "(m,n)->(m,n)",
            inequality=lambda U, X: U.square().sum(1) - 1,
        ),
        (2 * normal(89, 2, 3, 2),),
        lambda X: X / X.norm(dim=1, keepdim=True).clamp_min(1.0),
    )


def _triangle_vertex(x: Tensor, b: Tensor) -> Tensor:
    corners = torch.stack(
        [torch.stack([-b[0], -b[1]]), torch.stack([b[2] + b[1], -b[1]]), torch.stack([-b[0], b[2] + b[0]])]
    )
    return corners[int((corners @ x).argmin())] + 0 * x


def _on_cap(x: Tensor, b: Tensor) -> Tensor:
    if bool(x[0] / x.norm() < b):
        return x / x.norm()
    return torch.cat([b[None], (1 - b.square()).sqrt() * x[1:] / x[1:].norm()])


def _portfolio(P: Tensor, mu: Tensor, t: Tensor) -> Tensor:
    ones, zero = torch.ones(1, len(mu), dtype=torch.float64), torch.zeros_like(mu)
    free = equality_program(P, zero, ones, values(1.0))
    if bool(mu @ free > t):
        return free
    return equality_program(P, zero, torch.cat([ones, mu[None]]), torch.stack([values(1.0)[0], t]))


def _margin(plus: Tensor, minus: Tensor) -> tuple[Tensor, Tensor]:
    w = 2 * (plus - minus) / (plus - minus).square().sum()
    return w, 1 - w @ plus


def _on_ellipsoid(x: Tensor, d: Tensor) -> Tensor:
    multiplier = root(lambda t: (d * (x / (1 + t * d)).square()).sum()[None].rsqrt() - 1, values(0.1))
    return x / (1 + multiplier * d)


def _trust_region(P: Tensor, q: Tensor) -> Tensor:
    least = torch.linalg.eigvalsh(P)[0]
    shift = root(
        lambda t: 1 - 1 / torch.linalg.solve(P + t * eye(len(q)), q).norm()[None], (-least + 0.3)[None]
    )
    return -torch.linalg.solve(P + shift * eye(len(q)), q)


def bounds() -> Iterator[Case]:
    """Problems with bounds."""
    yield Case(
        "nonnegative part of a matrix",
        al.Problem(lambda U, X: 0.5 * (U - X).square().sum(), "(m,n)->(m,n)", lower=0.0),
        (normal(90, 2, 2, 3),),
        lambda X: X.clamp_min(0.0),
    )
    yield Case(
        "projection onto a box that is a parameter",
        al.Problem(half_square, "(n),(n),(n)->(n)", lower=lambda x, lo, up: lo, upper=lambda x, lo, up: up),
        (2 * normal(91, 4, 3), -positive(92, 3), positive(93, 4, 3)),
        lambda x, lo, up: torch.minimum(torch.maximum(x, lo), up),
    )
    yield Case(
        "projection onto a box with bounds that are functions of the data",
        al.Problem(half_square, "(n),()->(n)", lower=lambda x, s: -s.exp(), upper=lambda x, s: s.square()),
        (2 * normal(94, 3, 3), values(0.3, 1.0, -0.5)),
        lambda x, s: torch.minimum(torch.maximum(x, -s.exp()), s.square()),
    )
    yield Case(
        "an upper bound that is a constant vector",
        al.Problem(lambda u, x: u.exp().sum() - x @ u, "(3)->(3)", upper=values(0.0, 1.0, -0.3)),
        (3 * positive(95, 2, 3),),
        lambda x: torch.minimum(x.log(), values(0.0, 1.0, -0.3)),
    )
    yield Case(
        "bounds of ten thousand",
        al.Problem(half_square, "(n)->(n)", lower=-1e4, upper=1e4),
        (values([3e4, 2e3, -2e4], [1.0, -5e3, 1.2e4]),),
        lambda x: x.clamp(-1e4, 1e4),
    )
    yield Case(
        "equal lower and upper bounds",
        al.Problem(
            lambda u, P, q, t: quadratic(u, P, q),
            "(n,n),(n),()->(n)",
            lower=lambda P, q, t: torch.cat([t[None], torch.full_like(q[1:], -torch.inf)]),
            upper=lambda P, q, t: torch.cat([t[None], torch.full_like(q[1:], torch.inf)]),
        ),
        (definite(96, 3, 2), normal(97, 2, 3), values(0.4, -1.0)),
        lambda P, q, t: equality_program(symmetric(P), q, eye(3)[:1], t[None]),
    )
    yield Case(
        "all variables between equal bounds",
        al.Problem(half_square, "(n),(n)->(n)", lower=lambda x, t: t, upper=lambda x, t: t),
        (normal(98, 2, 3), normal(99, 2, 3)),
        lambda x, t: t + 0 * x,
    )
    yield Case(
        "projection onto the simplex with bounds",
        al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u.sum() - 1, lower=0.0),
        (normal(100, 4, 5),),
        to_simplex,
    )
    yield Case(
        "projection onto the simplex with bounds, objective times 1e-8",
        al.Problem(
            lambda u, x: 1e-8 * half_square(u, x), "(n)->(n)", equality=lambda u, x: u.sum() - 1, lower=0.0
        ),
        (normal(101, 2, 4),),
        to_simplex,
    )
    yield Case(
        "a nonnegative quadratic program",
        al.Problem(quadratic, "(n,n),(n)->(n)", lower=0.0),
        (definite(102, 3), normal(103, 4, 3)),
        lambda P, q: nonnegative_program(symmetric(P), q),
    )
    yield Case(
        "nonnegative declared least squares",
        al.least_squares(lambda u, X, y: X @ u - y, "(m,n),(m)->(n)", lower=0.0),
        (normal(104, 5, 3), normal(105, 3, 5)),
        lambda X, y: nonnegative_program(X.mT @ X, -X.mT @ y),
    )
    yield Case(
        "soft thresholding with positive and negative parts",
        al.Problem(
            lambda u, x, t: 0.5 * (u[0] - u[1] - x).square().sum() + t * (u[0] + u[1]).sum(), "(n),()->(n),(n)", lower=0.0
        ),
        (values([2.0, -1.5, 0.2], [-0.1, 0.9, 3.0]), values(0.5, 0.4)),
        lambda x, t: ((x - t).clamp_min(0.0), (-x - t).clamp_min(0.0)),
    )
    yield Case(
        "water filling with the power as a parameter",
        al.Problem(
            lambda u, noise, power: (1 + u / noise).log().sum(),
            "(n),()->(n)",
            equality=lambda u, noise, power: u.sum() - power,
            lower=0.0,
            maximize=True,
        ),
        (positive(106, 3, 4), values(0.3, 1.0, 4.0)),
        water_fill,
    )
    yield Case(
        "a knapsack with bounds on both sides",
        al.Problem(
            lambda u, x, c: 0.5 * (u - x).square().sum(),
            "(n),()->(n)",
            equality=lambda u, x, c: u.sum() - c,
            lower=0.0,
            upper=1.0,
        ),
        (values([0.9, 0.1, -0.6, 2.0], [0.3, 0.2, 0.1, 0.0]), values(2.0, 1.4)),
        lambda x, c: _capped(x, c),
    )
    yield Case(
        "bounds for one of two variables",
        al.Problem(
            lambda u, x: (u[0] - x).square().sum() + (u[1] - x.sum()).square() + u[0].sum() * u[1],
            "(n)->(n),()",
            lower=(0.0, None),
        ),
        (values([1.0, -2.0], [0.5, 0.7]),),
        lambda x: _one_bounded(x),
    )


def _capped(x: Tensor, c: Tensor) -> Tensor:
    low, high = x.min() - 2, x.max() + 2
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if bool((x - middle).clamp(0, 1).sum() > c) else (low, middle)
    inner = ((x - low) > 0) & ((x - low) < 1)
    shift = (x[inner].sum() + ((x - low) >= 1).sum() - c) / inner.sum()
    return (x - shift).clamp(0, 1)


def _one_bounded(x: Tensor) -> tuple[Tensor, Tensor]:
    P = 2 * eye(3) + values([0, 0, 1.0], [0, 0, 1.0], [1.0, 1.0, 0])
    q = -2 * torch.cat([x, x.sum()[None]])
    for free in ([0, 1, 2], [0, 2], [1, 2], [2]):
        index = torch.tensor(free)
        u = torch.zeros(3, dtype=torch.float64).index_put((index,), torch.linalg.solve(P[index][:, index], -q[index]))
        if bool((u[:2] >= 0).all()) and bool((P @ u + q)[:2].ge(-1e-12).all()):
            return _split_last(u)
    raise AssertionError("a definite program has a solution")


def feasibility() -> Iterator[Case]:
    """Roots of equations."""
    yield Case(
        "a linear system",
        al.Problem(None, "(n,n),(n)->(n)", equality=lambda u, A, b: A @ u - b),
        (normal(110, 2, 3, 3) + 2 * eye(3), normal(111, 2, 3)),
        torch.linalg.solve,
    )
    yield Case(
        "a root of a cubic",
        al.Problem(None, "()->()", equality=lambda u, x: u**3 + u - x),
        (values(0.5, 2.0, -10.0),),
        lambda x: root(lambda u: u**3 + u - x, x[None] / 3)[0],
        differences=True,
    )
    yield Case(
        "Kepler's equation",
        al.Problem(None, "(),()->()", equality=lambda u, mean, e: u - e * u.sin() - mean),
        (values(0.5, 1.5, 2.5), values(0.3)[0]),
        lambda mean, e: root(lambda u: u - e * u.sin() - mean, mean[None])[0],
        differences=True,
    )
    yield Case(
        "a fixed point of a network",
        al.Problem(None, "(n,n),(n)->(n)", equality=lambda u, W, x: u - torch.tanh(W @ u + x)),
        (0.3 * normal(112, 3, 3), normal(113, 4, 3)),
        lambda W, x: functools.reduce(lambda u, _: torch.tanh(W @ u + x), range(200), torch.zeros_like(x)),
    )
    yield Case(
        "where a circle meets a line",
        al.Problem(
            None,
            "(),()->(2)",
            equality=lambda u, r, s: torch.stack([u @ u - r.square(), u[1] - s * u[0]]),
            start=values(1.0, 1.0),
        ),
        (values(1.0, 2.0), values(0.5, -0.3)),
        lambda r, s: torch.stack([torch.ones_like(s), s]) * r / (1 + s.square()).sqrt(),
    )
    yield Case(
        "Lambert's function",
        al.Problem(None, "()->()", equality=lambda u, x: u * u.exp() - x, start=1.0),
        (values(0.5, 1.0, 3.0),),
        lambda x: root(lambda u: u * u.exp() - x, x[None].log1p())[0],
        differences=True,
    )


CASES: tuple[Case, ...] = (*unconstrained(), *equalities(), *inequalities(), *bounds(), *feasibility())
