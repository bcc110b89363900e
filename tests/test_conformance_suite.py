"""The conformance suites can fail: each solver and experiment here breaks one law, and the test of that law says so.

The broken ones are not collected with this file. They are run once in a process of their own, in which test classes
begin with ``Broken`` or ``Sound``.
"""

import dataclasses
import random
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch

import argminlayer as al
import argminlayer_scipy
from argminlayer.testing import (
    INFEASIBLE_PROBLEMS,
    KNOWN_PROBLEMS,
    ExperimentConformance,
    KnownProblem,
    SolverConformance,
    central_differences,
)

FEW = [k for k in KNOWN_PROBLEMS if k.name in {"valley", "sphere", "ball", "box", "affine projection"}]
ANY = frozenset({"equality", "inequality", "bounds"})


@dataclass(frozen=True)
class Sound(al.AbstractSolver):
    """A solver without a fault; the others each add one."""

    name: ClassVar[str] = "test.sound"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(constraints=ANY, objectives=frozenset({"smooth"}))

    max_iter: int = 500

    def available(self):
        return al.Availability(True)

    def solve(self, problem, start):
        return argminlayer_scipy.SLSQP(max_iter=self.max_iter).solve(problem, start)


class SoundSolver(SolverConformance):
    solver = Sound()
    problems = FEW
    infeasible = INFEASIBLE_PROBLEMS[:1]


class WrongSign(Sound):
    def solve(self, problem, start):
        candidate = super().solve(problem, start)
        return dataclasses.replace(candidate, equality=-candidate.equality)


class BrokenByWrongSign(SoundSolver):
    solver = WrongSign()
    law = "test_its_own_multipliers_have_our_sign_and_scale"
    because = "the multiplier is"


class WrongScale(Sound):
    def solve(self, problem, start):
        candidate = super().solve(problem, start)
        return dataclasses.replace(candidate, inequality=2.0 * candidate.inequality)


class BrokenByWrongScale(SoundSolver):
    solver = WrongScale()
    law = "test_its_own_multipliers_have_our_sign_and_scale"
    because = "the multiplier is"


class IgnoresConstraints(Sound):
    def solve(self, problem, start):
        return argminlayer_scipy.LBFGS(max_iter=self.max_iter).solve(problem, start)


class BrokenByIgnoringConstraints(SoundSolver):
    solver = IgnoresConstraints()
    law = "test_the_solution_and_its_gradient_are_the_known_ones"
    because = "SolveFailed: test.sound did not solve"


class AlwaysSolved(Sound):
    def solve(self, problem, start):
        candidate = super().solve(problem, start)
        return dataclasses.replace(candidate, status=torch.zeros_like(candidate.status))


class BrokenByCallingATruncatedSolveSolved(SoundSolver):
    solver = AlwaysSolved()
    law = "test_a_solve_that_is_cut_short_is_not_called_solved"
    because = "Iteration limit reached"


class BrokenByCallingAnInfeasibleInstanceSolved(SoundSolver):
    solver = AlwaysSolved()
    law = "test_its_candidate_for_an_infeasible_instance_does_not_claim_success"
    because = "no feasible point"


class IgnoresLimit(Sound):
    def solve(self, problem, start):
        return argminlayer_scipy.SLSQP().solve(problem, start)


class BrokenByIgnoringItsLimit(SoundSolver):
    solver = IgnoresLimit()
    law = "test_a_solve_that_is_cut_short_is_not_called_solved"
    because = "one iteration solves all of these problems"


class ModifiesStart(Sound):
    def solve(self, problem, start):
        candidate = super().solve(problem, start)
        start.copy_(candidate.value)
        return candidate


class BrokenByModifyingItsStart(SoundSolver):
    solver = ModifiesStart()
    law = "test_inputs_are_left_as_they_were"
    because = "it modified its start"


class KeepsState(Sound):
    """Begins where an earlier call ended."""

    _last: ClassVar[dict] = {}

    def solve(self, problem, start):
        candidate = super().solve(problem, self._last.get(start.shape, start))
        self._last[start.shape] = candidate.value
        return candidate


