"""What holds for every test: the environment of whoever runs them chooses no solver."""

import pytest


@pytest.fixture(autouse=True)
def _no_solver_in_the_environment(monkeypatch):
    monkeypatch.delenv("ARGMINLAYER_SOLVER", raising=False)
