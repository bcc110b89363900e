"""Backward rules as values: how a cotangent of the solution is pulled back to the parameters."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._errors import NotDifferentiable
from ._functions import Functions, jacobian, lagrangian_gradient, lagrangian_hessian
from ._kkt import KKTSystem
from ._layout import Layout


@dataclass(frozen=True)
class Node:
    """What the backward of one solved batch needs, and nothing of the solver that found it.

    Attributes:
        functions: the problem's functions and layout.
        system: the KKT system at the solution.
        anchor: where derivatives are taken, (batch, n): the refined point, which a value attached by the caller may
            miss by its own error.
        solved: instances that have a gradient, (batch,).
        regular: instances whose KKT matrix is regular, (batch,).
        throw: raise on an instance that is solved but not regular, rather than return NaN.
    """

    functions: Functions
    system: KKTSystem
    anchor: Tensor
    solved: Tensor
    regular: Tensor
    throw: bool

    @property
    def layout(self) -> Layout:
        """Shapes and batch."""
        return self.functions.layout


class AbstractBackward(abc.ABC):
    """A backward rule: a frozen value that pulls cotangents of a solution back to the parameters."""

    @abc.abstractmethod
    def vjp(
        self, node: Node, outputs: tuple[Tensor, ...], parameters: Sequence[Tensor], cotangents: tuple[Tensor, ...]
    ) -> tuple[Tensor | None, ...]:
        """Pull cotangents of (z, nu, lambda, zeta) back to the parameters, None for those that need no gradient."""


@dataclass(frozen=True)
class KKT(AbstractBackward):
    """The exact derivative, by the implicit function theorem on the KKT conditions.

    With ``F(w, x) = 0`` the KKT conditions of the active constraints at ``w = (z, nu, lambda, zeta)``,

        x_bar = -(dF/dx)' v,   where   K v = w_bar,   K = dF/dw symmetric,

    so that all parameters together cost one solve with the KKT matrix and one vector-Jacobian product; the Jacobian
    of the solution is never formed. Only K must be regular, not the Hessian of the Lagrangian. Weakly active
    constraints count as active, which makes the derivative one-sided; the certificate reports them.

    Reference: Gould, Hartley and Campbell, *Deep Declarative Networks*, propositions 4.5 and 4.6, sec. 6.
    """

    def vjp(
        self, node: Node, outputs: tuple[Tensor, ...], parameters: Sequence[Tensor], cotangents: tuple[Tensor, ...]
    ) -> tuple[Tensor | None, ...]:
        """Pull cotangents of (z, nu, lambda, zeta) back to the parameters; differentiable when grad is enabled.

        Raises:
            NotDifferentiable: a cotangent meets an instance whose KKT matrix is singular, and the node throws.
        """
        _refuse_singular(node, cotangents)
        z, nu, lam = (_shifted(node, outputs[0]), *outputs[1:3])
        system = _differentiable_system(node, z, nu, lam, parameters) if torch.is_grad_enabled() else node.system
        active = system.active
        z_bar, nu_bar, lam_bar, zeta_bar = cotangents
        held = torch.where(active.fixed, -zeta_bar, 0.0)
        w_z, w_nu, w_lam, w_zeta = system.solve(z_bar, nu_bar, active.gather(lam_bar), held)
        full = (w_z, w_nu, active.scatter(w_lam, lam.shape[-1]), w_zeta)
        weights = tuple(_mark_failed(node, weight, cotangents) for weight in full)
        return _parameter_vjp(node, (z, nu, lam), parameters, weights)


def _shifted(node: Node, z: Tensor) -> Tensor:
    """Return the anchor as a function of the output ``z``, at a harmless point where there is no solution."""
    anchor = torch.where(node.solved[:, None], node.anchor, 0.5)
    return z + (anchor - z).detach() if torch.is_grad_enabled() else anchor


def _differentiable_system(node: Node, z: Tensor, nu: Tensor, lam: Tensor, parameters: Sequence[Tensor]) -> KKTSystem:
    prepared = node.layout.prepare(parameters)
    hessian = lagrangian_hessian(node.functions, z, nu, lam, prepared)
    equality = jacobian(node.functions.equality, z, prepared)
    inequality = jacobian(node.functions.inequality, z, prepared)
    return KKTSystem.assemble(hessian, equality, inequality, node.system.active, node.system.factor)


def _parameter_vjp(
    node: Node,
    point: tuple[Tensor, Tensor, Tensor],
    parameters: Sequence[Tensor],
    weights: tuple[Tensor, ...],
) -> tuple[Tensor | None, ...]:
    """Return ``-(dF/dx)' v``: one gradient of ``v'F`` in the parameters, everything else held constant."""
    create_graph = torch.is_grad_enabled()
    functions, (w_z, w_nu, w_lam, w_zeta) = node.functions, weights
    with torch.enable_grad():
        aliases = [_alias(p, create_graph) for p in parameters]
        z = point[0].clone() if point[0].requires_grad else point[0].detach().requires_grad_()
        nu, lam = point[1:]
        prepared = node.layout.prepare(aliases)
        total = (w_z * lagrangian_gradient(functions, z, nu, lam, prepared)).sum()
        if functions.problem.equality is not None:
            total = total + (w_nu * functions.equality(z, prepared)).sum()
        if functions.problem.inequality is not None:
            total = total + (w_lam * functions.inequality(z, prepared)).sum()
        for which, held in (("lower", node.system.active.at_lower), ("upper", node.system.active.at_upper)):
            if callable(getattr(functions.problem, which)):
                bound = torch.where(held, functions.bound(which, prepared), 0.0)
                total = total + (torch.where(held, w_zeta, 0.0) * bound).sum()
        wanted = [alias for alias in aliases if alias.requires_grad]
        found = iter(_gradients(total, wanted, create_graph))
    return tuple(-next(found) if alias.requires_grad else None for alias in aliases)


def _alias(tensor: Tensor, create_graph: bool) -> Tensor:
    """Return a tensor equal to the one given, in which partial derivatives can be taken if it requires grad."""
    if not tensor.requires_grad:
        return tensor
    return tensor.clone() if create_graph else tensor.detach().requires_grad_()


def _gradients(total: Tensor, wanted: list[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    if not total.requires_grad:
        return tuple(torch.zeros_like(tensor) for tensor in wanted)
    return torch.autograd.grad(total, wanted, create_graph=create_graph, materialize_grads=True)


def _touched(cotangents: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([(c != 0).any(-1) for c in cotangents]).any(0)


def _mark_failed(node: Node, weight: Tensor, cotangents: tuple[Tensor, ...]) -> Tensor:
    """Make the gradient of a failed instance NaN where a cotangent reaches it, zero where none does."""
    if bool((node.solved & node.regular).all()):
        return weight
    bad = ~(node.solved & node.regular)
    mark = torch.where(_touched(cotangents), torch.nan, 0.0).to(weight.dtype)
    return torch.where(bad[:, None], mark[:, None], weight)


def _refuse_singular(node: Node, cotangents: tuple[Tensor, ...]) -> None:
    singular = node.solved & ~node.regular
    if node.throw and bool(singular.any()):
        met = singular & _touched(cotangents)
        if bool(met.any()):
            raise NotDifferentiable(_why_singular(node, met))


def _why_singular(node: Node, met: Tensor) -> str:
    first = int(met.nonzero()[0])
    system, active = node.system, node.system.active
    identity = torch.eye(system.hessian.shape[-1], dtype=system.hessian.dtype, device=system.hessian.device)
    normals = torch.cat(
        [system.equality[first], system.inequality[first][active.used[first]], identity[active.fixed[first]]]
    )
    rank = int(torch.linalg.matrix_rank(normals, rtol=1e-8)) if len(normals) else 0
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(first), node.layout.batch_shape))
    where = f" at batch index {index}" if index else ""
    if rank < len(normals):
        reason = (
            f"its {len(normals)} active constraints have gradients of rank {rank} only (LICQ fails: constraints are "
            "redundant or tangent); remove the dependent ones"
        )
    else:
        reason = (
            "the Hessian of the Lagrangian is singular on the tangent space of the active constraints, so the solution "
            "is not isolated; add a regulariser to the objective, or constraints that single out one solution"
        )
    return (
        f"{int(met.sum())} of {node.layout.batch} solutions have no derivative; the first{where}: {reason}. Pass "
        "`throw=False` to get NaN gradients for these instances only"
    )
