"""Experiment fields as command-line options."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

import argminlayer as al
from argminlayer._settings import read_settings, settings_of, show


@dataclass(frozen=True)
class Everything:
    """Every type of setting."""

    data: str = field(default="iris", metadata={"help": "data set"})
    folds: int = 5
    start: float = 0.1
    shuffle: bool = False
    folder: Path = Path(".")
    limit: int | None = None
    column: int | str = 0
    loss: Literal["mean", "sum"] = "mean"
    starts: tuple[float, ...] = (0.1, 800.0)
    size: tuple[int, int] = (2, 3)
    bounds: tuple[float, ...] | None = None
    solver_name: str = "scipy"
    hook: Any = None
    derived: int = field(init=False, default=3)


SETTINGS = settings_of(Everything)


def read(*tokens):
    return read_settings(SETTINGS, tokens, "the experiment 'e'")


def test_each_field_that_can_be_given_is_a_setting_with_its_default_and_help():
    by_name = {setting.name: setting for setting in SETTINGS}
    assert "derived" not in by_name
    assert (by_name["data"].default, by_name["data"].help) == ("iris", "data set")
    assert by_name["starts"].default == (0.1, 800.0)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], {}),
        (["--data", "diabetes"], {"data": "diabetes"}),
        (["--data=a=b"], {"data": "a=b"}),
        (["--data="], {"data": ""}),
        (["--folds", "-3"], {"folds": -3}),
        (["--start", "1e-3"], {"start": 0.001}),
        (["--shuffle"], {"shuffle": True}),
        (["--no-shuffle"], {"shuffle": False}),
        (["--shuffle=no"], {"shuffle": False}),
        (["--folder", "a/b"], {"folder": Path("a/b")}),
        (["--limit", "4", "--folds", "2"], {"limit": 4, "folds": 2}),
        (["--limit", "none"], {"limit": None}),
        (["--column", "7"], {"column": 7}),
        (["--column", "target"], {"column": "target"}),
        (["--loss", "sum"], {"loss": "sum"}),
        (["--starts", "1, 2,3"], {"starts": (1.0, 2.0, 3.0)}),
        (["--starts="], {"starts": ()}),
        (["--size", "4,5"], {"size": (4, 5)}),
        (["--bounds", "none"], {"bounds": None}),
        (["--bounds", "0,1"], {"bounds": (0.0, 1.0)}),
        (["--solver-name", "x"], {"solver_name": "x"}),
        (["--solver_name", "x"], {"solver_name": "x"}),
    ],
)
def test_options_are_read_by_the_types_of_the_fields(tokens, expected):
    values = read(*tokens)
    assert values == expected
    assert [type(v) for v in values.values()] == [type(v) for v in expected.values()]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--folds", "five"], "--folds takes int, not 'five'"),
        (["--start", ""], "--start takes float, not ''"),
        (["--shuffle=maybe"], r"--shuffle takes true\|false, not 'maybe'"),
        (["--limit", "few"], "--limit takes int or none, not 'few'"),
        (["--loss", "max"], r"--loss takes mean\|sum, not 'max'"),
        (["--starts", "1,x"], r"--starts takes float,\.\.\., not '1,x'"),
        (["--size", "1,2,3"], "--size takes int,int, not '1,2,3'"),
        (["--hook", "x"], "--hook is a typing.Any, which cannot be written on the command line; set it from Python"),
        (["--folds"], "--folds needs a value: write --folds int"),
        (["--folds", "--shuffle"], "--folds needs a value: write --folds int"),
        (["--folds", "1", "--folds", "2"], "--folds of the experiment 'e' is given twice"),
        (["--shuffle", "--no-shuffle"], "--shuffle of the experiment 'e' is given twice"),
        (["--no-shuffle=yes"], "--no-shuffle takes no value; write --no-shuffle alone, or --shuffle=yes"),
        (
            ["--fold", "3"],
            "the experiment 'e' has no setting '--fold'. Did you mean '--folds'.* Its settings are --data,",
        ),
        (["--no-folds"], "the experiment 'e' has no setting '--no-folds'"),
        (["iris"], "'iris' is not a setting of the experiment 'e'; settings are written --name value"),
    ],
)
def test_an_option_that_cannot_be_read_says_what_would_be_right(tokens, message):
    with pytest.raises(al.ExperimentError, match=message):
        read(*tokens)


def test_usage_shows_how_an_option_is_written():
    usage = {setting.name: setting.usage for setting in SETTINGS}
    assert usage["shuffle"] == "--shuffle / --no-shuffle"
    assert usage["column"] == "--column int or str"
    assert usage["bounds"] == "--bounds float,... or none"
    assert usage["hook"] == "--hook (from Python only)"


def test_defaults_are_shown_as_they_would_be_written():
    for setting in SETTINGS:
        if setting.name != "hook" and not setting.is_flag:
            assert setting.read(show(setting.default)) == setting.default
    assert show(True) == "true"
