"""The searches of the upper problem, on losses whose minimum is known."""

import math

import pytest

import argminlayer as al
from argminlayer_bilevel._ridge import Evaluation
from argminlayer_bilevel._search import Outcome, Rules, check_search, optimizers, search

RULES = Rules(limits=(1e-8, 1e12), tolerance=1e-7, max_solves=400, rate=0.1)
CENTRE = math.log(200.0)


def evaluation(log_mu, loss, slope):
    return Evaluation(log_mu, loss, slope, "none")


def valley(s):
    """Fall from one plateau to a minimum at CENTRE and rise to another, as validation curves do."""
    dip = math.exp(-0.5 * (s - CENTRE) ** 2 / 4)
    return evaluation(s, 2.0 - dip, dip * (s - CENTRE) / 4)


def tilted(sign):
    """Rise (sign = 1) or fall (sign = -1) all the way, between two plateaus."""

    def loss(s):
        return evaluation(
            s, 1.0 + 1 / (1 + math.exp(-sign * s)), sign * math.exp(-abs(s)) / (1 + math.exp(-abs(s))) ** 2
        )

    return loss


def waves(s):
    """Have minima where s / 3 is an odd multiple of pi, and maxima between."""
    return evaluation(s, 2.0 + math.cos(s / 3), -math.sin(s / 3) / 3)


@pytest.mark.parametrize("start", [1e-3, 0.1, 199.0, 800.0, 1e6])
def test_the_secant_search_finds_the_minimum_in_at_most_20_solves(start):
    trace = search("secant", valley, start, RULES)
    assert trace.outcome == Outcome.MINIMUM
    assert trace.found.mu == pytest.approx(200.0, rel=1e-6)
    assert len(trace.steps) <= 20
    assert trace.steps[0].mu == pytest.approx(start)


def test_the_secant_search_works_where_the_loss_is_nearly_flat():
    trace = search("secant", valley, 1e-8, RULES)
    assert trace.outcome == Outcome.MINIMUM
    assert trace.found.mu == pytest.approx(200.0, rel=1e-6)


@pytest.mark.parametrize("name", ["secant", "lbfgs", "rprop"])
@pytest.mark.parametrize("start", [0.99, 1.01])
def test_a_start_beside_a_maximum_leads_to_a_minimum(name, start):
    trace = search(name, waves, start, RULES)
    assert trace.outcome == Outcome.MINIMUM
    assert math.cos(trace.found.log_mu / 3) == pytest.approx(-1.0)


@pytest.mark.parametrize("name", ["secant", "lbfgs", "rprop"])
@pytest.mark.parametrize(("sign", "outcome", "mu"), [(1, Outcome.LOWER_LIMIT, 1e-3), (-1, Outcome.UPPER_LIMIT, 1e3)])
def test_a_loss_without_minimum_ends_at_a_limit_and_not_at_a_minimum(name, sign, outcome, mu):
    rules = Rules(limits=(1e-3, 1e3), tolerance=1e-7, max_solves=400, rate=0.1)
    trace = search(name, tilted(sign), 1.0, rules)
    assert trace.outcome == outcome
    assert trace.found.mu == pytest.approx(mu)
    assert all(rules.clip(step.log_mu) == step.log_mu for step in trace.steps)


@pytest.mark.parametrize("name", ["secant", "adam"])
def test_a_loss_that_does_not_depend_on_mu_is_called_flat(name):
    assert search(name, lambda s: evaluation(s, 1.0, 0.0), 1.0, RULES).outcome == Outcome.FLAT


@pytest.mark.parametrize("name", ["secant", "lbfgs", "adam"])
def test_a_search_without_solves_left_says_so_and_returns_the_lowest_loss_met(name):
    rules = Rules(limits=(1e-8, 1e12), tolerance=1e-7, max_solves=4, rate=0.1)
    trace = search(name, valley, 0.1, rules)
    assert trace.outcome == Outcome.OUT_OF_SOLVES
    assert len(trace.steps) == 4
    assert trace.found.loss == min(step.loss for step in trace.steps)


@pytest.mark.parametrize("name", ["lbfgs", "rprop", "sgd"])
@pytest.mark.parametrize("noise", [0.0, 1e-13])
def test_a_leap_onto_a_plateau_is_not_taken_for_convergence(name, noise):
    def loss(s):
        found = tilted(-1)(s)
        return evaluation(s, found.loss, found.slope + noise * math.sin(1e6 * s))

    for rate in (1.0, 30.0, 100.0):
        outcome = search(name, loss, 0.1, Rules((1e-8, 1e12), 1e-7, 100, rate)).outcome
        assert outcome in (Outcome.UPPER_LIMIT, Outcome.OUT_OF_SOLVES)


def test_a_flat_stretch_is_not_taken_for_a_minimum():
    rules = Rules(limits=(1e-8, 1e12), tolerance=1e-7, max_solves=50, rate=1.0)
    assert search("sgd", tilted(-1), 1e6, rules).outcome == Outcome.OUT_OF_SOLVES


@pytest.mark.parametrize(("name", "rate"), [("adam", 0.1), ("LBFGS", 1.0), ("sgd", 2.0), ("rprop", 0.1)])
@pytest.mark.parametrize("start", [20.0, 800.0])
def test_torchoptimizers_find_the_minimum(name, rate, start):
    trace = search(name, valley, start, Rules((1e-8, 1e12), 1e-7, 400, rate))
    assert trace.outcome == Outcome.MINIMUM
    assert trace.found.mu == pytest.approx(200.0, rel=1e-5)


@pytest.mark.parametrize("name", optimizers())
def test_every_optimizer_offered_makes_the_loss_smaller(name):
    trace = search(name, valley, 800.0, Rules((1e-8, 1e12), 1e-7, 20, 0.1))
    assert trace.found.loss < trace.steps[0].loss


def test_an_evaluation_is_made_for_each_step_counted():
    asked = []
    trace = search("lbfgs", lambda s: asked.append(s) or valley(s), 20.0, RULES)
    assert [step.log_mu for step in trace.steps] == asked


def test_an_unknown_search_is_an_error_that_offers_near_matches():
    with pytest.raises(al.ExperimentError, match=r"no search 'adan'\. Did you mean 'adam'.*Known are secant, .*sgd"):
        check_search("adan")
    with pytest.raises(al.ExperimentError, match=r"no search 'sparseadam'"):
        search("sparseadam", valley, 1.0, RULES)
