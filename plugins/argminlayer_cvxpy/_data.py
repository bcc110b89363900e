"""The function from parameters to the data of a cone program."""

from dataclasses import dataclass

from torch import Tensor

from ._parameters import ParameterMap
from ._squares import Squares, together


@dataclass(frozen=True, eq=False)
class Data:
    """The function from parameters to P, q, A, b and the constant of the objective.

    Attributes:
        affine: to what is affine in the parameters: P, q, A, b, the constant, then four blocks for each of the squares.
        squares: products of such blocks, which are added to P, q and the constant.
    """

    affine: ParameterMap
    squares: tuple[Squares, ...]

    def __call__(self, *parameters: Tensor) -> tuple[Tensor, ...]:
        """Return the data, each with the leading dimensions of the parameters that it depends on.

        Raises:
            ProblemError: a value that its CVXPY parameter would refuse.
        """
        P, q, A, b, constant, *rest = self.affine(*parameters)
        values = [P]
        for k, square in enumerate(self.squares):
            products, pull, offset = square(*rest[4 * k : 4 * k + 4])
            values.append(products)
            q, constant = q + pull, constant + offset
        return together(values) if self.squares else P, q, A, b, constant[..., 0]