class BrokenByKeepingState(SoundSolver):
    solver = KeepsState()
    problems = FEW[:1]
    infeasible = ()
    law = "test_nothing_is_kept_from_one_call_to_the_next"
    because = "the second answer is|a second call takes another path"


class LosesOrder(Sound):
    def solve(self, problem, start):
        candidate = super().solve(problem, start)
        return dataclasses.replace(candidate, value=candidate.value.flip(0))


class BrokenByLosingTheOrderOfTheBatch(SoundSolver):
    solver = LosesOrder()
    law = "test_its_candidate_is_near_the_solution_and_fits_the_contract"
    because = "the value returned by the solver is"


class GivesUpTogether(Sound):
    """Lets one failed instance spoil the batch."""

    def solve(self, problem, start):
        candidate = super().solve(problem, start)
        spoilt = (candidate.status != al.Status.SOLVED).any()
        return dataclasses.replace(candidate, value=torch.where(spoilt, start, candidate.value))


class BrokenByGivingUpTogether(SoundSolver):
    solver = GivesUpTogether()
    law = "test_an_infeasible_instance_is_reported_and_harms_no_other"
    because = "INFEASIBLE|NOT_"


class LacksWhatItClaims(Sound):
    capabilities = al.Capabilities(constraints=ANY, objectives=frozenset({"smooth", "none"}))

    def solve(self, problem, start):
        if problem.problem.objective is None:
            return al.Candidate(start, torch.zeros(problem.batch, dtype=torch.int64))
        return super().solve(problem, start)


class BrokenByLackingWhatItClaims(SoundSolver):
    solver = LacksWhatItClaims()
    problems = (*FEW, next(k for k in KNOWN_PROBLEMS if k.name == "cube roots"))
    law = "test_the_solution_and_its_gradient_are_the_known_ones"
    because = "SolveFailed: test.sound did not solve"


class RefusesWhatItClaims(Sound):
    def supports(self, problem):
        return super().supports(problem) or ("not today" if problem.inequalities else None)


class BrokenByRefusingWhatItClaims(SoundSolver):
    solver = RefusesWhatItClaims()
    law = "test_every_claim_is_exercised"
    because = "it claims what it refuses on every known problem"


class AcceptsWhatItDoesNotClaim(Sound):
    capabilities = al.Capabilities(constraints=frozenset({"equality", "bounds"}), objectives=frozenset({"smooth"}))

    def supports(self, problem):
        return None


class BrokenByAcceptingWhatItDoesNotClaim(SoundSolver):
    solver = AcceptsWhatItDoesNotClaim()
    law = "test_it_solves_a_problem_or_says_why_not"
    because = "it accepts what it does not claim"


class RefusesInSilence(Sound):
    def supports(self, problem):
        return "" if problem.inequalities else super().supports(problem)


class BrokenByRefusingInSilence(SoundSolver):
    solver = RefusesInSilence()
    law = "test_it_solves_a_problem_or_says_why_not"
    because = "a refusal needs a reason"


class DragsAGraph(Sound):
    def solve(self, problem, start):
        candidate = super().solve(problem, start)
        return dataclasses.replace(candidate, value=candidate.value.requires_grad_())


class BrokenByDraggingAGraph(SoundSolver):
    solver = DragsAGraph()
    law = "test_its_candidate_is_near_the_solution_and_fits_the_contract"
    because = "drags a graph along"


class SharesScratch(Sound):
    """Works in one place for all threads."""

    _scratch: ClassVar[dict] = {}

    def solve(self, problem, start):
        self._scratch["now"] = problem, start
        time.sleep(0.02)
        return super().solve(*self._scratch["now"])


class BrokenBySharingScratchBetweenThreads(SoundSolver):
    solver = SharesScratch()
    law = "test_two_threads_do_not_meet"
    because = "value found beside another thread"


class Nameless(Sound):
    name = "sound"


class BrokenByItsName(SoundSolver):
    solver = Nameless()
    law = "test_its_name_is_that_of_its_plugin_and_its_own"
    because = "write '<entry point>.<solver>'"


class NoValue(al.AbstractSolver):
    """A class with state of its own where a frozen dataclass would do."""

    name = "test.no-value"
    capabilities = Sound.capabilities

    def available(self):
        return al.Availability(True)

    def solve(self, problem, start):
        return Sound().solve(problem, start)


