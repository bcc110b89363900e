"""The experiment as a whole: the optima of the paper, the report, the figures, and settings that cannot be used."""

import io
import json
import sys

import numpy as np
import pytest
from matplotlib.image import imread

import argminlayer as al
import argminlayer_bilevel
from argminlayer_bilevel import RidgeCrossValidation


def run(**settings):
    return RidgeCrossValidation(**settings).run(al.SilentProgress())


def png(draw):
    image = io.BytesIO()
    draw().savefig(image, format="png")
    image.seek(0)
    return imread(image)


@pytest.fixture(scope="module")
def result():
    return run()


@pytest.fixture
def table(tmp_path):
    """Return the path of a CSV file of 30 rows, three columns and the target y."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(30, 3))
    y = X @ [1.0, -1.0, 0.0] + generator.normal(size=30)
    path = tmp_path / "numbers.csv"
    np.savetxt(path, np.c_[X, y], delimiter=",", header="a,b,c,y", comments="")
    return str(path)


def test_the_plugin_offers_the_experiment():
    assert argminlayer_bilevel.argminlayer_experiments() == [RidgeCrossValidation]
    assert RidgeCrossValidation.name == "bilevel"


@pytest.mark.parametrize(
    ("name", "mu", "loss"), [("iris", "345.270", "0.719462"), ("diabetes", "210.116", "1203053.9")]
)
def test_both_starts_of_the_paper_reach_its_optimum_in_at_most_20_lower_solves(result, name, mu, loss):
    searches = result.records[name]["searches"]
    assert [search["start"] for search in searches] == [0.1, 800.0]
    for search in searches:
        assert f"{search['mu']:.3f}" == mu
        assert f"{search['loss']:#.{len(loss) - 2 if loss[0] == '0' else 8}g}" == loss
        assert search["outcome"] == "minimum"
        assert search["lower_solves"] <= 20
        assert search["fits"] == 5 * search["lower_solves"]
        assert len(search["curve"]["loss"]) == search["lower_solves"]
        assert abs(search["hypergradient_log"]) <= 1e-8 * search["loss"]


def test_the_tables_show_our_digits_beside_the_paper_s_and_the_grid_s(result):
    iris, diabetes = ({row[0]: row[1:4] for row in table.rows} for table in result.tables[:2])
    assert iris["secant, from 0.1"][:2] == ("345.270", "0.719462")
    assert iris["paper"] == ("345", "0.7194", "about 1 million")
    assert iris["grid search"] == ("316.228", "0.719714", "91")
    assert diabetes["secant, from 800"][:2] == ("210.116", "1203053.9")
    assert diabetes["paper"] == ("210.147", "0.901", "several thousand")
    assert diabetes["grid search"] == ("199.526", "1203065.7", "91")


@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_the_search_beats_the_grid_with_fewer_solves(result, name):
    record = result.records[name]
    assert record["loss"] < record["grid"]["loss"]
    assert record["grid"]["fits"] == 455
    assert record["lower_solves"] < record["grid"]["lower_solves"]
    assert record["mu"] == pytest.approx(record["grid"]["mu"], rel=record["grid"]["factor"] - 1)


def test_the_variants_show_that_the_paper_s_splits_make_the_penalty_large(result):
    for name in ("iris", "diabetes"):
        variants = {(v["shuffle"], v["intercept"]): v for v in result.records[name]["variants"]}
        assert len(variants) == 4
        assert variants[False, False]["mu"] == result.records[name]["mu"]
        assert variants[True, True]["mu"] < 0.02 * variants[False, False]["mu"]
        assert variants[True, True]["loss"] < variants[False, False]["loss"]
    assert len(result.tables[2].rows) == 8


def test_a_variant_without_an_optimum_is_reported_at_the_limit(result):
    rows = [row for row in result.tables[2].rows if row[:3] == ("iris", "contiguous", "yes")]
    assert [(row[3], row[6]) for row in rows] == [("<= 1e-08", "lower limit")]


@pytest.mark.parametrize(
    "sentence",
    [
        "all 5 fits by scipy.",
        "The large penalty is an artefact of the paper's recipe: the file is sorted by class",
        "its loss of 0.901 is not",
    ],
)
def test_the_notes_explain_the_numbers(result, sentence):
    assert any(sentence in note for note in result.notes)


def test_the_records_are_strict_json(result):
    assert json.loads(json.dumps(result.records, allow_nan=False)) == result.records


@pytest.mark.parametrize("name", ["iris-training", "iris-validation", "diabetes-training", "diabetes-validation"])
def test_the_figures_can_be_drawn(result, name):
    assert set(result.figures) == {f"{d}-{k}" for d in ("iris", "diabetes") for k in ("training", "validation")}
    image = png(result.figures[name])
    assert image.shape[0] > 300
    assert image.std() > 0.05


def test_a_training_figure_has_a_curve_for_each_start_and_the_optimum(result):
    loss_axes, slope_axes = result.figures["iris-training"]().axes
    assert [len(line.get_xdata()) for line in slope_axes.lines] == [
        search["lower_solves"] for search in result.records["iris"]["searches"]
    ]
    assert loss_axes.lines[-1].get_label() == r"optimum: $\mu$ = 345.270, $J$ = 0.719462"


def test_drawing_needs_matplotlib_and_says_which_extra_has_it(result, monkeypatch):
    monkeypatch.delitem(sys.modules, "argminlayer_bilevel._figures", raising=False)
    monkeypatch.delattr(argminlayer_bilevel, "_figures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    message = r"the figure of the training curve needs matplotlib, .* pip install 'argminlayer\[bilevel\]'"
    with pytest.raises(al.ExperimentError, match=message):
        result.figures["iris-training"]()


def test_a_csv_file_runs_with_the_loss_per_sample(table):
    result = run(data=(table,), target="y", grid=(1e-2, 1e4, 13))
    record = result.records["numbers"]
    assert record["normalisation"] == "mean"
    assert record["paper"] is None
    assert record["outcome"] == "minimum"
    assert record["loss"] <= record["grid"]["loss"]
    assert set(result.figures) == {"numbers-training", "numbers-validation"}
    assert png(result.figures["numbers-validation"]).shape[0] > 300


@pytest.mark.parametrize(("intercept", "shuffle"), [(True, False), (True, True), (False, True)])
def test_the_grid_of_scikit_learn_is_never_below_the_optimum_found(table, intercept, shuffle):
    settings = {"intercept": intercept, "shuffle": shuffle, "variants": False, "grid": (1e-2, 1e4, 61)}
    record = run(data=(table,), target="y", **settings).records["numbers"]
    assert record["outcome"] == "minimum"
    assert record["loss"] <= record["grid"]["loss"]
    assert record["loss"] == pytest.approx(record["grid"]["loss"], rel=1e-2)
    assert record["mu"] == pytest.approx(record["grid"]["mu"], rel=record["grid"]["factor"] - 1)


def test_the_sum_of_squares_moves_the_optimum_of_unequal_folds():
    diabetes = {"data": ("diabetes",), "variants": False, "grid": (1, 1e4, 2), "starts": (800.0,)}
    assert f"{run(**diabetes, normalisation='mean').records['diabetes']['mu']:.2f}" == "209.24"
    assert f"{run(**diabetes, normalisation='sum').records['diabetes']['mu']:.3f}" == "210.116"


def test_another_search_and_another_solver_reach_the_same_optimum():
    settings = {"data": ("iris",), "variants": False, "grid": (1, 1e4, 2), "search": "LBFGS", "rate": 1.0}
    record = run(**settings, solver="scipy.newton").records["iris"]
    assert f"{record['mu']:.2f}" == "345.27"
    assert record["solver"] == "scipy.newton"


def test_a_search_that_is_cut_short_is_no_optimum_and_the_notes_say_so(table):
    result = run(data=(table,), target="y", variants=False, max_solves=2, grid=(1e-2, 1e4, 61))
    assert result.records["numbers"]["outcome"] == "out of solves"
    assert any("did not end within max_solves, and its result is no optimum" in note for note in result.notes)
    assert any("the grid search has a lower loss, at mu =" in note for note in result.notes)


def test_a_loss_that_falls_to_a_limit_is_explained(table):
    result = run(data=(table,), target="y", variants=False, limits=(1e2, 1e4), starts=(1e3,), grid=(1, 1e2, 2))
    assert result.tables[0].rows[0][1] == "<= 100"
    assert any("from 1000: the loss falls all the way to the smallest mu allowed" in note for note in result.notes)


def test_equal_settings_give_equal_records(table):
    settings = {"data": (table,), "target": "y", "shuffle": True, "variants": False, "seed": 5, "grid": (1, 10, 2)}
    assert run(**settings).records == run(**settings).records


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, r"folds is 1; cross-validation needs at least 2"),
        ({"folds": 151, "data": ("iris",)}, r"iris has 150 rows, fewer than the 151 folds"),
        ({"starts": (0.1, 0.0)}, r"the start mu = 0 cannot be used; .* must be positive and within the limits"),
        ({"starts": (-1.0,)}, r"the start mu = -1 cannot be used; .* must be positive"),
        ({"starts": (1e20,)}, r"the start mu = 1e\+20 cannot be used; .* within the limits 1e-08 and 1e\+12"),
        ({"starts": ()}, r"no start is given"),
        ({"limits": (0.0, 1.0)}, r"the limits of mu are 0 and 1; they must be 0 < smallest < largest"),
        ({"tolerance": 0.0}, r"tolerance is 0; it must be above 0"),
        ({"max_solves": 1}, r"max_solves is 1; a search needs at least 2"),
        ({"rate": -1.0}, r"rate is -1; a learning rate must be positive"),
        ({"grid": (1.0, 1.0, 5)}, r"the grid is 1, 1, 5; it must be 0 < from < to"),
        ({"grid": (1.0, 2.0, 1)}, r"at least 2 values"),
        ({"data": ()}, r"no data set is named"),
        ({"data": ("diabets",)}, r"there is no data set 'diabets'\. Did you mean 'diabetes'"),
        ({"target": "y"}, r"the target 'y' belongs to a CSV file, but the data is iris, diabetes"),
        ({"search": "newton"}, r"there is no search 'newton'.* Known are secant, .*adam"),
    ],
)
def test_settings_that_cannot_be_used_are_errors(settings, message):
    with pytest.raises(al.ExperimentError, match=message):
        run(**settings)


def test_an_unknown_solver_is_an_error_of_the_core():
    with pytest.raises(al.SolverError, match=r"there is no solver 'scippy'"):
        run(data=("iris",), solver="scippy")
