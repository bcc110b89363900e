"""The laws of a solver plugin, as a class of tests to subclass."""

import dataclasses
import math
import pickle
import typing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from .._argmin import solve
from .._bound import BoundProblem, bind
from .._errors import SolverError
from .._layout import WORKING_DTYPE
from .._solution import Solution, Status
from .._solver import CONSTRAINTS, OBJECTIVES, AbstractSolver, Candidate
from .._start import first_start
from ._differences import central_differences
from ._known import KnownProblem
from ._problems import INFEASIBLE_PROBLEMS, KNOWN_PROBLEMS

BLAMES_THE_CONSTRAINTS = frozenset(
    {
        Status.INFEASIBLE,
        Status.NOT_FEASIBLE,
        Status.MAX_ITERATIONS,
        Status.TIME_LIMIT,
        Status.NOT_FINITE,
        Status.BREAKDOWN,
    }
)
"""What may be said of an instance that has no feasible point; the other statuses say that there is one."""


class SolverConformance:
    """What every solver must pass. Subclass it, call the subclass ``Test...``, and set ``solver``.

    A solver that handles a problem is asked for its solution, which must be the known one; a solver that does not must
    say why. Tests of what a solver does not claim are skipped, and the skip says so.

    Attributes:
        solver: the solver, with the options to test.
        problems: what it is tested on. Extend it for a solver of a structure that is not among them.
        infeasible: problems of which one instance cannot be solved.
        tolerance: of values, multipliers and gradients after the engine's refinement, relative to ``1 + |expected|``.
        raw_tolerance: of the point and the multipliers that the solver itself returns.
    """

    solver: ClassVar[AbstractSolver]
    problems: ClassVar[Sequence[KnownProblem]] = KNOWN_PROBLEMS
    infeasible: ClassVar[Sequence[KnownProblem]] = INFEASIBLE_PROBLEMS
    tolerance: ClassVar[float] = 1e-7
    raw_tolerance: ClassVar[float] = 1e-3

    def cut_short(self) -> AbstractSolver | None:
        """Return the solver limited to one iteration, None if it cannot be: by default the one with ``max_iter=1``."""
        if "max_iter" not in {field.name for field in dataclasses.fields(self.solver)}:  # type: ignore[arg-type]
            return None
        return dataclasses.replace(self.solver, max_iter=1)  # type: ignore[type-var]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test once for each problem of the kind that its argument names."""
        cases: dict[str, Callable[[], list[KnownProblem]]] = {
            "any_problem": lambda: [*self.problems, *self.infeasible],
            "known": lambda: self._supported(self.problems),
            "example": lambda: _one_of_each_kind(self._supported(self.problems)),
            "constrained": lambda: [k for k in self._supported(self.problems) if _has_multipliers(k)],
            "partly_infeasible": lambda: self._supported(self.infeasible),
        }
        for argument in cases.keys() & set(metafunc.fixturenames):
            found = cases[argument]()
            none = pytest.param(None, marks=pytest.mark.skip(reason=f"{self.solver.name} claims no such problem"))
            metafunc.parametrize(argument, found or [none], ids=[known.name for known in found] or ["none"])

    @pytest.fixture(autouse=True)
    def _is_available(self) -> None:
        available = self.solver.available()
        if not available:
            pytest.skip(f"{self.solver.name} cannot run here: {available.reason}")

    # What it declares.

    def test_its_name_is_that_of_its_plugin_and_its_own(self) -> None:
        plugin, _, own = type(self.solver).name.partition(".")
        assert plugin, "the part before the first dot is the name of the entry point"
        assert own, "write '<entry point>.<solver>'"

    def test_it_is_a_frozen_value_with_typed_options_and_defaults(self) -> None:
        kind = type(self.solver)
        assert dataclasses.is_dataclass(kind), "decorate it with @dataclass(frozen=True)"
        assert kind.__dataclass_params__.frozen, "decorate it with @dataclass(frozen=True)"
        types = typing.get_type_hints(kind)
        assert [field.name for field in dataclasses.fields(kind) if types[field.name] is Any] == []
        assert isinstance(kind(), AbstractSolver), "every option needs a default"

    def test_equal_options_make_equal_solvers_that_can_be_hashed_and_pickled(self) -> None:
        twin = dataclasses.replace(self.solver)  # type: ignore[type-var]
        assert twin == self.solver
        assert hash(twin) == hash(self.solver)
        assert pickle.loads(pickle.dumps(self.solver)) == self.solver

    def test_it_says_what_it_is_made_of(self) -> None:
        assert self.solver.available().reason == ""
        assert self.solver.capabilities.objectives, "a solver that claims no kind of objective solves nothing"

    def test_every_claim_is_exercised(self) -> None:
        supported = self._supported(self.problems)
        constraints = {kind for known in supported for kind in known.problem.constraints}
        objectives = {known.problem.objective_kind for known in supported}
        claimed = self.solver.capabilities
        extend = "it claims what it refuses on every known problem; drop the claim, or extend `problems`"
        assert claimed.constraints - constraints == set(), extend
        assert claimed.objectives - objectives == set(), extend

    def test_it_solves_a_problem_or_says_why_not(self, any_problem: KnownProblem) -> None:
        bound = bind(any_problem.problem, any_problem.parameters)
        reason = self.solver.supports(bound)
        if reason is None:
            unclaimed = _kinds(any_problem) - self.solver.capabilities.constraints - self.solver.capabilities.objectives
            assert unclaimed == set(), "it accepts what it does not claim"
            assert math.isfinite(self.solver.preference(bound))
        else:
            assert isinstance(reason, str)
            assert reason.strip(), "a refusal needs a reason"
            with pytest.raises(SolverError, match="cannot be used"):
                self._solve(any_problem)

    # What it finds.

    def test_the_solution_and_its_gradient_are_the_known_ones(self, known: KnownProblem) -> None:
        parameters = _leaves(known.parameters)
        solution = self._solve(known, *parameters)
        expected = known.values(*parameters)
        self._assert_close(_values(solution), expected, "value")
        weights = tuple(map(_weights, expected))
        found = _pullback(_values(solution), parameters, weights)
        self._assert_close(found, _pullback(expected, parameters, weights), "gradient")

    def test_multipliers_and_their_gradient_are_the_known_ones(self, constrained: KnownProblem) -> None:
        parameters = _leaves(constrained.parameters)
        multipliers = self._solve(constrained, *parameters).multipliers
        found, expected = (multipliers.equality, multipliers.inequality), constrained.forces(*parameters)
        self._assert_close(found, expected, "multiplier")
        weights = tuple(map(_weights, expected))
        self._assert_close(
            _pullback(found, parameters, weights), _pullback(expected, parameters, weights), "gradient of a multiplier"
        )

    def test_its_candidate_is_near_the_solution_and_fits_the_contract(self, known: KnownProblem) -> None:
        bound, candidate = self._candidate(known)
        _assert_well_formed(candidate, bound)
        expected = bound.layout.flatten(_variables(known.values(*known.parameters)), "the answer")
        self._assert_close([candidate.value], [expected], "value returned by the solver", self.raw_tolerance)

    @pytest.mark.parametrize("factor", [1.0, -1.0, 3.0], ids=["as stated", "flipped", "scaled"])
    def test_its_own_multipliers_have_our_sign_and_scale(self, constrained: KnownProblem, factor: float) -> None:
        scaled = constrained.scaled(factor)
        _, candidate = self._candidate(scaled)
        nu, lam = candidate.equality, candidate.inequality
        if nu is None or lam is None:
            pytest.skip(f"{self.solver.name} returns no multipliers; the engine recovers them")
        self._assert_close([nu, lam], scaled.forces(*scaled.parameters), "multiplier", self.raw_tolerance)

    @pytest.mark.parametrize("factor", [-1.0, 3.0], ids=["flipped", "scaled"])
    def test_multipliers_follow_the_sign_and_scale_of_the_constraints(
        self, constrained: KnownProblem, factor: float
    ) -> None:
        plain, scaled = self._solve(constrained).multipliers, self._solve(constrained.scaled(factor)).multipliers
        self._assert_close([scaled.equality * factor], [plain.equality], "multiplier of an equality")
        self._assert_close([scaled.inequality * abs(factor)], [plain.inequality], "multiplier of an inequality")

    def test_gradients_agree_with_central_differences_of_solutions(self, example: KnownProblem) -> None:
        parameters = _leaves(example.instance(0))
        values = _values(self._solve(example, *parameters))
        weights = tuple(map(_weights, values))
        directions = tuple(map(_weights, parameters))

        def along(distance: Tensor) -> Tensor:
            moved = (p + distance * d for p, d in zip(parameters, directions, strict=True))
            return _inner(weights, _values(self._solve(example, *moved)))

        (difference,) = central_differences(along, torch.zeros(()))
        slope = _inner(directions, _pullback(values, parameters, weights))
        self._assert_close([slope], [difference], "derivative", 100.0 * self.tolerance)

    # Batches.

    def test_a_batch_equals_its_elements(self, known: KnownProblem) -> None:
        together = _values(self._solve(known))
        alone = [_values(self._solve(known, *known.instance(i))) for i in range(known.batch)]
        for found, *singles in zip(together, *alone, strict=True):
            self._assert_close([found], [torch.stack(singles)], "value in the batch")

    def test_the_order_and_the_shape_of_a_batch_do_not_matter(self, example: KnownProblem) -> None:
        order = torch.tensor([[2, 0], [1, 2]])
        mixed = self._solve(example, *(p[order] for p in example.parameters))
        expected = [value[order] for value in example.values(*example.parameters)]
        self._assert_close(_values(mixed), expected, "value in the rearranged batch")

    def test_an_empty_batch_has_an_empty_solution(self, example: KnownProblem) -> None:
        solution = self._solve(example, *(p[:0] for p in example.parameters))
        assert [len(value) for value in _values(solution)] == [0] * len(_values(solution))

    def test_a_parameter_shared_by_a_batch_gets_the_sum_of_gradients(self, example: KnownProblem) -> None:
        *own, shared = _leaves(example.parameters[:-1]) + _leaves([example.parameters[-1][0]])
        solution = self._solve(example, *own, shared) if own else self._solve(example, shared[None])
        weights = tuple(map(_weights, _values(solution)))
        (total,) = _pullback(_values(solution), (shared,), weights)
        parts = torch.zeros_like(shared)
        for i in range(len(_values(solution)[0])):
            (leaf,) = _leaves([shared])
            alone = _values(self._solve(example, *(p[i] for p in own), leaf))
            parts = parts + _pullback(alone, (leaf,), tuple(w[i] for w in weights))[0]
        self._assert_close([total], [parts], "gradient of the shared parameter")

    def test_single_precision_in_gives_single_precision_out(self, example: KnownProblem) -> None:
        parameters = _leaves([p.float() for p in example.parameters])
        values = _values(self._solve(example, *parameters))
        assert {value.dtype for value in values} == {torch.float32}
        gradients = _pullback(values, parameters, tuple(map(_weights, values)))
        assert {gradient.dtype for gradient in gradients} == {torch.float32}
        self._assert_close([v.double() for v in values], example.values(*example.parameters), "value", 1e-5)

    # Failures.

    def test_an_infeasible_instance_is_reported_and_harms_no_other(self, partly_infeasible: KnownProblem) -> None:
        parameters = _leaves(partly_infeasible.parameters)
        solution = self._solve(partly_infeasible, *parameters, throw=False)
        bad = torch.tensor([i in partly_infeasible.unsolvable for i in range(partly_infeasible.batch)])
        assert solution.ok.tolist() == (~bad).tolist(), [Status(s).name for s in solution.status.tolist()]
        assert {Status(s) for s in solution.status[bad].tolist()} <= BLAMES_THE_CONSTRAINTS
        expected = partly_infeasible.values(*parameters)
        for value, known in zip(_values(solution), expected, strict=True):
            assert value[bad].isnan().all(), "a failed instance must not look like a solution"
            self._assert_close([value[~bad]], [known[~bad]], "value beside a failed instance")
        weights = tuple(map(_weights, expected))
        found = _pullback(_values(solution), parameters, weights)
        solved = tuple(torch.where(bad.reshape(-1, *[1] * (w.ndim - 1)), 0.0, w) for w in weights)
        for gradient, known in zip(found, _pullback(expected, parameters, solved), strict=True):
            assert gradient[bad].isnan().all(), "the gradient of a failed instance must not look like one"
            self._assert_close([gradient[~bad]], [known[~bad]], "gradient beside a failed instance")

    def test_its_candidate_for_an_infeasible_instance_does_not_claim_success(
        self, partly_infeasible: KnownProblem
    ) -> None:
        bound, candidate = self._candidate(partly_infeasible)
        _assert_well_formed(candidate, bound)
        bad = sorted(partly_infeasible.unsolvable)
        assert (candidate.status[bad] != Status.SOLVED).all(), candidate.messages

    def test_a_solve_that_is_cut_short_is_not_called_solved(self) -> None:
        short = self.cut_short()
        far = [known for known in self._supported(self.problems) if known.far]
        if short is None:
            pytest.skip(f"{self.solver.name} has no option max_iter; override `cut_short` if it can be limited")
        if not far:
            pytest.skip(f"{self.solver.name} solves none of the problems that need several iterations")
        ended_early = 0
        for known in far:
            bound, candidate = self._candidate(known, short)
            expected = bound.layout.flatten(_variables(known.values(*known.parameters)), "the answer")
            off = (candidate.value - expected).abs().amax(-1) > self.raw_tolerance
            assert (candidate.status[off] != Status.SOLVED).all(), (known.name, candidate.messages)
            ended_early += int(off.sum())
            solution = solve(known.problem, *known.parameters, solver=short, throw=False)
            found = [value[solution.ok] for value in _values(solution)]
            answer = [value[solution.ok] for value in known.values(*known.parameters)]
            self._assert_close(found, answer, f"value called solved of {known.name}")
        assert ended_early, "one iteration solves all of these problems: override `cut_short` so that it does not"

    # Side effects.

    def test_inputs_are_left_as_they_were(self, known: KnownProblem) -> None:
        bound = bind(known.problem, known.parameters)
        start = first_start(bound)
        inputs = (start, bound.lower, bound.upper, *bound.parameters, *known.parameters)
        before = [tensor.clone() for tensor in inputs]
        self.solver.solve(bound, start)
        for tensor, copy in zip(inputs, before, strict=True):
            assert torch.equal(tensor, copy), "it modified its start, the bounds or the parameters"

    def test_nothing_is_kept_from_one_call_to_the_next(self, example: KnownProblem) -> None:
        options = dict(vars(self.solver))
        _, first = self._candidate(example)
        for other in _one_of_each_kind(self._supported(self.problems)):
            self._candidate(other)
        _, again = self._candidate(example)
        self._assert_close([again.value], [first.value], "second answer", 1e-12)
        if first.iterations is not None:
            assert again.iterations is not None
            assert again.iterations.tolist() == first.iterations.tolist(), "a second call takes another path"
        assert vars(self.solver) == options

    def test_two_threads_do_not_meet(self) -> None:
        examples = _one_of_each_kind(self._supported(self.problems)) * 2
        serial = [self._candidate(known)[1].value for known in examples]
        with ThreadPoolExecutor(max_workers=2) as pool:
            threaded = list(pool.map(lambda known: self._candidate(known)[1].value, examples))
        self._assert_close(threaded, serial, "value found beside another thread", 1e-9)

    # Shorthand.

    def _supported(self, problems: Sequence[KnownProblem]) -> list[KnownProblem]:
        return [k for k in problems if self.solver.supports(bind(k.problem, k.parameters)) is None]

    def _solve(self, known: KnownProblem, *parameters: Tensor, throw: bool = True) -> Solution:
        return solve(known.problem, *(parameters or known.parameters), solver=self.solver, throw=throw)

    def _candidate(self, known: KnownProblem, solver: AbstractSolver | None = None) -> tuple[BoundProblem, Candidate]:
        bound = bind(known.problem, known.parameters)
        return bound, (solver or self.solver).solve(bound, first_start(bound))

    def _assert_close(
        self, found: Sequence[Tensor], expected: Sequence[Tensor], what: str, tolerance: float | None = None
    ) -> None:
        allowed = tolerance or self.tolerance
        for one, other in zip(found, expected, strict=True):
            one, other = one.detach(), other.detach()
            assert one.shape == other.shape, what
            error = (one - other).abs() / (1.0 + other.abs())
            worst = float(error.max()) if error.numel() else 0.0
            assert worst <= allowed, f"the {what} is {one.tolist()}, expected {other.tolist()}"


