"""Functions as users write them, one torch feature each: what a backend of the algebra is tested on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._problem import Problem
from ._statements import STATEMENTS

SIZE = 6
_GENERATOR = torch.Generator().manual_seed(7)


def _random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=_GENERATOR, dtype=torch.float64)


A = _random(4, SIZE)
B = _random(SIZE, SIZE)
P = B @ B.mT + torch.eye(SIZE, dtype=torch.float64)
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(7)
    LINEAR = torch.nn.Linear(SIZE, 4).double().requires_grad_(False)
    NETWORK = torch.nn.Sequential(torch.nn.Linear(SIZE, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).double()
    GRU, LSTM = torch.nn.GRUCell(3, 3).double(), torch.nn.LSTMCell(3, 3).double()
    ATTENTION = torch.nn.MultiheadAttention(3, 1, batch_first=True).double().eval()
    for module in (NETWORK, GRU, LSTM, ATTENTION):
        module.requires_grad_(False)


@dataclass(frozen=True)
class UserFunction:
    """One function of variables ``u`` (6,) and parameters ``p`` (6,), both between 0.1 and 0.9 where it is tested.

    Attributes:
        group: the section of the documentation's table.
        code: as a user would write it.
        function: ``(u, p) ->`` a tensor, or several.
        degree: the degree in ``u`` that the algebra proves, 3 for anything above two and for what is no polynomial.
    """

    group: str
    code: str
    function: Callable[[Tensor, Tensor], Any]
    degree: int

    @property
    def problem(self) -> Problem:
        """A problem whose equality is the function."""
        return Problem(lambda u, p: u.sum(), "(6)->(6)", equality=self.function)


_NAMESPACE = {
    "torch": torch,
    "F": F,
    "A": A,
    "P": P,
    "linear": LINEAR,
    "network": NETWORK,
    "gru": GRU,
    "lstm": LSTM,
    "attention": ATTENTION,
    "sparse": A.to_sparse(),
}
_EXPRESSIONS: dict[str, dict[int, str]] = {
    "Linear algebra": {
        1: """
            A @ u - p[:4]
            torch.mv(A, u)
            torch.matmul(A, u)
            F.linear(u, A)
            linear(u)
            u @ p
            torch.dot(u, p)
            torch.inner(u, p)
            torch.linalg.vecdot(u, p)
            torch.outer(u, p)
            torch.einsum('ij,j->i', A, u)
            torch.einsum('i,i->', u, p)
            torch.kron(torch.eye(2, dtype=u.dtype), u.reshape(2, 3))
            torch.bmm(u.reshape(1, 2, 3), p.reshape(1, 3, 2))
            u.reshape(3, 1, 2) @ p.reshape(2, 3)[:, :2]
            torch.tensordot(u.reshape(2, 3), p.reshape(3, 2), dims=1)
            torch.addmm(torch.zeros(2, 2, dtype=u.dtype), u.reshape(2, 3), p.reshape(3, 2))
            torch.addmv(p[:4], A, u, alpha=2.0)
            torch.addr(torch.ones(6, 6, dtype=u.dtype), u, p)
            torch.baddbmm(p.reshape(1, 2, 3)[:, :, :2], u.reshape(1, 2, 3), p.reshape(1, 3, 2), beta=0.5)
            A[:, :2] @ u.reshape(2, 3)
            torch.diag(u) @ p
            torch.trace(u[:4].reshape(2, 2))
            torch.linalg.solve(P, u)
            torch.linalg.inv(P) @ u
            torch.linalg.cholesky(P) @ u
            torch.cholesky_solve(u[:, None], torch.linalg.cholesky(P))
            torch.linalg.solve_triangular(torch.linalg.cholesky(P), u[:, None], upper=False)
            torch.linalg.pinv(A) @ u[:4]
            torch.linalg.solve(P + torch.diag(p), u)
            torch.linalg.eigh(P + torch.diag(p)).eigenvalues @ u
            torch.fft.rfft(p).abs() @ u[:4]
            sparse @ u
            torch.sparse.mm(sparse, u[:, None])
            torch.linalg.lstsq(A.T, u[:, None]).solution
            torch.linalg.lu_solve(*torch.linalg.lu_factor(P), u[:, None])
            torch.linalg.solve(P, u[None], left=False)
        """,
        2: """
            u @ P @ u
            torch.dot(u, P @ u)
            (u * (P @ u)).sum()
            torch.einsum('i,ij,j->', u, P, u)
            u.reshape(2, 3).T @ u.reshape(2, 3)
            torch.outer(u, u)
            torch.linalg.cross(u[:3], u[3:])
            u.reshape(2, 3) @ u.reshape(3, 2)
            torch.mm(u.reshape(2, 3), u.reshape(3, 2)).trace()
            F.bilinear(u[None, :2], u[None, 2:4], A[:1, :4].reshape(1, 2, 2))
        """,
        3: """
            network(u).sum()
            u[0] * u[3] * u[5]
            torch.linalg.multi_dot([u.reshape(2, 3), u.reshape(3, 2), u[:4].reshape(2, 2)])
            torch.matrix_power(u[:4].reshape(2, 2), 3)
        """,
    },
    "Sums and norms": {
        1: """
            u.sum()
            u.reshape(2, 3).sum(0)
            u.reshape(2, 3).sum(dim=1, keepdim=True)
            u.mean()
            (u * p).mean()
            u.reshape(2, 3).mean(1)
            torch.cumsum(u, 0)
            u.reshape(2, 3).cumsum(1)
            torch.trapezoid(u)
            torch.cumulative_trapezoid(u)
            torch.nansum(u * p)
            u.cumsum(0).flip(0)
            torch.count_nonzero(p) * u
        """,
        2: """
            ((u - p) ** 2).sum()
            torch.square(u - p).sum()
            (u - p).pow(2).sum()
            u.var()
            u.reshape(2, 3).var(dim=1, unbiased=False)
            torch.var_mean(u, dim=0)[0]
            torch.linalg.norm(u) ** 2
            torch.linalg.vector_norm(u - p).square()
            (u - p).norm().pow(2)
            torch.cov(u.reshape(2, 3))
        """,
        3: """
            u.std()
            u.prod()
            u.reshape(2, 3).prod(1)
            torch.linalg.norm(u - p)
            torch.linalg.vector_norm(u - p)
            torch.linalg.vector_norm(u - p, ord=1)
            torch.linalg.vector_norm(u - p, ord=3)
            torch.linalg.vector_norm(u - p, ord=float('inf'))
            (u - p).norm()
            u.norm(p=1)
            torch.linalg.vector_norm(u.reshape(2, 3), dim=1)
            torch.linalg.matrix_norm(u.reshape(2, 3))
            torch.dist(u, p)
            torch.cdist(u.reshape(2, 3), p.reshape(2, 3))
            torch.pdist(u.reshape(3, 2))
            F.pairwise_distance(u, p)
            F.cosine_similarity(u, p, dim=0)
            F.normalize(u, dim=0)
            torch.cumprod(u, 0)
            torch.logcumsumexp(u, 0)
            torch.logsumexp(u, 0)
            torch.logsumexp(u.reshape(2, 3), 1, keepdim=True)
            torch.log(torch.exp(u).sum())
            torch.logaddexp(u, p)
            torch.corrcoef(u.reshape(2, 3))
        """,
    },
    "Functions of every entry": {
        1: """
            -u
            torch.neg(u)
            u + p
            2 - u
            u - 2 * p
            torch.sub(u, p, alpha=2)
            torch.add(p, u, alpha=3)
            u * p
            u / p
            u / 4
            u.float().double() * p
            torch.addcmul(p, u, p, value=2.0)
            torch.addcdiv(p, u, p, value=0.5)
            torch.lerp(u, p, 0.3)
            torch.lerp(p, u, p)
            torch.deg2rad(u)
            u.where(p > 0.5, p)
            torch.true_divide(u, 3)
            u.mul(p).add(1).div(2)
            torch.positive(u)
            torch.nan_to_num(u)
        """,
        2: """
            u * u
            u ** 2
            u.square()
            torch.pow(u, 2)
            u * torch.flip(u, (0,))
            torch.float_power(u, 2)
            torch.addcmul(p, u, u)
        """,
        3: """
            u ** 3
            u ** 0.5
            u ** -1
            u ** 1.5
            2.0 ** u
            (1 + u ** 2) ** p
            u ** u
            1 / (2 + u ** 2)
            torch.reciprocal(1 + u)
            torch.exp(u)
            torch.exp2(u)
            torch.expm1(u)
            torch.log(1 + u ** 2)
            torch.log1p(u ** 2)
            torch.log2(u)
            torch.log10(u)
            torch.sqrt(1 + u ** 2)
            torch.rsqrt(1 + u ** 2)
            torch.sin(u) + torch.cos(u) + torch.tan(u)
            torch.asin(u / 10) + torch.acos(u / 10) + torch.atan(u)
            torch.atan2(u, p)
            torch.sinh(u) + torch.cosh(u) + torch.tanh(u)
            torch.asinh(u) + torch.acosh(1 + u) + torch.atanh(u / 2)
            torch.hypot(u, p)
            torch.erf(u)
            torch.erfc(u)
            torch.special.expit(u)
            torch.logit(u)
            torch.xlogy(u, u)
            torch.xlogy(p, u)
            torch.special.entr(u).sum()
            (u * u.log()).sum()
            torch.sinc(u)
            torch.copysign(u, p - 0.5)
        """,
    },
    "Networks and losses": {
        1: """
            F.dropout(u, 0.5, training=False)
            F.avg_pool1d(u[None, None], 2)[0, 0]
            F.conv1d(u[None, None], p[None, None, :3])[0, 0]
            F.conv1d(p[None, None], u[None, None, :3])[0, 0]
            F.conv1d(u.reshape(1, 2, 3), p.reshape(2, 1, 3), padding=1, groups=2)
            F.conv2d(u.reshape(1, 1, 2, 3), p[:4].reshape(1, 1, 2, 2), bias=p[:1], padding=1, stride=2)
            F.embedding(torch.tensor([0, 2]), u.reshape(3, 2))
            F.interpolate(u[None, None], scale_factor=2, mode='linear')
            F.unfold(u.reshape(1, 1, 2, 3), (2, 2))
            F.pixel_shuffle(u[:4].reshape(1, 4, 1, 1), 2)
        """,
        2: """
            F.mse_loss(u, p)
            F.mse_loss(u, p, reduction='sum')
        """,
        3: """
            torch.relu(u - p).sum()
            F.leaky_relu(u - p, 0.1).sum()
            F.elu(u - p).sum()
            F.selu(u).sum()
            F.silu(u).sum()
            F.mish(u).sum()
            F.gelu(u).sum()
            F.gelu(u, approximate='tanh').sum()
            F.softplus(u).sum()
            F.softplus(u, beta=3.0).sum()
            F.logsigmoid(u).sum()
            F.hardtanh(u, 0.2, 0.5)
            F.relu6(u * 9)
            F.hardsigmoid(u)
            F.softsign(u)
            F.threshold(u, 0.4, 0.1)
            torch.sigmoid(u).sum()
            torch.tanh(u)
            torch.softmax(u, 0)
            F.softmax(u.reshape(2, 3), dim=1)
            F.log_softmax(u, 0)
            F.softmin(u, 0)
            F.layer_norm(u, (6,))
            F.layer_norm(u.reshape(2, 3), (3,), p[:3], p[3:])
            F.cross_entropy(u, torch.tensor(2))
            F.nll_loss(F.log_softmax(u.reshape(2, 3), 1), torch.tensor([0, 2]))
            F.binary_cross_entropy_with_logits(u, (p > 0.5).double())
            F.binary_cross_entropy(u, p)
            F.kl_div(u.log_softmax(0), p.softmax(0), reduction='sum')
            F.huber_loss(u, p)
            F.huber_loss(u, p, reduction='sum', delta=0.5)
            F.smooth_l1_loss(u, p)
            F.l1_loss(u, p)
            F.soft_margin_loss(u, torch.sign(p - 0.5))
            F.poisson_nll_loss(u, p)
            F.scaled_dot_product_attention(u.reshape(1, 2, 3), p.reshape(1, 2, 3), p.reshape(1, 2, 3))
            u.unfold(0, 2, 2).amax(1)
            F.glu(u)
            gru(u[None, :3], p[None, 3:])
            lstm(u[None, :3], (p[None, 3:], p[None, :3]))[0]
            attention(u.reshape(1, 2, 3), u.reshape(1, 2, 3), u.reshape(1, 2, 3))[0]
            F.group_norm(u.reshape(1, 2, 3), 2)
            F.rms_norm(u, (6,))
            F.cross_entropy(u[None], torch.tensor([2]), label_smoothing=0.1)
            F.max_pool1d(u[None, None], 2)
        """,
    },
    "Pieces and choices": {
        1: """
            torch.where(p > 0.5, u, torch.zeros_like(u))
            (u * (p > 0.5)).sum()
            u[p > 0.5]
            u.masked_fill(torch.tensor([True] * 3 + [False] * 3), 0.5)
            torch.clamp(p, 0.2, 0.4) * u
            u * p.argsort()
        """,
        3: """
            u.clamp(0.3, 0.6)
            u.clamp(min=0.4)
            torch.clamp(u, max=p)
            u.abs().sum()
            abs(u - p).sum()
            torch.maximum(u, p)
            torch.minimum(u, p)
            torch.fmax(u, p)
            u.max()
            u.min()
            u.reshape(2, 3).max(dim=1).values
            u.reshape(2, 3).amax(1)
            u.reshape(2, 3).amin((0, 1))
            torch.aminmax(u).max
            torch.where(u > 0.5, u, 2 * u)
            torch.where(u > p, u * u, torch.exp(u))
            torch.where(torch.isnan(u), 0.0, u.abs())
            torch.where((u > 0.2) & (u < 0.6), u, p)
            torch.where((u >= 0.2) | ~(p <= 0.6), u, p)
            (u > p) * u
            torch.sign(u - p)
            torch.floor(5 * u) + torch.ceil(3 * u) + torch.round(7 * u) + torch.trunc(9 * u)
            torch.remainder(5 * u, 2.0)
            torch.fmod(5 * u, 2.0)
            5 * u // 2
            torch.heaviside(u - p, torch.zeros((), dtype=u.dtype))
        """,
    },
    "Shapes, indices and assignment": {
        1: """
            u[1:] - u[:-1]
            u[::2]
            u[-1] * p[-2]
            u[torch.tensor([0, 2, 2])]
            u[[0, 2, 3]]
            u[None, :, None]
            u[torch.tensor([True, False, True, True, False, False])]
            u.reshape(2, 3)[:, [2, 0]]
            u.index_select(0, torch.tensor([1, 1, 3]))
            torch.gather(u, 0, torch.tensor([3, 0]))
            torch.take(u, torch.tensor([1]))
            torch.take_along_dim(u, torch.tensor([5, 0]), 0)
            torch.diff(u)
            torch.diff(u, n=2)
            u[:, None] * p[None, :]
            u.reshape(2, 3) + p[:3]
            u[0].expand(4)
            u.repeat(2)
            u.repeat_interleave(2)
            torch.tile(u, (2,))
            torch.cat([u[:2], p[2:4], u[4:]])
            torch.stack([u, p], dim=1)
            torch.hstack([u, p])
            torch.vstack([u, p])
            torch.stack((u[0], torch.tensor(1.0, dtype=u.dtype)))
            torch.broadcast_to(u, (2, 6))
            u.view(2, 3).permute(1, 0).contiguous().view(-1)
            u.reshape(2, 3).T.flatten()
            u.reshape(1, 2, 3).movedim(0, 2)
            torch.swapaxes(u.reshape(2, 3), 0, 1)
            u.unsqueeze(0).flatten().squeeze()
            torch.rot90(u.reshape(2, 3))
            u.flip(0)
            torch.roll(u, 1)
            F.pad(u, (1, 1))
            F.pad(u, (1, 2), value=3.0)
            F.pad(u[None], (2, 1), mode='reflect')
            F.pad(u[None], (2, 1), mode='replicate')
            F.pad(u[None], (2, 1), mode='circular')
            u.unfold(0, 2, 1).sum(1)
            u.reshape(2, 3).diagonal()
            torch.diag_embed(u.reshape(2, 3))
            torch.tril(torch.outer(u, p))
            torch.triu(u.reshape(2, 3), 1)
            torch.block_diag(u[:4].reshape(2, 2), u[4:].reshape(1, 2))
            torch.meshgrid(u, p, indexing='ij')[0]
            torch.cartesian_prod(u[:2], p[:2])
            torch.combinations(u[:3])
            torch.zeros(6, dtype=u.dtype).scatter(0, torch.tensor([1, 3]), u[:2])
            torch.zeros(3, dtype=u.dtype).scatter_add(0, torch.tensor([0, 0, 1, 1, 2, 2]), u)
            torch.zeros(3, dtype=u.dtype).index_add(0, torch.tensor([0, 0, 1, 1, 2, 2]), u)
            torch.zeros(6, dtype=u.dtype).index_copy(0, torch.tensor([4, 1]), u[:2])
            torch.zeros(2, dtype=u.dtype).index_put((torch.tensor([0, 1, 1]),), u[:3], accumulate=True)
            u.index_fill(0, torch.tensor([0, 1]), 0.5)
            u.new_zeros(3) + u[:3]
            u * torch.tensor([1.0, 2, 3, 4, 5, 6], dtype=u.dtype)
            (u * torch.linspace(0, 1, 6, dtype=u.dtype)).sum()
            (u * torch.arange(6)).sum()
            u.clone()
            u.tensor_split(3)[1]
            torch.unflatten(u, 0, (2, 3))
            torch.ones_like(u) * u
        """,
        0: """
            0 * u + p
        """,
    },
    "torch.func": {
        1: """
            torch.func.hessian(lambda v: (v ** 3).sum())(u).diagonal()
        """,
        2: """
            torch.func.jacfwd(lambda v: v ** 3)(u).diagonal()
            torch.vmap(lambda r: (r ** 2).sum())(u.reshape(2, 3))
            torch.func.jvp(lambda v: (v ** 3).sum(), (u,), (p,))[1]
        """,
        3: """
            torch.func.grad(lambda v: (v ** 4).sum())(u)
            torch.func.jacrev(lambda v: torch.sin(v))(u).sum(0)
            torch.vmap(torch.dot, in_dims=(0, None))(u.reshape(2, 3) ** 3, p[:3])
        """,
    },
}


def _expressions() -> list[UserFunction]:
    return [
        UserFunction(group, code, eval(f"lambda u, p: {code}", dict(_NAMESPACE)), degree)
        for group, by_degree in _EXPRESSIONS.items()
        for degree, text in by_degree.items()
        for code in (line.strip() for line in text.strip().splitlines())
    ]


USER_FUNCTIONS = (*_expressions(), *(UserFunction("Statements", *one) for one in STATEMENTS))
"""The functions, in the order of the documentation's table."""
