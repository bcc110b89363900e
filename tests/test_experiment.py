"""What an experiment returns, and what is saved of it."""

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

import argminlayer as al
from argminlayer._experiment import prepare_folder, save, version


@dataclass(frozen=True)
class Study(al.AbstractExperiment):
    """An experiment with settings of several types."""

    name: ClassVar[str] = "study"
    summary: ClassVar[str] = "counts"
    folder: Path = Path("data")
    sizes: tuple[int, ...] = (1, 2)
    seed: int = 0

    def run(self, progress):
        return al.Result({"seed": self.seed})


class Drawing:
    """What is used of a figure."""

    def savefig(self, file, **options):
        file.write(b"picture")


def saved(tmp_path, result):
    """Save a result and return results.json, read by a strict reader."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    save(result, tmp_path, Study(), 1.5)
    return json.loads((tmp_path / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_silent_progress_hands_everything_through():
    progress = al.SilentProgress()
    assert list(progress.track(range(3), "counting")) == [0, 1, 2]
    assert list(progress.track(iter("ab"), "spelling", total=2)) == ["a", "b"]
    assert progress.log("unseen") is None


def test_a_row_that_does_not_fit_the_columns_is_an_error():
    with pytest.raises(al.ExperimentError, match="row 1 of the table 'T' has 1 cells, but there are 2 columns: a, b"):
        al.Table("T", ("a", "b"), (("1", "2"), ("3",)))


@pytest.mark.parametrize("name", ["../up", "a b", "", ".hidden"])
def test_a_figure_name_that_is_not_fit_for_a_file_is_an_error(name):
    with pytest.raises(al.ExperimentError, match="is not fit for a file; use letters, digits"):
        al.Result({}, figures={name: Drawing})


def test_an_experiment_without_run_cannot_be_made():
    with pytest.raises(TypeError, match="run"):
        al.AbstractExperiment()


def test_what_is_saved_says_what_was_run_with_what_and_for_how_long(tmp_path):
    table = al.Table("T", ("a",), (("1",),))
    report = saved(tmp_path, al.Result({"mu": 345.27}, tables=(table,), notes=("µ is the penalty",)))
    assert list(report) == ["experiment", "settings", "records", "tables", "notes", "versions", "seconds"]
    assert report["experiment"] == "study"
    assert report["settings"] == {"folder": "data", "sizes": [1, 2], "seed": 0}
    assert report["records"] == {"mu": 345.27}
    assert report["tables"] == [{"title": "T", "columns": ["a"], "rows": [["1"]]}]
    assert report["notes"] == ["µ is the penalty"]
    assert report["versions"] == {
        "argminlayer": version("argminlayer"),
        "torch": version("torch"),
        "python": platform.python_version(),
    }
    assert report["seconds"] == 1.5


def test_a_distribution_that_is_not_installed_has_an_unknown_version():
    assert version("a-distribution-that-is-not-there") == "unknown"


def test_numbers_that_are_not_finite_are_null_at_any_depth(tmp_path):
    records = {"a": float("nan"), "b": [1.0, float("inf")], "c": {"d": torch.tensor([1.0, float("nan")])}}
    assert saved(tmp_path, al.Result(records))["records"] == {"a": None, "b": [1.0, None], "c": {"d": [1.0, None]}}


def test_arrays_tensors_and_enumerations_are_saved_as_numbers(tmp_path):
    records = {
        "tensor": torch.eye(2, dtype=torch.int64),
        "scalar": torch.tensor(0.5),
        "array": np.array([1, 2]),
        "float64": np.float64(0.25),
        "int64": np.int64(3),
        "bool": np.bool_(True),
        "status": al.Status.SOLVED,
        "none": None,
    }
    assert saved(tmp_path, al.Result(records))["records"] == {
        "tensor": [[1, 0], [0, 1]],
        "scalar": 0.5,
        "array": [1, 2],
        "float64": 0.25,
        "int64": 3,
        "bool": True,
        "status": 0,
        "none": None,
    }


def test_a_record_that_has_no_form_in_json_is_named(tmp_path):
    expected = r"results\.records\.curve\[1\] is a complex, which has no form in JSON"
    with pytest.raises(al.ExperimentError, match=expected):
        saved(tmp_path, al.Result({"curve": [1.0, 2j]}))
    assert list(tmp_path.iterdir()) == []


def test_a_record_whose_key_is_not_text_is_named(tmp_path):
    with pytest.raises(al.ExperimentError, match=r"results\.records has the key 3; .* so write '3'"):
        saved(tmp_path, al.Result({3: 1.0}))


def test_each_figure_is_a_file_of_its_name(tmp_path):
    paths = save(al.Result({}, figures={"curve": Drawing, "loss": Drawing}), tmp_path, Study(), 0.0)
    assert paths == (tmp_path / "results.json", tmp_path / "curve.png", tmp_path / "loss.png")
    assert (tmp_path / "curve.png").read_bytes() == b"picture"
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_a_figure_of_matplotlib_becomes_a_png(tmp_path):
    figure = pytest.importorskip("matplotlib.figure", reason="figures need matplotlib")
    save(al.Result({}, figures={"curve": figure.Figure}), tmp_path, Study(), 0.0)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def missing(module):
    """Return a figure function that needs a module that is not installed."""

    def draw():
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    return draw


def test_figures_without_matplotlib_say_what_to_install_after_the_numbers_are_saved(tmp_path):
    with pytest.raises(al.ExperimentError, match="the figure 'curve' needs matplotlib, which is not installed: pip"):
        save(al.Result({"a": 1}, figures={"curve": missing("matplotlib.figure")}), tmp_path, Study(), 0.0)
    assert json.loads((tmp_path / "results.json").read_text())["records"] == {"a": 1}


def test_another_module_that_a_figure_misses_is_not_called_matplotlib(tmp_path):
    with pytest.raises(ModuleNotFoundError, match="seaborn"):
        save(al.Result({}, figures={"curve": missing("seaborn")}), tmp_path, Study(), 0.0)


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path):
    folder = tmp_path / "a" / "b"
    prepare_folder(folder)
    prepare_folder(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("inside", [".", "below"])
def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path, inside):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / inside
    with pytest.raises(al.ExperimentError, match=r"cannot write results to .*file.*; pass --output with a folder"):
        prepare_folder(folder)


def test_a_file_is_whole_or_absent_and_the_old_one_stays_when_writing_fails(tmp_path, monkeypatch):
    save(al.Result({"run": 1}), tmp_path, Study(), 0.0)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(al.ExperimentError, match=r"cannot write results to .*results\.json: No space left on device"):
        save(al.Result({"run": 2}), tmp_path, Study(), 0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert json.loads((tmp_path / "results.json").read_text())["records"] == {"run": 1}
