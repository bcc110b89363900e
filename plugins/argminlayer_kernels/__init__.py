"""Triton kernels for the argmins whose speed matters, as direct solvers. Triton itself is not imported here."""

import argminlayer as al

from ._pool import PoolKernel as PoolKernel
from ._project import ProjectKernel as ProjectKernel

__all__ = ["PoolKernel", "ProjectKernel"]


@al.hookimpl
def argminlayer_solvers() -> list[type[al.AbstractSolver]]:
    """Return the solvers of this plugin."""
    return [PoolKernel, ProjectKernel]