class BrokenByBeingNoValue(SoundSolver):
    solver = NoValue()
    law = "test_it_is_a_frozen_value_with_typed_options_and_defaults"
    because = "decorate it with @dataclass\\(frozen=True\\)"


def setting(default, help="what it is"):
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Study(al.AbstractExperiment):
    """An experiment without a fault; the others each add one."""

    name: ClassVar[str] = "study"
    summary: ClassVar[str] = "draws a number"

    count: int = setting(3)
    seed: int = setting(0)

    def run(self, progress):
        generator = torch.Generator().manual_seed(self.seed)
        numbers = [torch.rand((), generator=generator).item() for _ in progress.track(range(self.count), "drawing")]
        return al.Result({"numbers": numbers, "seconds": random.Random().random()}, figures={"curve": self._draw})

    def _draw(self):
        from matplotlib.figure import Figure

        return Figure()


class SoundExperiment(ExperimentConformance):
    experiment = Study()


class Careless(Study):
    def run(self, progress):
        return al.Result({"number": torch.rand(())})


class BrokenByRecordsThatIgnoreTheSeed(ExperimentConformance):
    experiment = Careless()
    law = "test_equal_settings_give_equal_records"
    because = "assert False"


class BrokenByDrawingFromTheGlobalGenerator(ExperimentConformance):
    experiment = Careless()
    law = "test_it_prints_nothing_and_leaves_the_settings_and_the_random_state_alone"
    because = "torch.Generator of its own"


class Printing(Study):
    def run(self, progress):
        print("working")
        return super().run(progress)


class BrokenByPrinting(ExperimentConformance):
    experiment = Printing()
    law = "test_it_prints_nothing_and_leaves_the_settings_and_the_random_state_alone"
    because = "show progress through `progress`"


class Opaque(Study):
    def run(self, progress):
        return al.Result({"study": self})


class BrokenByRecordsThatAreNotJson(ExperimentConformance):
    experiment = Opaque()
    law = "test_its_result_can_be_saved_and_its_figures_drawn"
    because = "which has no form in JSON"


@dataclass(frozen=True)
class Silent(Study):
    depth: int = 1


class BrokenByASettingWithoutHelp(ExperimentConformance):
    experiment = Silent()
    law = "test_every_setting_says_what_it_is"
    because = "give these fields metadata"


@dataclass(frozen=True)
class Unwritable(Study):
    table: dict = field(default_factory=dict, metadata={"help": "a table"})


class BrokenByASettingWithoutAFormAsText(ExperimentConformance):
    experiment = Unwritable()
    law = "test_every_setting_can_be_written_on_the_command_line"
    because = "'table'"


@dataclass(frozen=True)
class Seedless(al.AbstractExperiment):
    name: ClassVar[str] = "seedless"
    summary: ClassVar[str] = "finds a constant"

    def run(self, progress):
        return al.Result({"pi": 3.14})


class BrokenByHavingNoSeed(ExperimentConformance):
    experiment = Seedless()
    law = "test_the_seed_is_a_setting"
    because = "'seed' in"


