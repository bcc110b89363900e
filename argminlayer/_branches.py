"""The KKT systems of the exact rule: what enters where constraints are weakly active or solutions not isolated."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._bound import BoundProblem
from ._certificate import KKTPoint, system_at
from ._kkt import AbstractSystem
from ._redundancy import stays_consistent
from ._solution import Certificate

HELD = {"active": (True,), "inactive": (False,), "average": (True, False)}
"""For each policy its systems, and whether weakly active constraints are held in them."""


@dataclass(frozen=True)
class _Branch:
    """A choice among the weakly active constraints: which are held, the system, and where it is consistent."""

    masks: tuple[Tensor, ...]
    system: AbstractSystem
    consistent: Tensor

    @property
    def good(self) -> Tensor:
        return self.consistent & (self.system.freedom == 0)


def branches(
    bound: BoundProblem, point: KKTPoint, degenerate: str, shift: Callable[[Tensor], Tensor] | None
) -> tuple[tuple[AbstractSystem, ...], Certificate]:
    """Return the KKT systems of the policies, and the certificate with what was found and done.

    Let W be the weakly active constraints of an instance, those whose slack and multiplier both vanish. Under LICQ the
    solution is directionally differentiable, along d as the solution of a quadratic program in which W enters as
    inequalities: depending on d some of W hold and others do not. Holding all of W, or none of it, gives two of its
    pieces; their mean lies between. An instance whose system is singular with the choice gets the other one: a
    weakly active constraint may be all that keeps a solution isolated, or may part from another that it repeats.

    Args:
        bound: the problem.
        point: the refined points of a batch.
        degenerate: a policy, one of ``HELD``.
        shift: what to add to the diagonal of a Hessian, given in how many directions its solution is free.

    Reference: Dontchev and Rockafellar, *Implicit Functions and Solution Mappings*, theorem 2G.9.
    """
    found, certificate = _branches(bound, point, degenerate)
    systems = tuple(branch.system for branch in found)
    if shift is None or not bool((certificate.freedom > 0).any()):
        return systems, certificate
    added = shift(certificate.freedom)
    regular = tuple(system_at(point, branch.masks, added) for branch in found)
    return regular, replace(certificate, regularised=added)


def _branches(bound: BoundProblem, point: KKTPoint, degenerate: str) -> tuple[list[_Branch], Certificate]:
    touched = torch.cat(point.weak, dim=-1).any(-1)
    if not bool(touched.any()):
        active = point.system.active
        masks = (active.inequality, active.at_lower, active.at_upper)
        return [_Branch(masks, point.system, point.certificate.consistent)], point.certificate
    found = [_branch(bound, point, touched, held) for held in HELD[degenerate]]
    consistent = torch.stack([branch.consistent for branch in found]).all(0)
    freedom = torch.stack([branch.system.freedom for branch in found]).amax(0)
    certificate = replace(
        point.certificate,
        redundant=found[0].system.redundant,
        freedom=freedom,
        consistent=consistent,
        regular=consistent & (freedom == 0) & point.certificate.smooth,
    )
    return found, certificate


def _branch(bound: BoundProblem, point: KKTPoint, touched: Tensor, held: bool) -> _Branch:
    """Return the branch in which weakly active constraints are held, or are not, unless only the other one is good."""
    wanted = _built(bound, point, torch.full_like(touched, held))
    bad = touched & ~wanted.good
    return _built(bound, point, bad ^ held) if bool(bad.any()) else wanted


def _built(bound: BoundProblem, point: KKTPoint, held: Tensor) -> _Branch:
    active = point.system.active
    masks = (active.inequality, active.at_lower, active.at_upper)
    chosen = tuple((m & ~weak) | (weak & held[:, None]) for m, weak in zip(masks, point.weak, strict=True))
    same = all(bool((new == old).all()) for new, old in zip(chosen, masks, strict=True))
    system = point.system if same else system_at(point, chosen)
    return _Branch(chosen, system, stays_consistent(bound, point.z, (point.nu, point.lam), system))
