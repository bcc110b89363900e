"""The backward rule that ignores the constraints: cheap, and wrong by an angle that can be measured."""

from dataclasses import dataclass, replace

import torch

from ._backward import Anchor, KKTRule, Linearization, Node
from ._bound import BoundProblem
from ._certificate import KKTPoint
from ._factorise import factorise
from ._kkt import AbstractSystem, ActiveSet, Vector
from ._matrices import DenseMatrix
from ._solution import Certificate


@dataclass(frozen=True)
class IgnoreConstraints(KKTRule):
    """An approximation of the derivative that leaves the constraints out: the KKT matrix is the Hessian alone.

    With H the Hessian of the Lagrangian in u and B its mixed derivative in u and x, both at the solution with its
    multipliers, and C the derivative of the active constraints in x,

        x_bar = -B' H^{-1} y_bar        in place of        x_bar = -[B' C'] K^{-1} [y_bar; 0].

    Where no constraint is active it is exact. For constraints that do not depend on x the exact rule projects
    ``H^{-1} y_bar`` onto their tangent space, in the metric of H, and this one does not: it keeps the part of
    ``y_bar`` that pushes the solution against its constraints, and is a direction of descent of the loss as long as
    that part does not dominate. :func:`compare_backward` measures the angle. Redundant, dependent and weakly active
    constraints do not matter to it, and neither does how constraints depend on x but for their multipliers' share in
    H and B. Multipliers are taken for constants: their derivative is zero. H must be regular by itself, which it
    is not for a linear objective under linear constraints.

    Reference: Gould, Xu, Xu and Liu, *Towards understanding gradient approximation in equality constrained deep
    declarative networks*, 2023.
    """

    def linearize(self, bound: BoundProblem, point: KKTPoint) -> Linearization:
        """Return the Hessian as a system, and where it is regular."""
        system = _HessianAlone.at(bound, point)
        certificate = replace(
            point.certificate,
            redundant=torch.zeros_like(point.certificate.redundant),
            freedom=system.freedom,
            consistent=torch.ones_like(point.certificate.consistent),
            regular=(system.freedom == 0) & point.certificate.smooth,
        )
        anchor = Anchor(point.z, point.nu, point.lam, point.zeta)
        return Linearization(anchor, (system,), system.freedom == 0, certificate)

    def reason(self, node: Node, certificate: Certificate, first: int) -> str:
        """Return why the instance at position ``first`` has no derivative under this rule."""
        del node
        return (
            "al.IgnoreConstraints() needs a regular Hessian of the Lagrangian, but it is singular in "
            f"{int(certificate.freedom[first])} directions; use `backward=al.KKT()`, which needs only the KKT matrix "
            "to be regular, or add a regulariser to the objective"
        )


@dataclass(frozen=True)
class _HessianAlone(AbstractSystem):
    """``H u = top``, whatever the constraints.

    Attributes:
        active: without any constraint.
        hessian: the system without rows of constraints.
        equalities: number of equality constraints, p.
    """

    active: ActiveSet
    hessian: AbstractSystem
    equalities: int

    @classmethod
    def at(cls, bound: BoundProblem, point: KKTPoint) -> "_HessianAlone":
        none = torch.zeros_like(point.z, dtype=torch.bool)
        rows = DenseMatrix(point.z[:, None, :][:, :0])
        alone = factorise(point.matrices[0], rows, rows, ActiveSet(none[:, :0], none, none))
        return cls(ActiveSet(torch.zeros_like(point.lam, dtype=torch.bool), none, none), alone, bound.equalities)

    def solve(self, right: Vector) -> Vector:
        top, *rest = right
        u = self.hessian.solve((top, top[:, :0], top[:, :0], torch.zeros_like(top)))[0]
        equality, inequality, held = map(torch.zeros_like, rest)
        return u, equality, inequality, held

    @property
    def kernel(self) -> Vector:
        u, *_ = self.hessian.kernel
        batch, _, columns = u.shape
        empty = (u.new_zeros(batch, rows, columns) for rows in (self.equalities, self.active.inequality.shape[-1]))
        return u, *empty, torch.zeros_like(u)  # type: ignore[return-value]

    @property
    def negative(self) -> torch.Tensor:
        return self.hessian.negative
