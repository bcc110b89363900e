"""Cone programs for tests: a solver that is nothing but Clarabel, and random programs with a known solution."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

import argminlayer as al
from argminlayer.cones._faces import project

WORDS = {"PrimalInf": al.Status.INFEASIBLE, "DualInf": al.Status.UNBOUNDED, "MaxIter": al.Status.MAX_ITERATIONS}


@dataclass(frozen=True)
class RawClarabel(al.AbstractConeSolver):
    """Clarabel, one program after another."""

    name: ClassVar[str] = "test.clarabel"
    tol: float = 1e-8
    max_iter: int = 200

    def available(self):
        return al.Availability.of_module("clarabel", extra="qp")

    def suits(self, form):
        del form
        return 10.0

    def solve_cones(self, form, start=None):
        del start
        answers = [self._one(form, i) for i in range(form.batch)]
        n, m = form.pattern.size, form.pattern.cones.rows
        stacked = (np.array([a[i] for a in answers]).reshape(form.batch, (n, m, m)[i]) for i in range(3))
        words = tuple(a[3] for a in answers)
        status = [next((int(c) for w, c in WORDS.items() if w in word), 0 if "Solved" in word else 9) for word in words]
        return al.ConeAnswer(*stacked, np.array(status, dtype=np.int64), np.full(form.batch, -1), words)

    def _one(self, form, i):
        import clarabel
        from scipy.sparse import csc_matrix

        order, cones = their_order(form.pattern.cones)
        P, q, A, b = form.instance(i)
        settings = clarabel.DefaultSettings()
        settings.verbose, settings.max_iter = False, self.max_iter
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = self.tol
        found = clarabel.DefaultSolver(csc_matrix(P), q, csc_matrix(A)[order], b[order], cones, settings).solve()
        s, z = np.empty(len(b)), np.empty(len(b))
        s[order], z[order] = found.s, found.z
        return np.array(found.x), s, z, str(found.status)


def their_order(cones):
    """Return the rows in the order of Clarabel, which takes the upper triangle of matrices by columns; its cones."""
    import clarabel

    order, theirs = np.arange(cones.rows), []
    if cones.zero:
        theirs.append(clarabel.ZeroConeT(cones.zero))
    if cones.nonnegative:
        theirs.append(clarabel.NonnegativeConeT(cones.nonnegative))
    for kind, row, detail in cones.blocks():
        if kind == "second_order":
            theirs.append(clarabel.SecondOrderConeT(int(detail)))
        elif kind == "semidefinite":
            k = int(detail)
            ours = {place: t for t, place in enumerate((i, j) for j in range(k) for i in range(j, k))}
            upper = [ours[j, i] for j in range(k) for i in range(j + 1)]
            order[row : row + len(upper)] = row + np.array(upper)
            theirs.append(clarabel.PSDTriangleConeT(k))
        else:
            theirs.append(clarabel.ExponentialConeT() if kind == "exponential" else clarabel.PowerConeT(detail))
    return order, theirs


@dataclass(frozen=True, eq=False)
class Known:
    """A batch of random programs and what solves them: x, s and z."""

    pattern: al.ConePattern
    P: torch.Tensor
    q: torch.Tensor
    A: torch.Tensor
    b: torch.Tensor
    x: torch.Tensor
    s: torch.Tensor
    z: torch.Tensor

    @property
    def data(self):
        return self.P, self.q, self.A, self.b

    @property
    def problem(self):
        n, m = self.pattern.size, self.pattern.cones.rows
        widths = ",".join(f"({t.shape[-1]})" for t in self.data)
        return al.ConeProgram(f"{widths}->({n}),({m})", self.pattern, as_given, both, multipliers=True, names="PqAb")


def as_given(P, q, A, b):
    return P, q, A, b


def both(x, z):
    return x, z


def random_programs(cones, n, batch=3, quadratic=True, seed=0):
    """Return programs whose data are chosen so that a random x and a random complementary pair solve them."""
    rng = np.random.default_rng(seed)
    m = cones.rows
    A = rng.standard_normal((batch, m, n))
    v = torch.from_numpy(1.5 * rng.standard_normal((batch, m)))
    s = project(cones, v)
    z = s - v
    x = rng.standard_normal((batch, n))
    L = 0.5 * rng.standard_normal((batch, n, n)) * quadratic
    P = L @ L.swapaxes(1, 2)
    q = -(P @ x[..., None])[..., 0] - (z.numpy()[:, None] @ A)[:, 0]
    b = (A @ x[..., None])[..., 0] + s.numpy()
    i, j = np.triu_indices(n) if quadratic else (np.zeros(0, int), np.zeros(0, int))
    pattern = al.ConePattern(n, cones, i, j, *np.nonzero(np.ones((m, n))))
    values = P[:, i, j] if quadratic else np.zeros((batch, 0))
    return Known(pattern, *(torch.as_tensor(t) for t in (values, q, A.reshape(batch, -1), b, x, s, z)))


def square():
    """Return ``min x_0`` on a square with sides b: x_1 is free."""
    pattern = al.ConePattern(2, al.Cones(0, 4), [], [], [0, 1, 2, 3], [0, 1, 0, 1])

    def data(b):
        q = torch.tensor([1.0, 0.0], dtype=torch.float64)
        return torch.zeros(0, dtype=torch.float64), q, torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64), b

    return al.ConeProgram("(4)->(2)", pattern, data)


CURVED = {
    "linear": (al.Cones(3, 10), 8),
    "second-order": (al.Cones(2, 3, (4, 3)), 8),
    "semidefinite": (al.Cones(2, 0, (), (4, 3)), 8),
    "exponential": (al.Cones(1, 2, (), (), 3), 8),
    "power": (al.Cones(1, 2, (), (), 0, (0.3, 0.7, 0.5)), 8),
    "all": (al.Cones(2, 3, (3,), (4,), 2, (0.4,)), 14),
}
"""One product of cones of each kind, with a number of variables that makes solutions isolated more often than not."""


def isolated(cones, n, **fields):
    """Return programs of the first seed for which solutions and multipliers are isolated, and no kink is near."""
    for seed in range(20):
        known = random_programs(cones, n, seed=seed, **fields)
        found = al.solve(known.problem, *known.data, solver=RawClarabel(tol=1e-10), throw=False)
        certificate = found.certificate
        if (
            found.ok.all()
            and (certificate.freedom + certificate.redundant == 0).all()
            and certificate.margin.min() > 0.01
        ):
            return known
    raise AssertionError("no seed gives programs with isolated solutions")
