"""Torch problems as files: AMPL's .nl format, and Python source."""

import io
from pathlib import Path

import numpy as np
from pyomo.repn.plugins.nl_writer import NLWriter

import argminlayer as al

from ._instances import Instance, loaded, models
from ._source import source_of


def write_nl(problem: al.BoundProblem, path: Path) -> None:
    """Write the first instance in AMPL's text format; variables and constraints keep no names."""
    instance = _first(problem)
    with loaded(instance) as model:
        stream = io.StringIO()
        NLWriter().write(model, stream, linear_presolve=False)
    path.write_text(stream.getvalue(), newline="")


def write_source(problem: al.BoundProblem, path: Path) -> None:
    """Write Python source that builds the Pyomo model of the first instance, with mutable Params."""
    instance = _first(problem)
    with loaded(instance):
        text = source_of(instance.model)
    path.write_text(text)


def _first(problem: al.BoundProblem) -> Instance:
    model, parameters, position = next(models(problem))
    start = np.array([element.value or 0.0 for c in model.variables for element in c.elements], dtype=np.float64)
    lower, upper = (bound[position].cpu().numpy() for bound in (problem.lower, problem.upper))
    return Instance(model, parameters, start, lower, upper)
