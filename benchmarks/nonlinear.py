"""Batches of nonlinear programs and an optimal control problem through CasADi, beside CasADi and SciPy by hand.

First: 128 instances, n = 10, one equality, two nonlinear inequalities. ``solve`` is what the plugin does for a call
(record, find the model, run the compiled solver, read the answers); ``whole`` is ``al.solve``, which also binds,
certifies and refines. By hand: the same model written in CasADi, solved by ``nlpsol(...).map(128)``; and SLSQP with
torch callbacks for every instance; and pounce.torch, if it is installed.

Second: a pendulum by collocation, n = 3000: what a first call pays (record, build, make, solve), and a second.

Prints medians of processor time in milliseconds, one thread: other work on the machine disturbs it less. Half a minute.
"""

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass

import casadi as ca
import numpy as np
import rich.table
import scipy.optimize as so
import torch
from torch import Tensor

import argminlayer as al

BATCH, SIZE = 128, 10
REPEATS = 9


def median(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median processor time of ``work`` in milliseconds, after one run that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return 1e3 * sorted(times)[repeats // 2]


def objective(u: Tensor, x: Tensor) -> Tensor:
    """Return a convex quartic around x."""
    return 0.5 * (u - x).square().sum() + 0.1 * (u**4).sum()


def equality(u: Tensor, x: Tensor) -> Tensor:
    """Sum to one."""
    return u.sum() - 1.0


def inequality(u: Tensor, x: Tensor) -> Tensor:
    """Stay in a ball, and below an exponential."""
    return torch.stack([u.square().sum() - 2.0, u[:3].exp().sum() - 4.0])


PROBLEM = al.Problem(objective, "(10)->(10)", equality=equality, inequality=inequality)


def parameters() -> Tensor:
    """Return the parameters of the batch."""
    index = torch.arange(BATCH * SIZE, dtype=torch.float64)
    return 1.5 * torch.sin(1.7 * index).reshape(BATCH, SIZE)


def by_hand(name: str, options: dict[str, object]) -> Callable[[], np.ndarray]:
    """Return the hand-written CasADi solve of the batch."""
    u, x = ca.MX.sym("u", SIZE), ca.MX.sym("x", SIZE)
    f = 0.5 * ca.sumsqr(u - x) + 0.1 * ca.sum1(u**4)
    g = ca.vertcat(ca.sum1(u) - 1, ca.sumsqr(u) - 2, ca.sum1(ca.exp(u[:3])) - 4)
    quiet = {"print_time": False, **options}
    solver = ca.nlpsol("hand", name, {"x": u, "p": x, "f": f, "g": g}, quiet).map(BATCH)
    data = parameters().numpy().T
    floor = np.array([0.0, -np.inf, -np.inf])
    return lambda: solver(x0=0.0, p=data, lbg=floor, ubg=0.0)["x"].full()


def slsqp() -> None:
    """Solve the batch by SLSQP with torch callbacks, instance by instance."""
    rows = parameters()

    def value_and_slope(function: Callable[..., Tensor], row: Tensor, z: np.ndarray) -> tuple[float, np.ndarray]:
        u = torch.tensor(z, requires_grad=True)
        value = function(u, row)
        return value.item(), torch.autograd.grad(value, u)[0].numpy()

    def jacobian(function: Callable[..., Tensor], row: Tensor, z: np.ndarray) -> np.ndarray:
        return torch.func.jacrev(function)(torch.tensor(z), row).numpy()

    for row in rows:
        constraints = [
            {
                "type": "eq",
                "fun": lambda z, row=row: equality(torch.tensor(z), row).numpy(),
                "jac": lambda z, row=row: jacobian(equality, row, z),
            },
            {
                "type": "ineq",
                "fun": lambda z, row=row: -inequality(torch.tensor(z), row).numpy(),
                "jac": lambda z, row=row: -jacobian(inequality, row, z),
            },
        ]
        so.minimize(
            lambda z, row=row: value_and_slope(objective, row, z),
            np.zeros(SIZE),
            jac=True,
            method="SLSQP",
            constraints=constraints,
            options={"ftol": 1e-10},
        )


def pounce() -> Callable[[], object]:
    """Return the batched solve of pounce.torch, which differentiates the same functions."""
    from pounce.torch import TorchProblem

    x = parameters()
    problem = TorchProblem(
        f=objective,
        g=lambda u, p: torch.cat([equality(u, p)[None], inequality(u, p)]),
        n=SIZE,
        m=3,
        p_example=x[0],
        cl=[0.0, -1e19, -1e19],
        cu=[0.0, 0.0, 0.0],
        options={"print_level": 0},
    )
    return lambda: problem.batched_solve(x, torch.zeros(BATCH, SIZE, dtype=torch.float64))


def batches() -> rich.table.Table:
    """Return the table of the batch of programs."""
    from argminlayer_casadi import IPOPT, SQP

    x = parameters()
    quiet_qp = {"print_iter": False, "print_header": False, "print_info": False, "error_on_fail": False}
    hand = {
        "casadi.sqp": by_hand(
            "sqpmethod",
            {
                "qpsol": "qrqp",
                "qpsol_options": quiet_qp,
                "print_header": False,
                "print_iteration": False,
                "print_status": False,
            },
        ),
        "casadi.ipopt": by_hand("ipopt", {"ipopt": {"print_level": 0, "sb": "yes"}}),
    }
    table = rich.table.Table(title=f"{BATCH} nonlinear programs, n = {SIZE}, float64, 1 thread, ms")
    for column in ("solver", "solve", "CasADi by hand", "ratio", "whole al.solve"):
        table.add_column(column, justify="left" if column == "solver" else "right")
    for kind in (SQP, IPOPT):
        alone = median(hand[kind.name])
        solver, spent = timed(kind)
        whole = median(lambda solver=solver: al.solve(PROBLEM, x, solver=solver))
        plugin = sorted(spent)[len(spent) // 2]
        table.add_row(kind.name, f"{plugin:.1f}", f"{alone:.1f}", f"{plugin / alone:.2f}", f"{whole:.1f}")
    table.add_row("SLSQP, torch callbacks", f"{median(slsqp, 1):.0f}", "", "", "")
    if importlib.util.find_spec("pounce"):
        table.add_row("pounce.torch, batched_solve", f"{median(pounce()):.0f}", "", "", "")
    return table


def timed(kind: type[al.AbstractSolver]) -> tuple[al.AbstractSolver, list[float]]:
    """Return a solver that notes the milliseconds of every solve, and of the recording before it."""
    spent: list[float] = []

    @dataclass(frozen=True)
    class Timed(kind):  # type: ignore[misc, valid-type]
        def supports(self, problem: al.BoundProblem) -> str | None:
            spent.append(0.0)
            return self._noted(lambda: kind.supports(self, problem))  # type: ignore[no-any-return]

        def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
            return self._noted(lambda: kind.solve(self, problem, start))  # type: ignore[no-any-return]

        def _noted(self, work: Callable[[], object]) -> object:
            began = time.process_time()
            result = work()
            spent[-1] += 1e3 * (time.process_time() - began)
            return result

    return Timed(), spent


def pendulum(steps: int) -> al.Problem:
    """Return the swing-up of a pendulum by trapezoidal collocation: 3 variables and 2 equalities for every step.

    Minimise the sum of squared torques, from rest at the bottom (the parameter is the starting angle) to the top.
    """
    h = 5.0 / steps

    def torques(u: Tensor, start: Tensor) -> Tensor:
        del start
        return h * u.reshape(3, steps)[2].square().sum()

    def dynamics(u: Tensor, start: Tensor) -> Tensor:
        angle, speed, torque = u.reshape(3, steps)
        rate = torque - torch.sin(angle)
        return torch.cat(
            [
                angle[1:] - angle[:-1] - h / 2 * (speed[1:] + speed[:-1]),
                speed[1:] - speed[:-1] - h / 2 * (rate[1:] + rate[:-1]),
                torch.stack([angle[0] - start, speed[0], angle[-1] - torch.pi, speed[-1]]),
            ]
        )

    return al.Problem(torques, f"()->({3 * steps})", equality=dynamics, start=torch.zeros(3 * steps))


def optimal_control() -> rich.table.Table:
    """Return the table of the pendulum."""
    from argminlayer_casadi import IPOPT

    problem = pendulum(1000)
    solver, spent = timed(IPOPT)
    for angle in (0.0, 0.1, 0.2, 0.3):
        al.solve(problem, torch.tensor(angle, dtype=torch.float64), solver=solver)
    table = rich.table.Table(title="pendulum by collocation, n = 3000, casadi.ipopt, ms")
    for column in ("call", "solve"):
        table.add_column(column, justify="left" if column == "call" else "right")
    table.add_row("first: record, build, make, solve", f"{spent[0]:.1f}")
    table.add_row("later, other parameters", f"{min(spent[1:]):.1f}")
    return table


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    rich.print(batches())
    rich.print(optimal_control())


if __name__ == "__main__":
    main()
