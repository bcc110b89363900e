"""Write solvers.md: which of the solvers shipped here supports what, from the capabilities that each declares.

Run ``python docs/generate_solver_table.py`` after a solver has changed; a test fails when the page is not up to date.
"""

import dataclasses
from pathlib import Path

import argminlayer as al

PAGE = Path(__file__).with_name("solvers.md")
OURS = "argminlayer_"
"""Modules of the solvers shipped here begin with this; other people's plugins are left out of the page."""

HEAD = """\
# Which solver supports what

Generated from the capabilities of the solvers by `docs/generate_solver_table.py`. Whatever a solver does not list is
refused before the solver is called, with a reason; `argminlayer solvers` and `al.explain` show the same for what is
installed, other people's plugins included. How `auto` chooses among them is in
[choosing a solver](choosing-a-solver.md).

"""


def solvers() -> list[al.AbstractSolver]:
    """Return the solvers shipped here, by name."""
    verdicts = al.explain(al.Problem(lambda u, x: (u - x).square(), "()->()"), 0.0).verdicts
    found = (verdict.solver for verdict in verdicts)
    return sorted((s for s in found if type(s).__module__.startswith(OURS)), key=lambda solver: solver.name)


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def support(solver: al.AbstractSolver) -> list[str]:
    """Return the row of a solver in the table of capabilities."""
    can = solver.capabilities
    kinds = [kind in can.constraints for kind in ("equality", "inequality", "bounds")]
    kinds += [kind in can.objectives for kind in ("smooth", "least-squares", "none")]
    needs = ", ".join(sorted(can.requires)) or "gradient"
    batch = "at once" if can.batched else "one by one"
    return [f"`{solver.name}`", *("yes" if kind else "" for kind in kinds), needs, batch]


def options(solver: al.AbstractSolver) -> list[str]:
    """Return the row of a solver in the table of options."""
    fields = dataclasses.fields(solver)  # type: ignore[arg-type]
    return [f"`{solver.name}`", ", ".join(f"`{field.name}={field.default!r}`" for field in fields)]


def method(solver: al.AbstractSolver) -> str:
    """Return what a solver is, and what it refuses beyond its capabilities: the first lines of the docstrings."""
    kind = type(solver)
    lines = [kind.__doc__, kind.__dict__["supports"].__doc__ if "supports" in kind.__dict__ else ""]
    text = " ".join((line or "").partition("\n")[0] for line in lines)
    return text.replace("``", "`").replace(" Refuse ", " Refuses ").strip()


def page() -> str:
    """Return the text of the page."""
    found = solvers()
    columns = ["solver", "equalities", "inequalities", "bounds", "smooth", "least squares", "feasibility"]
    supported = table([*columns, "needs", "a batch is solved"], [support(solver) for solver in found])
    methods = "".join(f"- `{solver.name}`: {method(solver)}\n" for solver in found)
    settings = table(["solver", "options and their defaults"], [options(solver) for solver in found])
    return f"{HEAD}{supported}\n## Methods\n\n{methods}\n## Options\n\n{settings}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
