"""Backward rules as values: how tangents and cotangents of a solution and of its parameters are related."""

import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ._adjoint import Adjoint
from ._autodiff import gradient
from ._bound import BoundProblem
from ._branches import branches
from ._certificate import KKTPoint
from ._errors import NotDifferentiable
from ._functions import Functions
from ._kkt import AbstractSystem
from ._layout import fill_floats, floats_of
from ._proximal import Proximal
from ._replay import REPLAYS
from ._solution import Certificate

Parameters = tuple[Tensor, ...]

KINK = (
    "the gradient of the objective, or of an active constraint, jumps at the solution (an absolute value or a norm at "
    "zero, a tie of a maximum), so that derivatives taken there say nothing of how the solution moves; write the kink "
    "as constraints (minimise t with t >= u and t >= -u in the place of |u|), or smooth it, for example as "
    "`(u * u + 1e-6).sqrt()`"
)


@dataclass(frozen=True)
class Node:
    """What the derivative of one solved batch needs, and nothing of the solver that found it.

    Attributes:
        functions: the problem's functions and layout.
        z: where derivatives are taken, (batch, n), as a differentiable function of the parameters when grad is enabled.
        nu: multipliers of the equalities, (batch, p), likewise.
        lam: multipliers of the inequalities, (batch, q), likewise.
        zeta: ``z_lo - z_up``, (batch, n), likewise.
        at_lower: which variables are held at their lower bound, (batch, n).
        at_upper: which variables are held at their upper bound, (batch, n).
        adjoints: the KKT systems there, of which the derivative is the mean.
    """

    functions: Functions
    z: Tensor
    nu: Tensor
    lam: Tensor
    zeta: Tensor
    at_lower: Tensor
    at_upper: Tensor
    adjoints: tuple[Adjoint, ...]

    def solve(self, parameters: Parameters, right: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Return the mean of the solutions of the KKT systems; see :meth:`Adjoint.solve`."""
        each = [adjoint.solve((self.z, self.nu, self.lam), parameters, right) for adjoint in self.adjoints]
        return each[0] if len(each) == 1 else tuple(torch.stack(parts).mean(0) for parts in zip(*each, strict=True))


@dataclass(frozen=True)
class Anchor:
    """Where derivatives are taken: variables and multipliers, named as in :class:`Node`."""

    z: Tensor
    nu: Tensor
    lam: Tensor
    zeta: Tensor


@dataclass(frozen=True)
class Linearization:
    """What a rule computes once at a solved batch.

    Attributes:
        anchor: where derivatives are taken; it moves with the parameters as the rule says that the solution does.
        systems: the KKT systems there, of which the derivative is the mean.
        differentiable: which of the solved instances the rule differentiates, (batch,).
        certificate: that of the point, with what the rule did.
    """

    anchor: Anchor
    systems: tuple[AbstractSystem, ...]
    differentiable: Tensor
    certificate: Certificate


class AbstractBackward(abc.ABC):
    """A backward rule: a frozen value that relates derivatives of a solution to those of its parameters.

    ``vjp`` and ``jvp`` are differentiable when grad is enabled, and run inside ``torch.func`` transforms.
    """

    @abc.abstractmethod
    def linearize(self, bound: BoundProblem, point: KKTPoint) -> Linearization:
        """Return what the derivative needs, given the refined points of a batch, solved or not."""

    def view(self, node: Node, parameters: Parameters) -> Node:
        """Return the node as the rule sees it, for :meth:`vjp`, :meth:`jvp` and the optimal value; as it is."""
        del parameters
        return node

    @abc.abstractmethod
    def reason(self, node: Node, certificate: Certificate, first: int) -> str:
        """Return why the instance at position ``first`` is not differentiated, and what to try."""

    @abc.abstractmethod
    def vjp(self, node: Node, parameters: Parameters, cotangents: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """Pull cotangents of (z, nu, lambda, zeta) back to the parameters, None for those that are not floats."""

    @abc.abstractmethod
    def jvp(self, node: Node, parameters: Parameters, tangents: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        """Push tangents of the parameters (None means zero) forward to (z, nu, lambda, zeta)."""


class KKTRule(AbstractBackward):
    """A rule that solves systems like the KKT system: the derivative in x of conditions ``F(w, x) = 0`` is the same."""

    def vjp(self, node: Node, parameters: Parameters, cotangents: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """Pull cotangents of (z, nu, lambda, zeta) back: ``x_bar = -(dF/dx)' K^{-1} w_bar``."""
        z_bar, nu_bar, lam_bar, zeta_bar = cotangents
        weights = node.solve(parameters, (z_bar, nu_bar, lam_bar, zeta_bar))
        return _pull_weighted(node, weights, parameters)

    def jvp(self, node: Node, parameters: Parameters, tangents: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        """Push tangents of the parameters forward to (z, nu, lambda, zeta): ``w_dot = -K^{-1} (dF/dx) x_dot``.

        ``(dF/dx) x_dot`` is the derivative in v of ``<d(v'F)/dx, x_dot>``, so that reverse mode alone serves.
        """
        like = (node.z, node.nu, node.lam, node.zeta)
        d_slope, d_h, d_g, d_bound = _push(lambda v, x: _weighted(node, v, x), like, parameters, tangents)
        return node.solve(parameters, (-d_slope, -d_h, -d_g, -d_bound))


@dataclass(frozen=True)
class KKT(KKTRule):
    """The exact derivative, by the implicit function theorem on the KKT conditions.

    With ``F(w, x) = 0`` the KKT conditions of the active constraints at ``w = (z, nu, lambda, zeta)``,

        x_bar = -(dF/dx)' K^{-1} w_bar,      w_dot = -K^{-1} (dF/dx) x_dot,      K = dF/dw symmetric,

    so that in reverse mode all parameters together cost one solve with the KKT matrix and one vector-Jacobian
    product; the Jacobian of the solution is never formed. Only K must be regular, not the Hessian of the Lagrangian.

    At a weakly active constraint (slack and multiplier both zero) the solution has a kink, and ``degenerate`` chooses
    the constraints that enter K: with it, without it, or the mean of both derivatives. Each is an element of the
    generalized Jacobian, entrywise between the derivatives from the two sides. Where the system of the choice is
    singular the other one is taken. The certificate counts such constraints and reports the margin.

    A singular K is solved by its generalized inverse. Redundant constraints that stay redundant do no harm: the result
    is that of the problem without them, and the multipliers are those of least norm. Where the solution is not
    isolated, ``singular`` decides. A feasibility problem without an isolated solution always follows the constraint
    surface by the least movement.

    Attributes:
        singular: ``"raise"``; ``"minimum-norm"``: the derivative of least norm (Gould et al. 2021, eq. 38); or
            ``al.proximal(delta)``: K with ``H + delta I`` in these instances, reported in ``certificate.regularised``.
        degenerate: ``"active"``, ``"inactive"`` or ``"average"``.

    Reference: Gould, Hartley and Campbell, *Deep Declarative Networks*, propositions 4.5 and 4.6, sec. 4.7 and 6.
    """

    singular: Literal["raise", "minimum-norm"] | Proximal = "raise"
    degenerate: Literal["active", "inactive", "average"] = "active"

    def __post_init__(self) -> None:
        """Refuse unknown policies."""
        if self.singular not in ("raise", "minimum-norm") and not isinstance(self.singular, Proximal):
            raise ValueError(f"singular must be 'raise', 'minimum-norm' or al.proximal(delta), not {self.singular!r}")
        if self.degenerate not in ("active", "inactive", "average"):
            raise ValueError(f"degenerate must be 'active', 'inactive' or 'average', not {self.degenerate!r}")

    def linearize(self, bound: BoundProblem, point: KKTPoint) -> Linearization:
        """Return the systems of the policies, and which instances have a derivative under them."""
        shift = self.singular.shift if isinstance(self.singular, Proximal) else None
        systems, certificate = branches(bound, point, self.degenerate, shift)
        follow = self.singular == "minimum-norm" or bound.problem.objective is None
        isolated = (certificate.freedom == 0) | (certificate.regularised > 0) | follow
        anchor = Anchor(point.z, point.nu, point.lam, point.zeta)
        return Linearization(anchor, systems, certificate.consistent & isolated, certificate)

    def reason(self, node: Node, certificate: Certificate, first: int) -> str:
        """Return why the instance at position ``first`` has no derivative."""
        if not bool(certificate.consistent[first]):
            count = int(certificate.active[first]) + node.nu.shape[-1]
            return (
                f"LICQ fails: of its {count} active constraints {int(certificate.redundant[first])} are redundant, and "
                "they do not stay redundant when the parameters move, so that the active set would change; remove one, "
                "or write them so that they depend on the parameters in the same way"
            )
        return (
            f"the solution is not isolated: it may move in {int(certificate.freedom[first])} independent directions "
            "(the Hessian of the Lagrangian is singular on the tangent space of the active constraints); add a "
            "regulariser to the objective, or constraints that single out one solution, or take the derivative of "
            'least norm with `backward=al.KKT(singular="minimum-norm")`, or that of a regularised problem with '
            "`backward=al.KKT(singular=al.proximal(1e-6))`"
        )


def envelope_vjp(node: Node, parameters: Parameters, value_bar: Tensor) -> tuple[Tensor | None, ...]:
    """Pull a cotangent (batch,) of the optimal value back to the parameters, without solving a system.

    By the envelope theorem the derivative of the optimal value is the partial derivative of the Lagrangian in the
    parameters (Gould et al. 2021, eq. 10): it exists where the solution's own derivative need not.
    """
    return _pull(lambda x: (value_bar * _lagrangian(node, x)).sum(), parameters)


def envelope_jvp(node: Node, parameters: Parameters, tangents: tuple[Tensor | None, ...]) -> Tensor:
    """Push tangents of the parameters forward to the optimal value, (batch,)."""
    like = (node.z.sum(-1),)
    return _push(lambda v, x: (v[0] * _lagrangian(node, x)).sum(), like, parameters, tangents)[0]


def _lagrangian(node: Node, parameters: Parameters) -> Tensor:
    """Return the Lagrangian of every instance, (batch,), up to what does not depend on the parameters."""
    smooth = node.functions.lagrangian(node.z, node.nu, node.lam, parameters)
    return smooth + _bound_terms(node, node.zeta, parameters)


def _bound_terms(node: Node, weight: Tensor, parameters: Parameters) -> Tensor:
    """Return the bounds that depend on parameters and are held, weighted and summed, (batch,)."""
    functions = node.functions
    total = torch.zeros_like(weight.sum(-1))
    for which, held in (("lower", node.at_lower), ("upper", node.at_upper)):
        if callable(getattr(functions.problem, which)):
            bound = torch.where(held, functions.bound(which, parameters), 0.0)
            total = total + (torch.where(held, weight, 0.0) * bound).sum(-1)
    return total


def _pull(function: Callable[[Parameters], Tensor], parameters: Parameters) -> tuple[Tensor | None, ...]:
    """Return the gradient of a scalar function of the parameters, None for those that are not floats."""
    pulled = iter(gradient(lambda *x: function(fill_floats(parameters, x)), *floats_of(parameters)))
    return tuple(next(pulled) if p.is_floating_point() else None for p in parameters)


def _pull_weighted(node: Node, weights: tuple[Tensor, ...], parameters: Parameters) -> tuple[Tensor | None, ...]:
    """Return ``-(dF/dx)' v``, from a recording where there is one."""
    fixed = (node.z, node.nu, node.lam, node.zeta, node.at_lower, node.at_upper)

    def program(*tensors: Tensor) -> tuple[Tensor, ...]:
        x, at, v = tensors[: len(parameters)], tensors[len(parameters) : -4], tensors[-4:]
        z, nu, lam, zeta, below, above = at
        there = replace(node, z=z, nu=nu, lam=lam, zeta=zeta, at_lower=below, at_upper=above)
        return tuple(g for g in _pull(lambda y: -_weighted(there, v, y), x) if g is not None)

    key = ("weighted", node.functions.key)
    pulled = iter(REPLAYS.run(node.functions.problem, key, program, (*parameters, *fixed, *weights), len(weights)))
    return tuple(next(pulled) if p.is_floating_point() else None for p in parameters)


def _push(
    function: Callable[[tuple[Tensor, ...], Parameters], Tensor],
    like: tuple[Tensor, ...],
    parameters: Parameters,
    tangents: tuple[Tensor | None, ...],
) -> tuple[Tensor, ...]:
    """Return the derivative along ``tangents`` of F, given ``(v, x) -> v'F(x)``, v in the shapes of ``like``."""
    pairs = zip(parameters, tangents, strict=True)
    dots = [torch.zeros_like(p) if t is None else t for p, t in pairs if p.is_floating_point()]

    def along(*weights: Tensor) -> Tensor:
        partials = gradient(lambda *x: function(weights, fill_floats(parameters, x)), *floats_of(parameters))
        return torch.stack([(g * dot).sum() for g, dot in zip(partials, dots, strict=True)]).sum()

    return gradient(along, *map(torch.zeros_like, like))


def _weighted(node: Node, weights: tuple[Tensor, ...], parameters: Parameters) -> Tensor:
    """Return ``v'F`` as a function of the parameters, everything else held constant."""
    *smooth, w_zeta = weights
    w_z, w_nu, w_lam = smooth
    total = node.functions.weighted(node.z, node.nu, node.lam, parameters, (w_z, w_nu, w_lam))
    return total + _bound_terms(node, w_zeta, parameters).sum()


def refuse(
    rule: AbstractBackward, node: Node, certificate: Certificate, refused: Tensor, cotangents: tuple[Tensor, ...]
) -> None:
    """Raise if a cotangent reaches an instance that the rule refuses to differentiate.

    Raises:
        NotDifferentiable: names the first instance and the reason.
    """
    met = refused & torch.stack([(c != 0).any(-1) for c in cotangents]).any(0)
    if not bool(met.any()):
        return
    layout, first = node.functions.layout, int(met.nonzero()[0])
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(first), layout.batch_shape))
    where = f" at batch index {index}" if index else ""
    reason = rule.reason(node, certificate, first) if bool(certificate.smooth[first]) else KINK
    raise NotDifferentiable(
        f"{int(met.sum())} of {layout.batch} solutions have no derivative; the first{where}: {reason}. Pass "
        "`throw=False` to get NaN gradients for these instances only"
    )
