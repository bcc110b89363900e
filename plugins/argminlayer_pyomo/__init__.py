"""Pyomo both ways: its models become differentiable layers, and its solvers solve problems written in torch."""

from ._plugin import argminlayer_read_model, argminlayer_solvers, argminlayer_writers
from ._solvers import Highs, Ipopt, Named

__all__ = ["Highs", "Ipopt", "Named", "argminlayer_read_model", "argminlayer_solvers", "argminlayer_writers"]
