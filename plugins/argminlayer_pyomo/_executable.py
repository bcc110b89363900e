"""Solvers that are programs of their own and speak AMPL's formats: the .nl file in, the .sol file out, no shell."""

import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

import argminlayer as al

from ._instances import Instance, loaded, multipliers, values
from ._solvers import Ipopt

GRACE = 2.0
"""Seconds beyond its time limit after which a program that does not end by itself is killed."""
NAME = "problem"
_LABEL = {"executable": "ipopt", "pounce": "pounce"}


def solve_by_executable(solver: Ipopt, route: str, path: str, instance: Instance) -> al.Point:
    """Write the model to a temporary folder, run the program there, and read what it found."""
    begin, label = torch.from_numpy(instance.start), f"{_LABEL[route]} executable {path}"
    try:
        with tempfile.TemporaryDirectory(prefix="argminlayer-", ignore_cleanup_errors=True) as folder:
            return _solve_in(Path(folder), solver, path, label, instance)
    except OSError as error:
        advice = "the program could not be run in a temporary folder; set TMPDIR to a folder that can be written, or "
        message = f"{label}: {error}; {advice}choose route='casadi', which needs neither"
    except (ValueError, RuntimeError) as error:
        message = f"{label}: {error}"
    return al.Point(begin, al.Status.BREAKDOWN, message=message)


def _solve_in(folder: Path, solver: Ipopt, path: str, label: str, instance: Instance) -> al.Point:
    from pyomo.repn.plugins.nl_writer import NLWriter

    held = instance.model
    with loaded(instance) as model:
        with open(folder / f"{NAME}.nl", "w", newline="") as stream:
            info = NLWriter().write(model, stream, linear_presolve=False)
        message = _run(folder, solver, path, instance.scale)
        if message is not None:
            return al.Point(torch.from_numpy(instance.start), message[0], message=f"{label}: {message[1]}")
        found = _read(folder / f"{NAME}.sol", len(info.constraints), len(info.variables))
        for variable, value in zip(info.variables, found.values, strict=True):
            variable.set_value(value, skip_validation=True)
        names = [constraint.name for constraint in info.constraints]
        nu, lam = multipliers(held, dict(zip(names, found.duals, strict=True)))
        return al.Point(values(held), found.status, nu, lam, message=f"{label}: {found.message}")


_Stop = tuple[al.Status, str]


def _run(folder: Path, solver: Ipopt, path: str, scale: float) -> _Stop | None:
    """Run the program on the file in a folder; return why there is no answer, None when there is one."""
    limit = solver.time_limit
    options = [f"tol={solver.tol}", f"max_iter={solver.max_iter}", "print_level=0"]
    options += [] if scale == 1.0 else [f"obj_scaling_factor={scale}"]
    options += [] if limit is None else [f"max_cpu_time={limit}"]
    command = [path, NAME, "-AMPL", *options]
    with open(folder / "log", "w+") as log:
        # its own session, so that whatever the program itself has started can be ended with it
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(None if limit is None else limit + GRACE)
        except subprocess.TimeoutExpired:
            return al.Status.TIME_LIMIT, f"was killed {GRACE:g} s after its time limit"
        finally:
            _end(process)
        if (folder / f"{NAME}.sol").exists():
            return None
        log.seek(0)
        said = log.read()[-500:].strip()
    died = f"died of signal {-code}" if code < 0 else f"ended with code {code}"
    return al.Status.BREAKDOWN, f"{died} and left no solution. It said: {said or 'nothing'}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and all it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True)
class _Found:
    """What a .sol file holds."""

    message: str
    status: al.Status
    duals: list[float]
    values: list[float]


def _read(path: Path, rows: int, columns: int) -> _Found:
    """Read a .sol file of a problem with so many constraints and variables.

    Raises:
        ValueError: it is cut short, or belongs to another problem.

    Reference: Gay, *Writing .nl files*, 2005, and *Hooking your solver to AMPL*, 1997, appendix.
    """
    lines = path.read_text().splitlines()
    if "Options" not in lines:
        raise ValueError("the solution file has no section 'Options': it is cut short")
    at = lines.index("Options")
    message = " ".join(" ".join(lines[:at]).split())
    counts = at + 2 + int("".join(lines[at + 1 : at + 2]) or "0")
    if len(lines) < counts + 4:
        raise ValueError("the solution file ends before its numbers: it is cut short")
    _, duals, _, values = (int(line) for line in lines[counts : counts + 4])
    numbers = [float(line) for line in lines[counts + 4 : counts + 4 + duals + values]]
    if duals not in (0, rows) or values != columns or len(numbers) != duals + values:
        raise ValueError(f"the solution file has {duals} duals and {values} values instead of {rows} and {columns}")
    code = next((int(line.split()[2]) for line in lines if line.startswith("objno")), 500)
    return _Found(message, _status(code, message), numbers[:duals] or [0.0] * rows, numbers[duals:])


def _status(code: int, message: str) -> al.Status:
    """Return our status for AMPL's solve code and the program's words."""
    if code >= 400 and "time" in message.lower():
        return al.Status.TIME_LIMIT
    families = (al.Status.SOLVED, al.Status.SOLVED, al.Status.INFEASIBLE, al.Status.UNBOUNDED, al.Status.MAX_ITERATIONS)
    return families[code // 100] if 0 <= code < 500 else al.Status.BREAKDOWN
