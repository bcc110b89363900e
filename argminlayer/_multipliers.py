"""Recovery of multipliers that a solver does not return: least squares with the signs that the theory demands."""

import torch
from torch import Tensor

from ._matrices import DenseMatrix, Jacobian
from ._measures import finite
from ._sparse import recover_sparse_multipliers

CANDIDATE = 1e-3
"""An inequality or bound further away than this, over ``1 + |u|``, cannot be active."""


def recover(
    gradient: Tensor, equality: Jacobian, inequality: Jacobian, slack: Tensor, lower: Tensor, upper: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the multipliers (nu, lambda) for Jacobians of any form; see :func:`recover_multipliers`."""
    if isinstance(equality, DenseMatrix) and isinstance(inequality, DenseMatrix):
        dense = finite(equality.entries), finite(inequality.entries)
        return recover_multipliers(gradient, *dense, slack, lower, upper)
    return recover_sparse_multipliers(gradient, equality, inequality, (slack, lower, upper), CANDIDATE)


def recover_multipliers(
    gradient: Tensor, equality: Tensor, inequality: Tensor, slack: Tensor, lower: Tensor, upper: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the multipliers (nu, lambda) that explain the gradient best with the constraints that may be active.

    Minimises over ``nu`` free and ``lambda, z_lo, z_up >= 0``

        |grad f + A'nu + G'lambda - z_lo + z_up|^2 + sum (slack_i lambda_i |grad g_i|)^2,

    the least-squares formula of Gould et al. 2021, eq. 25, with signs, where the last term (far below rounding for an
    active constraint of an accurate solution) prefers the nearer of two that explain the gradient equally well.

    Args:
        gradient: of the objective, (batch, n).
        equality: Jacobian A, (batch, p, n).
        inequality: Jacobian G, (batch, q, n).
        slack: scaled distances to the inequalities, (batch, q).
        lower: scaled distances to the lower bounds, (batch, n), infinite without a bound.
        upper: the same to the upper bounds.

    Returns:
        nu (batch, p) and lambda (batch, q).
    """
    rows, distance, free = _candidate_rows(equality, inequality, slack, lower, upper)
    if rows.shape[1] == 0:
        return gradient.new_zeros(equality.shape[:2]), gradient.new_zeros(inequality.shape[:2])
    length = torch.linalg.vector_norm(rows, dim=-1)
    unit = rows / torch.where(length > 0, length, 1.0)[..., None]
    gram = unit @ unit.mT + torch.diag_embed(torch.where(free, 0.0, distance) ** 2)
    weight = _nonnegative_least_squares(gram, -(unit @ gradient[..., None])[..., 0], free, length > 0)
    weight = weight / torch.where(length > 0, length, 1.0)
    p, q = equality.shape[1], inequality.shape[1]
    return weight[:, :p], weight[:, p : p + q]


def _candidate_rows(
    equality: Tensor, inequality: Tensor, slack: Tensor, lower: Tensor, upper: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Stack the normals of all constraints that may be active, (batch, r, n); those that may not are zero rows."""
    batch, p, n = equality.shape
    near = slack <= CANDIDATE
    parts = [equality, inequality * near[..., None]]
    distances = [slack.new_zeros(batch, p), torch.where(near, slack, 0.0)]
    for bound, sign in ((lower, -1.0), (upper, 1.0)):
        held = bound <= CANDIDATE
        k = int(held.sum(-1).max()) if held.numel() else 0
        if k:
            index = torch.argsort(held.to(torch.int8), dim=-1, descending=True, stable=True)[:, :k]
            used = held.gather(-1, index)
            one_hot = torch.nn.functional.one_hot(index, n).to(equality.dtype)
            parts.append(sign * one_hot * used[..., None])
            distances.append(torch.where(used, bound.gather(-1, index), 0.0))
    rows = torch.cat(parts, dim=1)
    free = torch.zeros(batch, rows.shape[1], dtype=torch.bool, device=rows.device)
    free[:, :p] = True
    return rows, torch.cat(distances, dim=1), free


def _nonnegative_least_squares(gram: Tensor, target: Tensor, free: Tensor, exists: Tensor) -> Tensor:
    """Minimise ``w'gram w / 2 - target'w`` with ``w >= 0`` except where ``free``, for a batch at once.

    An active-set method: start with all rows, leave out the most negative, take in the one that gains most. All
    instances move together; each stops by itself, and all stop after a number of rounds that is never met in practice.
    """
    passive = exists.clone()
    weight = target
    tolerance = 1e-12 * target.abs().amax(-1, keepdim=True)
    for _ in range(3 * gram.shape[-1] + 3):
        weight = _least_squares(gram, target, passive)
        worst, leaving = torch.where(passive & ~free, weight, torch.inf).min(-1, keepdim=True)
        slope = target - (gram @ weight[..., None])[..., 0]
        gain, entering = torch.where(exists & ~passive, slope, -torch.inf).max(-1, keepdim=True)
        leave = worst < -tolerance
        enter = ~leave & (gain > 1e3 * tolerance)
        if not bool((leave | enter).any()):
            break
        passive = passive.scatter(-1, leaving, passive.gather(-1, leaving) & ~leave)
        passive = passive.scatter(-1, entering, passive.gather(-1, entering) | enter)
    return torch.where(free, weight, weight.clamp_min(0.0))


def _least_squares(gram: Tensor, target: Tensor, passive: Tensor) -> Tensor:
    """Solve the normal equations on the passive rows with minimum norm; the other entries are zero."""
    keep = passive.to(gram.dtype)
    masked = gram * keep[..., :, None] * keep[..., None, :]
    values, vectors = torch.linalg.eigh(masked)
    cutoff = 1e-14 * gram.shape[-1] * values.abs().amax(-1, keepdim=True)
    inverse = torch.where(values > cutoff, 1.0 / torch.where(values > cutoff, values, 1.0), 0.0)
    coordinates = (vectors.mT @ (target * keep)[..., None])[..., 0]
    weight: Tensor = (vectors @ (inverse * coordinates)[..., None])[..., 0]
    return weight * keep
