"""CVXPY both ways: its problems become differentiable layers, and its solvers solve convex torch problems."""

from ._plugin import argminlayer_read_model, argminlayer_solvers

__all__ = ["argminlayer_read_model", "argminlayer_solvers"]
