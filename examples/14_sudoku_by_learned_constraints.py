"""Learn the rules of a 4 x 4 Sudoku as the constraints of a quadratic program, from solved puzzles alone.

    u(p) = argmin_u  ½ ε |u|² − p'u   subject to   A u = b,  u ≥ 0

A board is 64 numbers: for each of 16 cells, which of 4 digits it holds. The puzzle p has ones where a digit is given.
Nobody tells the layer that rows, columns and blocks hold each digit once: A starts as noise, b = A e^z keeps the
constraints feasible, and both are trained so that the solutions of 200 boards come out. The rules are found when boards
that were never seen are solved, too.

Takes about ten seconds. Prints how many unseen puzzles are solved before and after training; the answers are the boards
from which the puzzles were made, each the only one that fits its puzzle, which is checked by trying all 288.

Reference: Amos and Kolter, *OptNet: differentiable optimization as a layer in neural networks*, 2017, sec. 4.4.
"""

import itertools

import torch
from torch import Tensor, nn

import argminlayer as al

TRAINING, CONSTRAINTS, STEPS, BATCH = 200, 40, 300, 32
SMOOTHNESS = 0.1


def boards() -> Tensor:
    """Return all 4 x 4 boards, (288, 16, 4): ones for the digit of each cell."""
    rows = list(itertools.permutations(range(4)))
    found = [
        board
        for board in itertools.product(rows, repeat=4)
        if all(len(set(column)) == 4 for column in zip(*board, strict=True))
        and all(len({*board[i][j : j + 2], *board[i + 1][j : j + 2]}) == 4 for i in (0, 2) for j in (0, 2))
    ]
    return nn.functional.one_hot(torch.tensor(found), 4).double().reshape(-1, 16, 4)


def puzzles(solutions: Tensor, every: Tensor, generator: torch.Generator) -> Tensor:
    """Return puzzles (batch, 16, 4): boards of which about four cells in ten are hidden, with one solution each."""
    hidden = torch.zeros_like(solutions)
    open_ = torch.ones(len(solutions), dtype=torch.bool)
    while open_.any():
        given = (torch.rand(len(solutions), 16, 1, generator=generator) < 0.6).double()
        trial = solutions * given
        fits = torch.einsum("pcd,bcd->pb", trial, every) == given.sum((1, 2))[:, None]
        good = open_ & (fits.sum(1) == 1)
        hidden[good], open_ = trial[good], open_ & ~good
    return hidden


class Sudoku(nn.Module):
    """A quadratic program whose equalities are learned."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.A = nn.Parameter(torch.rand(CONSTRAINTS, 64, generator=generator, dtype=torch.float64))
        self.z = nn.Parameter(torch.zeros(64, dtype=torch.float64))
        program = al.QuadraticProgram(
            P=SMOOTHNESS * torch.eye(64, dtype=torch.float64), q=True, A=True, b=True, lower=0.0
        )
        self.solve = al.ArgminLayer(program)

    def forward(self, puzzle: Tensor) -> Tensor:
        """Return boards (batch, 16, 4) for puzzles of the same shape."""
        found: Tensor = self.solve(-puzzle.flatten(1), self.A, self.A @ self.z.exp())
        return found.reshape(puzzle.shape)


def solved(model: Sudoku, puzzle: Tensor, solution: Tensor) -> float:
    """Return the part of the puzzles of which every cell is right."""
    with torch.no_grad():
        right = model(puzzle).argmax(-1) == solution.argmax(-1)
    return float(right.all(-1).double().mean())


def main() -> tuple[float, float]:
    """Train, and return the part of unseen puzzles that are solved before and after."""
    generator = torch.Generator().manual_seed(0)
    every = boards()
    shuffled = every[torch.randperm(len(every), generator=generator)]
    training, unseen = shuffled[:TRAINING], shuffled[TRAINING:]
    fresh = puzzles(unseen, every, generator)
    model = Sudoku(generator)
    before = solved(model, fresh, unseen)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        board = training[torch.randint(TRAINING, (BATCH,), generator=generator)]
        loss = (model(puzzles(board, every, generator)) - board).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = solved(model, fresh, unseen)
    print(f"unseen puzzles solved: {before:.0%} before training, {after:.0%} after {STEPS} steps")
    return before, after


if __name__ == "__main__":
    main()
