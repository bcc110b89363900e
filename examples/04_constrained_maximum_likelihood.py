"""Differentiate the most likely point of a soft-max classifier, without and with constraints.

    g(A, b) = argmax_u  log softmax(A u + b)ᵢ        (no constraint),    Σ u = 1,    or    |u|² ≤ 1

The objective is concave, but its maximiser has no closed form (Gould et al. 2016, sec. 3.3 and 4.4). Ten classes in the
plane; i is a class whose row of A lies among the others, so that the maximum without constraints exists.

Takes a few seconds. Prints each solution and the largest difference of its Jacobian in A from one obtained by hand:
equations 33 and 74 of the paper for the first two, and the derivative of the angle on the unit circle for the third,
for which the paper has a log-barrier approximation only.
"""

import torch
from torch import Tensor

import argminlayer as al

CHOSEN = 0


def log_likelihood(u: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """Return the log-likelihood of the chosen class at the point u."""
    return torch.log_softmax(A @ u + b, dim=0)[CHOSEN]


def classifier() -> tuple[Tensor, Tensor]:
    """Return A, with the chosen class among the others, and b, which puts its most likely point outside the disc."""
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(10, 2, dtype=torch.float64, generator=generator)
    A[CHOSEN] = A[1:].mean(0)
    noise = torch.randn(10, dtype=torch.float64, generator=generator)
    return A, 0.3 * noise - A @ torch.tensor([1.2, 0.9], dtype=torch.float64)


free = al.Problem(log_likelihood, "(m,n),(m)->(n)", maximize=True)
on_line = al.Problem(log_likelihood, "(m,n),(m)->(n)", equality=lambda u, A, b: u.sum() - 1, maximize=True)
in_ball = al.Problem(log_likelihood, "(m,n),(m)->(n)", inequality=lambda u, A, b: u @ u - 1, maximize=True)


def by_the_paper(u: Tensor, A: Tensor, b: Tensor, normal: Tensor | None) -> Tensor:
    """Return dg/dA (n, m, n) by equation 33, or 74 with the equality ``normal' u`` = constant."""
    likelihood = torch.softmax(A @ u + b, dim=0)
    mean = likelihood @ A
    hessian = torch.outer(mean, mean) - (A.mT * likelihood) @ A
    inverse = torch.linalg.inv(hessian)
    if normal is not None:
        step = inverse @ normal
        inverse = inverse - torch.outer(step, step) / (normal @ step)
    # entry (j, k, :) is what H⁻¹ is applied to for the derivative in a_jk
    right = likelihood[:, None, None] * (u[None, :, None] * (A - mean)[:, None, :] + torch.eye(2, dtype=u.dtype))
    right[CHOSEN] = (likelihood[CHOSEN] - 1) * torch.eye(2, dtype=u.dtype)
    return torch.einsum("ln,jkn->ljk", inverse, right)


def by_the_angle(u: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """Return dg/dA for a point on the unit circle: u = (cos t, sin t) and dt/dA = −f_tA / f_tt."""

    def around(t: Tensor, A: Tensor) -> Tensor:
        return log_likelihood(torch.stack([t.cos(), t.sin()]), A, b)

    t = torch.atan2(u[1], u[0])
    (f_tt, f_tA), _ = torch.autograd.functional.hessian(around, (t, A))
    tangent = torch.stack([-t.sin(), t.cos()])
    return torch.einsum("l,jk->ljk", tangent, -f_tA / f_tt)


def main() -> dict[str, tuple[Tensor, float]]:
    """Return, for each set, the solution and the largest difference of its Jacobian in A."""
    A, b = classifier()
    ones = torch.ones(2, dtype=torch.float64)
    cases = (
        ("no constraint", free, lambda u: by_the_paper(u, A, b, None)),
        ("u1 + u2 = 1", on_line, lambda u: by_the_paper(u, A, b, ones)),
        ("|u| <= 1", in_ball, lambda u: by_the_angle(u, A, b)),
    )
    results = {}
    for name, problem, by_hand in cases:
        u = al.argmin(problem, A, b)
        jacobian = torch.func.jacrev(lambda A, p=problem: al.argmin(p, A, b))(A)
        difference = float((jacobian - by_hand(u)).abs().max())
        results[name] = (u, difference)
        x, y = u.tolist()
        print(f"{name:<13}  u = ({x:.6f}, {y:.6f})   largest difference of the Jacobian {difference:.1e}")
    return results


if __name__ == "__main__":
    main()
