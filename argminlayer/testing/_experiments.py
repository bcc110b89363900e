"""The laws of an experiment plugin, as a class of tests to subclass."""

import copy
import dataclasses
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from .._experiment import AbstractExperiment, Result, SilentProgress, save
from .._settings import kind, read_settings, settings_of, show


class ExperimentConformance:
    """What every experiment must pass. Subclass it, call the subclass ``Test...``, and set ``experiment``.

    Attributes:
        experiment: the experiment with settings so small that it runs in a second or two; it is run several times.
        times: names of records that hold times, which may differ from run to run, at any depth.
    """

    experiment: ClassVar[AbstractExperiment]
    times: ClassVar[frozenset[str]] = frozenset({"seconds"})

    def test_it_is_a_frozen_value_with_a_default_for_every_setting(self) -> None:
        cls = type(self.experiment)
        assert dataclasses.is_dataclass(cls), "decorate it with @dataclass(frozen=True)"
        assert cls.__dataclass_params__.frozen, "decorate it with @dataclass(frozen=True)"
        assert isinstance(cls(), AbstractExperiment), "every setting needs a default"
        assert cls.name
        assert cls.summary
        assert "\n" not in cls.summary, "the summary is one line"

    def test_every_setting_says_what_it_is(self) -> None:
        silent = [setting.name for setting in settings_of(type(self.experiment)) if not setting.help.strip()]
        assert silent == [], 'give these fields metadata={"help": ...}'

    def test_every_setting_can_be_written_on_the_command_line(self) -> None:
        settings = settings_of(type(self.experiment))
        assert [setting.name for setting in settings if kind(setting.type) is None] == []
        given = [s for s in settings if not s.is_flag and getattr(self.experiment, s.name) is not None]
        words = [f"{s.option}={show(getattr(self.experiment, s.name))}" for s in given]
        read = read_settings(settings, words, type(self.experiment).name)
        assert read == {s.name: getattr(self.experiment, s.name) for s in given}

    def test_the_seed_is_a_setting(self) -> None:
        assert "seed" in {setting.name for setting in settings_of(type(self.experiment))}

    def test_its_result_can_be_saved_and_its_figures_drawn(self, tmp_path: Path) -> None:
        result = self._run()
        written = save(result, tmp_path, self.experiment, 0.0)
        report = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        assert report["records"], "an experiment without records found nothing"
        assert sorted(path.name for path in written) == sorted(["results.json", *(f"{n}.png" for n in result.figures)])

    def test_equal_settings_give_equal_records(self) -> None:
        torch.manual_seed(1)
        first = self._run()
        torch.manual_seed(2)
        second = type(self.experiment)(**{f.name: getattr(self.experiment, f.name) for f in _fields(self.experiment)})
        assert _same(self._without_times(first.records), self._without_times(second.run(SilentProgress()).records))

    def test_it_prints_nothing_and_leaves_the_settings_and_the_random_state_alone(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = copy.deepcopy(self.experiment)
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
        self._run()
        assert torch.equal(torch.get_rng_state(), states[0]), "draw from a torch.Generator of its own"
        assert random.getstate() == states[1], "draw from a random.Random of its own"
        assert np.random.get_state()[1].tolist() == states[2], "draw from a numpy Generator of its own"  # type: ignore[index]
        assert self.experiment == before
        assert capsys.readouterr().out == "", "show progress through `progress`; tables and notes belong in the result"

    def _run(self) -> Result:
        result = self.experiment.run(SilentProgress())
        assert isinstance(result, Result)
        return result

    def _without_times(self, record: Any) -> Any:
        if isinstance(record, Mapping):
            return {key: self._without_times(item) for key, item in record.items() if key not in self.times}
        if isinstance(record, list | tuple):
            return [self._without_times(item) for item in record]
        return record.tolist() if hasattr(record, "tolist") else record


def _fields(experiment: AbstractExperiment) -> tuple["dataclasses.Field[Any]", ...]:
    return dataclasses.fields(experiment)  # type: ignore[arg-type]


def _same(first: Any, second: Any) -> bool:
    """Compare records; NaN equals NaN."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    both_nan = all(isinstance(value, float) and math.isnan(value) for value in (first, second))
    return both_nan or bool(first == second)
