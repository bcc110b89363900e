"""KKT systems without a matrix: MINRES on the tangent space of the active constraints, from products alone.

With C the active constraints and ``P = I - C'(CC')^{-1}C`` the solution is ``u = C'(CC')^{-1}c + v``, where v solves
the symmetric, perhaps indefinite system ``P H P v = P (b - H u_0)``: the projected Krylov method of Gould, Hribar and
Nocedal 2001, with MINRES (Paige and Saunders 1975). Variables are scaled by an estimate of the diagonal of H.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._kkt import AbstractSystem, ActiveRows, ActiveSet, Vector
from ._linear import SymmetricFactor
from ._matrices import AbstractMatrix

TOLERANCE = 1e-13
"""Relative residual at which MINRES stops, far below what the certificate asks for."""
ACCEPTED = 1e-8
"""Relative residual above which a solution is refused: it becomes NaN."""
ROUNDING = 1e-14
"""What a projection leaves of a vector that it should annihilate, relative to the vector."""
ROUNDS = 4
"""MINRES is started again from its own result, which removes what rounding has left, at most so often."""
LANCZOS = 40
"""Steps that look for negative curvature."""
PROBES = 8
"""Products that estimate the diagonal of the Hessian."""


@dataclass(frozen=True)
class KrylovSystem(AbstractSystem):
    """KKT systems of a batch known by their products.

    Attributes:
        hessian: H.
        equality: A, (batch, p, n).
        rows: where the active inequalities are.
        inequality: G of these, (batch, k, n), zero where not used.
        active: the active set.
        scale: of the variables, (batch, n, 1), zero where they are held at a bound.
        border: C in scaled variables, (batch, p + k, n).
        gram: factor of ``CC'``.
        negatives: number of negative Ritz values of ``P H P``, (batch,).
    """

    hessian: AbstractMatrix
    equality: Tensor
    rows: ActiveRows
    inequality: Tensor
    active: ActiveSet
    scale: Tensor
    border: Tensor
    gram: SymmetricFactor
    negatives: Tensor

    @classmethod
    def of(cls, hessian: AbstractMatrix, equality: Tensor, inequality: Tensor, active: ActiveSet) -> "KrylovSystem":
        """Prepare the projection and look for negative curvature."""
        rows = ActiveRows.of(active.inequality)
        gathered = rows.gather(inequality)
        scale = torch.where(active.fixed, 0.0, _diagonal_scale(hessian, active.fixed))[..., None]
        border = torch.cat([equality, gathered], dim=1) * scale.mT
        unused = torch.cat([torch.zeros_like(equality[..., 0]), (~rows.used).to(border.dtype)], dim=1)
        gram = SymmetricFactor.of(border @ border.mT + torch.diag_embed(unused), 0)
        plain = cls(hessian, equality, rows, gathered, active, scale, border, gram, active.count)
        return replace(plain, negatives=_negative_ritz_values(plain._tangent_product, scale))

    def solve(self, right: Vector) -> Vector:
        """See :meth:`AbstractSystem.solve`; NaN where MINRES does not come near a solution."""
        top, equality, inequality, bound = right
        fixed = self.active.fixed[..., None]
        held = torch.where(fixed, -bound, 0.0)
        gathered = self.rows.gather(inequality)
        wanted = torch.cat([equality - self.equality @ held, gathered - self.inequality @ held], dim=1)
        normal = self.border.mT @ self.gram.solve(wanted)
        force = self.scale * (top - self.hessian.times(held + self.scale * normal))
        columns = [minres(self._tangent_product, self._project(c), ROUNDING * _norm(c)) for c in force.split(1, dim=-1)]
        moved = normal + (torch.cat(columns, dim=-1) if columns else force)
        u = self.scale * moved + held
        left = top - self.hessian.times(u)
        forces = self.gram.solve(self.border @ (self.scale * left))
        a, b = forces.split([self.equality.shape[1], self.rows.count], dim=1)
        pushed = self.equality.mT @ a + self.inequality.mT @ b - left
        return u, a, self.rows.scatter(b), torch.where(fixed, pushed, 0.0)

    def _project(self, vector: Tensor) -> Tensor:
        if self.border.shape[1] == 0:
            return vector
        return vector - self.border.mT @ self.gram.solve(self.border @ vector)

    def _tangent_product(self, vector: Tensor) -> Tensor:
        inside = self._project(vector)
        return self._project(self.scale * self.hessian.times(self.scale * inside))

    @property
    def kernel(self) -> Vector:
        """See :attr:`AbstractSystem.kernel`: redundant constraints; what H annihilates is not known."""
        y, p = self.gram.kernel, self.equality.shape[1]
        u = y.new_zeros(y.shape[0], self.scale.shape[1], y.shape[-1])
        return u, y[:, :p], self.rows.scatter(y[:, p:]), u

    @property
    def negative(self) -> Tensor:
        """See :attr:`AbstractSystem.negative`; of several negative eigenvalues some may go unseen."""
        return self.negatives


def minres(product: Callable[[Tensor], Tensor], right: Tensor, noise: Tensor | float = 0.0) -> Tensor:
    """Solve symmetric systems ``M x = b`` of a batch from products, of least norm where M is singular.

    Each instance stops by itself at its own residual; one that does not come near a solution becomes NaN.

    Args:
        product: (batch, n, 1) -> (batch, n, 1).
        right: b, (batch, n, 1), in the range of M.
        noise: a right-hand side no longer than this is zero, (batch, 1, 1).

    Reference: Paige and Saunders, *Solution of sparse indefinite systems of linear equations*, 1975.
    """
    right = torch.where(_norm(right) > noise, right, 0.0)
    size = _norm(right)
    x, left = torch.zeros_like(right), right
    for _ in range(ROUNDS):
        x = x + _minres_once(product, left)
        left = right - product(x)
        if bool((_norm(left) <= 10.0 * TOLERANCE * size).all()):
            break
    return torch.where(_norm(left) <= ACCEPTED * size, x, torch.nan)


def _minres_once(product: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
    beta = _norm(right)
    target = TOLERANCE * beta
    x, older, old = (torch.zeros_like(right) for _ in range(3))
    before, vector = torch.zeros_like(right), right / _positive(beta)
    cosine, sine, cosine_before, sine_before = (torch.ones_like(beta), torch.zeros_like(beta)) * 2
    eta, residual, previous = beta, beta, torch.zeros_like(beta)
    for _ in range(2 * right.shape[1] + 10):
        image = product(vector) - previous * before
        alpha = (vector * image).sum(1, keepdim=True)
        image = image - alpha * vector
        following = _norm(image)
        rho_far = sine_before * previous
        rho_near = sine * alpha + cosine_before * cosine * previous
        delta = cosine * alpha - cosine_before * sine * previous
        rho = torch.sqrt(delta.square() + following.square())
        moving = (residual > target) & (rho > 1e-300)
        direction = (vector - rho_far * older - rho_near * old) / _positive(rho)
        cosine_before, sine_before = cosine, sine
        cosine, sine = delta / _positive(rho), following / _positive(rho)
        x = torch.where(moving, x + cosine * eta * direction, x)
        eta = -sine * eta
        residual = torch.where(moving, eta.abs(), torch.minimum(residual, target))
        older, old = old, direction
        before, vector, previous = vector, image / _positive(following), following
        if not bool(moving.any()):
            break
    return x


def _negative_ritz_values(product: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Return how many eigenvalues of the Lanczos matrix are negative beyond rounding, (batch,)."""
    index = torch.arange(1, like.shape[1] + 1, dtype=like.dtype, device=like.device)[None, :, None]
    image = product((torch.cos(1.618 * index) + torch.sin(0.7 * index)).expand_as(like))
    basis: list[Tensor] = []
    alphas, betas = [], []
    size = torch.zeros_like(_norm(image))
    for _ in range(min(LANCZOS, like.shape[1])):
        length = _norm(image)
        size = torch.maximum(size, length)
        vector = torch.where(length > 1e-8 * size, image / _positive(length), 0.0)
        basis.append(vector)
        betas.append(length[:, 0, 0])
        image = product(vector)
        alphas.append((vector * image).sum((1, 2)))
        stacked = torch.cat(basis, dim=-1)
        for _twice in range(2):
            image = image - stacked @ (stacked.mT @ image)
    if not alphas:
        return torch.zeros(like.shape[0], dtype=torch.int64, device=like.device)
    tridiagonal = torch.diag_embed(torch.stack(alphas, -1))
    beside = torch.stack(betas[1:], -1) if len(betas) > 1 else like.new_zeros(like.shape[0], 0)
    tridiagonal = tridiagonal + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
    values: Tensor = torch.linalg.eigvalsh(torch.nan_to_num(tridiagonal))
    cutoff: Tensor = -1e-8 * values.abs().amax(-1, keepdim=True)
    count: Tensor = torch.count_nonzero(values < cutoff, dim=-1)
    return count


def _diagonal_scale(hessian: AbstractMatrix, fixed: Tensor) -> Tensor:
    """Return ``1 / sqrt|diag H|`` from products with random signs (Bekas, Kokiopoulou and Saad 2007), bounded."""
    draw = torch.Generator().manual_seed(11)
    signs = torch.randint(0, 2, (fixed.shape[-1], PROBES), generator=draw).to(fixed.device) * 2.0 - 1.0
    probes = signs.to(hessian.largest().dtype).expand(len(fixed), -1, -1)
    diagonal = (probes * hessian.times(probes)).mean(-1).abs()
    typical = diagonal.mean(-1, keepdim=True)
    typical = torch.where(typical > 0, typical, 1.0)
    return diagonal.clamp_min(1e-2 * typical).rsqrt()


def _norm(vector: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
    return size


def _positive(length: Tensor) -> Tensor:
    return length.clamp_min(1e-300)