BROKEN = [value for name, value in list(globals().items()) if name.startswith("BrokenBy")]
SOUND = [SoundSolver, SoundExperiment]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Run the suites in a process of their own; return what each test of each class said, None if it passed."""
    report = tmp_path_factory.mktemp("suite") / "report.xml"
    chosen = [f"{__file__}::{cls.__name__}::{cls.law}" for cls in BROKEN]
    chosen += [f"{__file__}::{cls.__name__}" for cls in SOUND]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    names = " ".join(cls.__name__ for cls in (*BROKEN, *SOUND))
    done = subprocess.run(
        [*command, "-o", f"python_classes={names}", *chosen], capture_output=True, text=True, timeout=300
    )
    assert done.returncode in {0, 1}, f"{done.stdout}\n{done.stderr}"
    found = {cls.__name__: [] for cls in (*BROKEN, *SOUND)}
    for case in ET.parse(report).iter("testcase"):
        verdicts = [child for child in case if child.tag in {"failure", "error"}]
        found[case.get("classname").rpartition(".")[2]].append(verdicts[0].get("message") if verdicts else None)
    return found


@pytest.mark.parametrize("broken", BROKEN, ids=lambda cls: cls.__name__)
def test_a_broken_law_makes_its_test_fail_for_that_reason(broken, outcomes):
    messages = [message for message in outcomes[broken.__name__] if message is not None]
    assert messages, f"{broken.law} passed on all of {len(outcomes[broken.__name__])} cases"
    assert any(re.search(broken.because, message) for message in messages), messages


@pytest.mark.parametrize("sound", SOUND, ids=lambda cls: cls.__name__)
def test_what_keeps_every_law_passes_every_test(sound, outcomes):
    assert len(outcomes[sound.__name__]) >= 7
    assert [message for message in outcomes[sound.__name__] if message is not None] == []


def test_every_known_problem_has_another_name_and_parameters_for_a_batch():
    everything = (*KNOWN_PROBLEMS, *INFEASIBLE_PROBLEMS)
    assert len({known.name for known in everything}) == len(everything)
    assert {known.batch for known in everything} == {3}
    assert {p.dtype for known in everything for p in known.parameters} == {torch.float64}


def test_the_known_problems_cover_every_kind_that_a_solver_can_claim():
    constraints = {kind for known in KNOWN_PROBLEMS for kind in known.problem.constraints}
    assert constraints == ANY
    assert {known.problem.objective_kind for known in KNOWN_PROBLEMS} == {"smooth", "least-squares", "none"}
    assert any(known.problem.maximize for known in KNOWN_PROBLEMS)


@pytest.mark.parametrize("known", KNOWN_PROBLEMS, ids=lambda known: known.name)
def test_every_known_answer_is_certified_with_its_multipliers(known):
    values = known.values(*known.parameters)
    value = values if len(values) > 1 else values[0]
    solution = al.certify(known.problem, value, *known.parameters)
    assert solution.status.tolist() == [al.Status.SOLVED] * known.batch
    assert solution.certificate.error.max() < 1e-12
    found = solution.multipliers.equality, solution.multipliers.inequality
    torch.testing.assert_close(found, known.forces(*known.parameters))


def test_a_scaled_problem_has_scaled_multipliers():
    known = KnownProblem(
        "circle",
        al.Problem(lambda u, x: x @ u, "(n)->(n)", equality=lambda u, x: (u[0] - 1.0, u[1] - 2.0)),
        (torch.ones(1, 2, dtype=torch.float64),),
        lambda x: 0.0 * x + torch.tensor([1.0, 2.0]),
        lambda x: (-x, x[:0]),
    )
    flipped = known.scaled(-2.0)
    assert flipped.name == "circle times -2"
    u = torch.tensor([3.0, 5.0], dtype=torch.float64)
    assert [part.item() for part in flipped.problem.equality(u, u)] == [-4.0, -6.0]
    torch.testing.assert_close(flipped.forces(*known.parameters)[0], torch.full((1, 2), 0.5, dtype=torch.float64))


def test_central_differences_are_the_jacobian_in_every_parameter():
    a = torch.tensor([0.3, -1.2, 100.0])
    b = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    found = central_differences(lambda a, b: torch.outer(a.sin(), torch.stack([b, b**3])), a, b)
    exact = torch.autograd.functional.jacobian(
        lambda a, b: torch.outer(a.sin(), torch.stack([b, b**3])), (a.double(), b.detach())
    )
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)
    assert [tuple(jacobian.shape) for jacobian in found] == [(3, 2, 3), (3, 2)]


def test_central_differences_of_a_cubic_are_exact_up_to_rounding():
    x = torch.linspace(-2.0, 2.0, 4, dtype=torch.float64)
    (found,) = central_differences(lambda x: x**3, x, step=0.5)
    torch.testing.assert_close(found, torch.diag(3.0 * x.square()), rtol=1e-12, atol=1e-12)


def test_central_differences_leave_their_parameters_alone_and_allow_empty_ones():
    x, empty = torch.ones(2), torch.zeros(0)
    (_, nothing) = central_differences(lambda x, empty: x.sum() + empty.sum(), x, empty)
    assert x.tolist() == [1.0, 1.0]
    assert nothing.shape == (0,)
