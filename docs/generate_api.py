"""Write api.md, the reference of every public name, hook and status, from the docstrings.

Run ``python docs/generate_api.py`` after a docstring or a signature has changed; a test fails when the page is not up
to date.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import argminlayer as al
from argminlayer import hookspecs

PAGE = Path(__file__).with_name("api.md")

SECTIONS = {
    "Stating a problem": ("Problem", "least_squares", "fixed_point", "Structure"),
    "Quadratic programs": (
        "qp",
        "QuadraticProgram",
        "Smoothing",
        "AbstractQuadraticSolver",
        "QuadraticForm",
        "QuadraticAnswer",
        "SparseProgram",
        "SparseAnswer",
    ),
    "Cone programs": (
        "cone_program",
        "ConeProgram",
        "Cones",
        "ConePattern",
        "AbstractConeSolver",
        "ConeForm",
        "ConeAnswer",
        "ConeSolution",
        "Restatement",
    ),
    "Solving": ("argmin", "solve", "attach", "certify"),
    "Layers": ("ArgminLayer", "set_solver", "use_solver"),
    "What a solve returns": ("Solution", "Multipliers", "Certificate", "Status", "PointKind"),
    "Backward rules": (
        "KKT",
        "proximal",
        "LogBarrier",
        "IgnoreConstraints",
        "compare_backward",
        "BackwardComparison",
        "AbstractBackward",
    ),
    "Explaining and checking": ("explain", "Explanation", "Verdict", "Choice", "check", "CheckReport", "CheckResult"),
    "Writing a solver": (
        "AbstractSolver",
        "AbstractDirectSolver",
        "Capabilities",
        "Availability",
        "BoundProblem",
        "Candidate",
        "Point",
        "solve_each",
        "stack_points",
        "hookimpl",
    ),
    "Algebra": ("algebra",),
    "Writing an experiment": ("AbstractExperiment", "Progress", "SilentProgress", "Result", "Table"),
    "Errors": (
        "ArgminError",
        "SignatureError",
        "ProblemError",
        "AlgebraError",
        "SolverError",
        "SolveFailed",
        "NotDifferentiable",
        "PluginError",
        "ExperimentError",
    ),
}
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("argminlayer_"))

HEAD = """\
# Reference

Generated from the docstrings by `docs/generate_api.py`. Everything here is `import argminlayer as al`, then `al.name`.

"""

SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Example|Reference):+$((?:\n(?:    .*)?)+)", re.MULTILINE)
FIELD = re.compile(r"^(\*{0,2}\w+): ?", re.MULTILINE)
ROLE = re.compile(r":\w+:`(?:argminlayer\.)?([^`]*)`")


def markdown(docstring: str) -> str:
    """Return a docstring as Markdown: lists of fields become bullets, indented mathematics stays code."""
    return SECTION.sub(section, ROLE.sub(r"`\1`", docstring.replace("``", "`").replace("::\n", ":\n")))


def section(match: re.Match[str]) -> str:
    """Return one section of a docstring as Markdown."""
    title, body = match[1], match[2].strip("\n")
    if title in ("Args", "Attributes", "Raises"):
        lines = FIELD.sub(r"- `\1`: ", textwrap.dedent(body)).splitlines()
        body = "\n".join(
            line if line.startswith("- ") else "  " + line.strip() if line.strip() else "" for line in lines
        )
    elif title == "Returns":
        body = textwrap.dedent(body)
    return f"**{title}**\n\n{body}\n\n"


def signature(name: str, value: object) -> str:
    """Return how a function or class is called, each argument on its line when it would be long."""
    parameters = [re.sub(r"argminlayer\.(_\w+\.)?", "", str(p)) for p in plain_signature(value)]
    flat = f"{name}({', '.join(parameters)})"
    if len(flat) <= 110:
        return flat
    return f"{name}(\n" + "".join(f"    {parameter},\n" for parameter in parameters) + ")"


def plain_signature(value: object) -> Iterator[str]:
    """Yield the arguments without their types, with their defaults and the stars between them."""
    keyword_only = False
    for parameter in inspect.signature(value).parameters.values():  # type: ignore[arg-type]
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            yield "*"
        keyword_only = keyword_only or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        name = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
        yield name if parameter.default is parameter.empty else f"{name}={shown(parameter.default)}"


def shown(default: object) -> str:
    """Return a default value as it is written, sets in the order of their elements."""
    if isinstance(default, frozenset) and default:
        return f"frozenset({{{', '.join(sorted(map(repr, default)))}}})"
    return repr(default)


def members(value: type) -> Iterator[tuple[str, str]]:
    """Yield the public methods and properties that a class itself defines, each with the first line about it."""
    for name, member in vars(value).items():
        documented = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if name.startswith("_") or not (inspect.isfunction(documented) or isinstance(documented, property)):
            continue
        if first := (inspect.getdoc(documented) or "").partition("\n")[0]:
            called = "" if isinstance(documented, property) else f"({', '.join(arguments(documented))})"
            yield f"{name}{called}", markdown(first)


def arguments(method: object) -> list[str]:
    """Return the arguments of a method without ``self``."""
    return [argument for argument in plain_signature(method) if argument not in ("self", "cls")]


def entry(name: str, value: object) -> str:
    """Return the entry of a public name."""
    if inspect.ismodule(value):
        return module_entry(value)
    text = f"### {name}\n\n"
    if value is al.Status:
        rows = "".join(f"| `{s.name}` | {s.value} | {s.advice or 'nothing to do'} |\n" for s in al.Status)
        about = markdown(inspect.getdoc(value) or "")
        return f"{text}{about}\n\n| status | code | advice |\n| --- | --- | --- |\n{rows}\n"
    if value is al.hookimpl:
        return f"{text}Decorator that marks a function of a plugin as one of the [hooks](#hooks).\n\n"
    if value is al.PointKind:
        codes = ", ".join(f"`{kind.name}` {kind.value}" for kind in al.PointKind)
        return f"{text}{markdown(inspect.getdoc(value) or '')}\n\n{codes}.\n\n"
    if not (inspect.isclass(value) and (issubclass(value, Exception) or inspect.isabstract(value))):
        text += f"```text\n{signature(name, value)}\n```\n\n" if callable(value) and name != "Progress" else ""
    text += markdown(inspect.getdoc(value) or "") + "\n\n"
    if inspect.isclass(value) and not issubclass(value, Exception):
        text += "".join(f"- `.{called}`: {about}\n" for called, about in members(value))
    return text.rstrip() + "\n\n"


def module_entry(module: ModuleType) -> str:
    """Return the entries of the classes and functions of a public module."""
    name = module.__name__.rpartition(".")[2]
    public = {f"{name}.{key}": getattr(module, key) for key in module.__all__}
    described = {key: value for key, value in public.items() if inspect.isclass(value) or inspect.isfunction(value)}
    about = f"{inspect.getdoc(module)}\n\n"
    return about + "".join(entry(key, value) for key, value in described.items())


def page() -> str:
    """Return the text of the page."""
    parts = [HEAD]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n\n")
        parts += [entry(name, getattr(al, name)) for name in names]
    parts.append("## Hooks\n\n")
    parts += [entry(name, getattr(hookspecs, name)) for name in HOOKS]
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
