"""The standard form of any problem whose algebra proves it quadratic: its matrices, by torch, at any point."""

import threading
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ._bound import BoundProblem
from ._problem import Problem
from ._qp_form import QuadraticForm, quadratic_form
from ._quadratic import QUADRATIC, Blocks

PROGRAMS = ("linear program", "quadratic program")

_reasons: "WeakKeyDictionary[Problem, dict[tuple[object, ...], str]]" = WeakKeyDictionary()
_forms: "WeakKeyDictionary[BoundProblem, QuadraticForm]" = WeakKeyDictionary()
_lock = threading.Lock()


def is_declared(problem: BoundProblem) -> bool:
    """Return whether the problem is a :class:`QuadraticProgram`."""
    structure = problem.problem.structure
    return structure is not None and structure.name == QUADRATIC and "blocks" in structure.data


def not_quadratic(problem: BoundProblem) -> str:
    """Return why the problem is no linear or quadratic program, nothing where its algebra proves that it is one.

    Proved once for a problem and the sizes of its parameters, for every value of them. Should a captured value change
    the functions afterwards, the certificate does not hold and the instances fail, as with any other wrong answer.
    """
    if is_declared(problem):
        return ""
    if problem.problem.objective is None:
        return "needs an objective (this is a feasibility problem)"
    key = (
        problem.size,
        tuple(tuple(p.shape[0 if s else 1 :]) for p, s in zip(problem.parameters, problem.layout.shared, strict=True)),
    )
    with _lock:
        known = _reasons.setdefault(problem.problem, {})
    if key not in known:
        known[key] = _proved(problem)
    return known[key]


def _proved(problem: BoundProblem) -> str:
    from ._errors import AlgebraError
    from .algebra import record

    if problem.batch == 0:
        return "has no instance to read the algebra from"
    try:
        programs = {group.degree.program for group in record(problem)}
    except AlgebraError as error:
        return f"is made for quadratic programs, and the problem has no algebra that says so: {error}"
    others = programs - set(PROGRAMS)
    return f"is made for quadratic programs, and this is a {others.pop()}" if others else ""


def form_of(problem: BoundProblem) -> QuadraticForm:
    """Return the numbers of a bound problem that is quadratic, computed once for each bound problem.

    Blocks that depend on no parameter but shared ones are the same for all instances and kept, and factorised, once.
    """
    with _lock:
        known = _forms.get(problem)
    if known is None:
        known = _declared(problem) if is_declared(problem) else _extracted(problem)
        with _lock:
            _forms[problem] = known
    return known


def _declared(problem: BoundProblem) -> QuadraticForm:
    assert problem.problem.structure is not None
    blocks: Blocks = problem.problem.structure.data["blocks"]
    filled = {name: block.to(torch.float64) for name, block in blocks.fill(problem.parameters).items()}
    for name in ("lower", "upper"):
        if name in filled:
            filled[name] = getattr(problem, name)
    return quadratic_form(filled, torch.Size([problem.batch]))


def _extracted(problem: BoundProblem) -> QuadraticForm:
    zero = torch.zeros(problem.batch, problem.size, dtype=torch.float64, device=problem.layout.device)
    no_forces = zero.new_zeros(problem.batch, problem.equalities), zero.new_zeros(problem.batch, problem.inequalities)
    blocks = {"q": problem.gradient(zero)[1]}
    hessian = problem.hessian(zero, *no_forces)
    if problem.batch == 0 or bool(hessian.any()):
        blocks["P"] = hessian
    if problem.equalities:
        constant, blocks["A"] = problem.equality(zero)
        blocks["b"] = -constant
    if problem.inequalities:
        constant, blocks["G"] = problem.inequality(zero)
        blocks["h"] = -constant
    if "bounds" in problem.problem.constraints:
        blocks |= {"lower": problem.lower, "upper": problem.upper}
    return quadratic_form({name: _once(block) for name, block in blocks.items()}, torch.Size([problem.batch]))


def _once(block: Tensor) -> Tensor:
    """Return a block of a batch as one that is shared where all instances have the same."""
    same = len(block) > 1 and bool((block == block[:1]).all())
    return block[0] if same else block