def _one_of_each_kind(problems: Sequence[KnownProblem]) -> list[KnownProblem]:
    first: dict[tuple[frozenset[str], str], KnownProblem] = {}
    for known in problems:
        first.setdefault(known.kinds, known)
    return list(first.values())


def _kinds(known: KnownProblem) -> frozenset[str]:
    kinds = known.problem.constraints | {known.problem.objective_kind}
    assert kinds <= CONSTRAINTS | OBJECTIVES
    return kinds


def _has_multipliers(known: KnownProblem) -> bool:
    return bool(known.problem.constraints - {"bounds"})


def _leaves(parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(p.detach().clone().requires_grad_() for p in parameters)


def _values(solution: Solution) -> tuple[Tensor, ...]:
    return solution.value if isinstance(solution.value, tuple) else (solution.value,)


def _variables(values: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return values if len(values) > 1 else values[0]


def _weights(like: Tensor) -> Tensor:
    """Return weights without structure, the same on every machine."""
    index = torch.arange(1, like.numel() + 1, dtype=WORKING_DTYPE)
    return (torch.cos(7.13 * index) + 0.2).reshape(like.shape).to(like.dtype)


def _inner(weights: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    parts: Iterator[Tensor] = ((w * v).sum() for w, v in zip(weights, values, strict=True))
    return torch.stack(list(parts)).sum()


def _pullback(
    values: Sequence[Tensor], parameters: tuple[Tensor, ...], weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(_inner(weights, values), parameters, materialize_grads=True, retain_graph=True)


def _assert_well_formed(candidate: Candidate, bound: BoundProblem) -> None:
    shapes = {
        "value": (bound.batch, bound.size),
        "equality": (bound.batch, bound.equalities),
        "inequality": (bound.batch, bound.inequalities),
    }
    for name, shape in shapes.items():
        tensor = getattr(candidate, name)
        if tensor is not None:
            assert tuple(tensor.shape) == shape, name
            assert tensor.dtype == WORKING_DTYPE, name
            assert not tensor.requires_grad, f"{name} drags a graph along; solve under torch.no_grad()"
    assert (candidate.equality is None) == (candidate.inequality is None), "give both multipliers or neither"
    assert tuple(candidate.status.shape) == (bound.batch,)
    assert set(candidate.status.tolist()) <= set(map(int, Status))
    assert candidate.iterations is None or tuple(candidate.iterations.shape) == (bound.batch,)
    assert len(candidate.messages) in {0, bound.batch}
