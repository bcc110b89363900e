"""A modelling language in one class, which argminlayer has never heard of."""

from dataclasses import dataclass

import argminlayer as al


@dataclass(frozen=True)
class BoxFit:
    """Fit a linear model with coefficients between two numbers.

        minimise over u in [lower, upper]^n   1/2 |A u - b|^2,       with parameters A (m, n) and b (m).

    ``al.ArgminLayer(BoxFit(0.0, 1.0))`` is a layer ``(A, b) -> u``. No solver of this plugin handles bounds: any
    installed one that does is used.

    Attributes:
        lower: smallest coefficient.
        upper: largest coefficient.

    Raises:
        ProblemError: there is nothing between the two.
    """

    lower: float
    upper: float

    def __post_init__(self) -> None:
        """Check that the box is not empty."""
        if not self.lower <= self.upper:
            raise al.ProblemError(f"the box from {self.lower!r} to {self.upper!r} is empty; give lower <= upper")

    def problem(self) -> al.Problem:
        """Return the same as an argminlayer problem."""
        return al.least_squares(lambda u, A, b: A @ u - b, "(m,n),(m)->(n)", lower=self.lower, upper=self.upper)
