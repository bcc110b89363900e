"""Every example runs, and its answer is the one obtained without the library."""

import importlib.util
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "examples"


def run(name, *arguments):
    """Run the example ``name.py`` and return what its ``main`` returns."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(*arguments)


def test_each_stationary_point_of_the_quartic_moves_as_the_closed_form_says():
    rows = run("01_hello_argmin")
    assert len(rows) == 3
    for point, slope, expected_point, expected_slope in rows:
        assert point == pytest.approx(expected_point, abs=1e-12)
        assert slope == pytest.approx(expected_slope, abs=1e-10)


def test_projections_and_their_jacobians_are_those_of_sorting_and_scaling():
    results = run("02_projection_onto_simplex_and_ball")
    assert set(results) == {"simplex", "ball"}
    for value, jacobian in results.values():
        assert value < 1e-10
        assert jacobian < 1e-10


def test_gradient_descent_moves_the_most_likely_points_to_their_targets():
    losses, found, tried = run("03_bilevel_by_gradient_descent")
    assert losses[0] > 1.0
    assert losses[-1] < 1e-9
    # the grid has steps of 0.0003 along the circle, and the objective is flat at its maximum
    assert torch.allclose(found, tried, atol=2e-3)


def test_most_likely_points_move_as_the_paper_and_the_angle_say():
    results = run("04_constrained_maximum_likelihood")
    free, line, ball = results.values()
    assert free[0].norm() > 1.0
    assert line[0].sum().item() == pytest.approx(1.0, abs=1e-10)
    assert ball[0].norm().item() == pytest.approx(1.0, abs=1e-10)
    assert max(difference for _, difference in results.values()) < 1e-9


def test_a_forecast_trained_on_regret_decides_better_than_an_accurate_one():
    trained, two_stage, difference = run("05_predict_then_optimize_portfolio")
    assert 0.0 <= trained < 0.5 * two_stage
    assert difference < 1e-5


def test_every_solver_gives_the_gradient_of_least_squares_on_the_support():
    gradients, expected = run("06_same_node_many_solvers")
    assert {"scipy.lbfgs", "scipy.slsqp", "scipy.trust-constr", "scipy.least-squares", "attach(nnls)"} <= set(gradients)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected, rtol=0.0, atol=1e-9), name


def test_the_log_barrier_has_the_derivative_of_its_closed_form_and_converges(tmp_path):
    rows = run("07_log_barrier", tmp_path / "figure.png")
    weights, values, slopes, differences = zip(*rows, strict=True)
    assert weights == (1.0, 10.0, 100.0, 1e4, 1e8)
    assert list(values) == sorted(values, reverse=True)
    assert list(slopes) == sorted(slopes, reverse=True)
    assert slopes[-1] < 1e-6
    assert max(differences) < 1e-12
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_friction_is_learned_through_optimal_control():
    pytest.importorskip("casadi", reason="needs the extra casadi")
    losses, found, true, (slope, difference) = run("09_optimal_control_of_a_pendulum", 12)
    assert losses[-1] < 0.05 * losses[0]
    assert torch.allclose(found, true, atol=0.05)
    assert slope == pytest.approx(difference, rel=1e-5)


def test_sensitivities_to_prices_are_learned_and_prices_are_what_consumers_would_pay():
    found = run("08_ac_power_dispatch")
    torch.testing.assert_close(found["found"], torch.tensor([6.0, 9.0], dtype=torch.float64), rtol=1e-4, atol=0)
    torch.testing.assert_close(found["prices"], found["marginal worth"], rtol=1e-6, atol=1e-6)


def test_three_languages_give_the_gradient_of_the_closed_form():
    gradients = run("10_one_gradient_from_three_languages")
    expected = gradients.pop("closed form")
    assert list(gradients) == ["scipy", "casadi.ipopt", "pyomo.ipopt"]
    for gradient in gradients.values():
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_activations_written_in_cvxpy_are_those_of_torch():
    pytest.importorskip("cvxpy", reason="needs the extra cvxpy")
    differences = run("11_layers_from_cvxpy")
    assert list(differences) == ["relu", "ball", "sigmoid", "softmax", "sparsemax"]
    for name, (value, slope) in differences.items():
        assert value < 1e-7, name
        assert slope < 1e-6, name


def test_a_learned_policy_is_as_good_as_riccati_s_and_better_where_inputs_are_limited():
    pytest.importorskip("cvxpy", reason="needs the extra cvxpy")
    costs = run("12_learning_a_control_policy")
    before, after, riccati = costs["free"]
    assert before > 1.5 * riccati
    assert after < 1.05 * riccati
    before, after, clipped = costs["limited"]
    assert after < 0.98 * clipped


def test_fear_of_trading_is_learned_through_a_month_of_portfolios():
    pytest.importorskip("cvxpy", reason="needs the extra cvxpy")
    first, learned, grid, distance = run("13_portfolio_with_transaction_cost")
    assert learned > 1.01 * first
    assert learned > 0.98 * grid
    assert distance < 1e-5


def test_learned_weights_find_the_faulty_samples():
    pytest.importorskip("cvxpy", reason="needs the extra cvxpy")
    distances, faulty, good = run("17_weights_for_robust_regression")
    assert distances["learned weights"] < 0.3 * distances["huber"] < distances["least squares"]
    assert distances["learned weights"] < 2.0 * distances["good samples"]
    assert faulty < 0.2 < 0.5 < good


def test_weights_of_flows_are_learned_and_prices_are_what_flows_pay():
    pytest.importorskip("cvxpy", reason="needs the extra cvxpy")
    weights, spent, (slope, difference) = run("18_prices_of_a_shared_network")
    true = torch.tensor([1.0, 2.0, 0.5, 1.5, 0.8], dtype=torch.float64)
    torch.testing.assert_close(weights, true, rtol=2e-2, atol=0.0)
    assert spent < 1e-6
    assert slope == pytest.approx(difference, rel=1e-5)


def test_a_learned_weight_of_total_variation_is_the_best_of_a_grid():
    pytest.importorskip("cvxpy", reason="needs the extra cvxpy")
    weight, error, best, least, difference = run("19_denoising_with_a_learned_weight")
    assert error <= least
    assert weight == pytest.approx(best, rel=0.15)
    assert difference < 1e-8


def test_the_rules_of_sudoku_are_learned_from_solved_boards():
    before, after = run("14_sudoku_by_learned_constraints")
    assert before < 0.1
    assert after > 0.9


def test_a_forecast_trained_on_regret_through_a_quadratic_program_loses_less():
    trained, two_stage, distance = run("15_decision_focused_portfolio")
    assert 0.0 < trained < 0.7 * two_stage
    assert distance < 1e-6


def test_robust_pooling_forgets_outliers_and_learns_how_far_they_are():
    errors, before, after, difference = run("16_pooling_without_outliers")
    assert max(errors["welsch"], errors["truncated-quadratic"], errors["geman-mcclure"]) < 0.1 * errors["quadratic"]
    assert errors["huber"] < 0.5 * errors["quadratic"]
    assert after < 0.5 * before
    assert difference < 1e-9


def test_no_example_is_left_out():
    here = Path(__file__).read_text()
    assert [path.stem for path in sorted(FOLDER.glob("*.py")) if f'run("{path.stem}"' not in here] == []


def test_training_on_attacked_images_withstands_attacks_that_are_as_strong_as_they_can_be():
    errors, accuracies = run("20_adversarial_training")
    assert max(errors.values()) < 1e-10
    usual, robust = accuracies["usual"], accuracies["robust"]
    assert min(usual["clean"], robust["clean"]) > 0.95
    assert robust["p = inf"] > usual["p = inf"] + 0.5
    assert robust["p = 2"] > usual["p = 2"] + 0.2
