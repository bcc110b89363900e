"""What plugin authors test with: conformance suites, problems with known answers, and differences of re-solved ones.

Subclass a suite in a test file of the plugin; every test in it is a law that the engine and the users rely on::

    from argminlayer.testing import SolverConformance

    class TestLBFGS(SolverConformance):
        solver = LBFGS()

Needs pytest, which the library itself does not.
"""

import pytest

# Otherwise a failed assertion of a suite would not show its values.
pytest.register_assert_rewrite(f"{__name__}._solvers", f"{__name__}._experiments", f"{__name__}._cones")

from ._cones import ConeConformance  # noqa: E402 - the line above must come first
from ._differences import central_differences  # noqa: E402
from ._experiments import ExperimentConformance  # noqa: E402
from ._known import KnownProblem  # noqa: E402
from ._problems import INFEASIBLE_PROBLEMS, KNOWN_PROBLEMS  # noqa: E402
from ._quadratic import INFEASIBLE_PROGRAMS, QUADRATIC_PROBLEMS  # noqa: E402
from ._solvers import SolverConformance  # noqa: E402
from ._user_functions import USER_FUNCTIONS, UserFunction  # noqa: E402

__all__ = [
    "INFEASIBLE_PROBLEMS",
    "INFEASIBLE_PROGRAMS",
    "KNOWN_PROBLEMS",
    "QUADRATIC_PROBLEMS",
    "USER_FUNCTIONS",
    "ConeConformance",
    "ExperimentConformance",
    "KnownProblem",
    "SolverConformance",
    "UserFunction",
    "central_differences",
]
