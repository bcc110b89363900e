"""A problem and its parameters from a Python file, for ``argminlayer explain FILE.py:problem``."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ._errors import ArgminError, ProblemError, SignatureError, near_matches
from ._problem import Problem
from ._signature import Signature

DEFAULT_SIZE = 3
_PARAMETERS = "parameters"


@dataclass(frozen=True)
class StatedProblem:
    """What a file states.

    Attributes:
        problem: the problem.
        parameters: one value for each parameter of its signature.
        origin: where the parameters come from, for the reader.
    """

    problem: Problem
    parameters: tuple[Any, ...]
    origin: str


def read_problem(target: str, sizes: Mapping[str, int]) -> StatedProblem:
    """Run a Python file and take a problem from it by name.

    The parameters are the tuple ``parameters`` of the same file. Without one they are random normal float64 with seed
    0, where each symbolic dimension has the size 3, or the one in ``sizes``.

    Args:
        target: ``FILE.py:name``.
        sizes: of symbolic dimensions.

    Raises:
        ArgminError: the target is not of this form, or the file does not exist.
        ProblemError: the file has no such name, or it is not a problem; or ``parameters`` is not a tuple.
        SignatureError: ``sizes`` has a name that the signature has not, or the parameters are not random.
    """
    path, name = _split(target)
    module = _run(path)
    problem = _find(module, name, path)
    if not hasattr(module, _PARAMETERS):
        return StatedProblem(problem, *_random_parameters(problem.signature, sizes))
    if sizes:
        raise SignatureError(
            f"sizes of dimensions ({', '.join(sizes)}) have no effect because {path} states its own `{_PARAMETERS}`; "
            "leave them out, or remove that variable"
        )
    return StatedProblem(problem, _stated_parameters(module, path), f"`{_PARAMETERS}` of {path}")


def _split(target: str) -> tuple[Path, str]:
    file, _, name = target.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise ArgminError(f"{target!r} is not of the form FILE.py:name, for example 'model.py:problem'")
    path = Path(file)
    if not path.is_file():
        raise ArgminError(f"there is no file {file!r} in {Path.cwd()}; write the path to a Python file")
    return path, name


def _run(path: Path) -> ModuleType:
    """Run a file as a script would be run: names of its own folder can be imported, and it stays importable."""
    name = f"_argminlayer_explained_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ArgminError(f"{path} cannot be run as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _find(module: ModuleType, name: str, path: Path) -> Problem:
    problems = [key for key, value in vars(module).items() if isinstance(value, Problem)]
    listing = f"The problems in it are {', '.join(problems)}." if problems else "There is no problem in it."
    if not hasattr(module, name):
        raise ProblemError(f"{path} has no variable {name!r}.{near_matches(name, problems)} {listing}")
    value = getattr(module, name)
    if not isinstance(value, Problem):
        kind = type(value).__name__
        raise ProblemError(f"{name!r} in {path} is of type {kind}, not an argminlayer.Problem. {listing}")
    return value


def _stated_parameters(module: ModuleType, path: Path) -> tuple[Any, ...]:
    parameters = getattr(module, _PARAMETERS)
    if not isinstance(parameters, tuple):
        raise ProblemError(
            f"`{_PARAMETERS}` in {path} is of type {type(parameters).__name__}, not a tuple; write "
            f"`{_PARAMETERS} = (x,)` with one tensor for each parameter of the signature"
        )
    return parameters


def _random_parameters(signature: Signature, sizes: Mapping[str, int]) -> tuple[tuple[Tensor, ...], str]:
    """Return random parameters that fit the signature, and a description of them."""
    names = list(dict.fromkeys(dim for dims in signature.inputs for dim in dims if isinstance(dim, str)))
    _check_sizes(sizes, names, signature)
    chosen = {name: sizes.get(name, DEFAULT_SIZE) for name in names}
    generator = torch.Generator().manual_seed(0)
    shapes = [[dim if isinstance(dim, int) else chosen[dim] for dim in dims] for dims in signature.inputs]
    parameters = tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    where = ", ".join(f"{name} = {size}" for name, size in chosen.items())
    return parameters, "random normal, seed 0" + (f", {where}" if where else "")


def _check_sizes(sizes: Mapping[str, int], names: Sequence[str], signature: Signature) -> None:
    for name, size in sizes.items():
        if name not in names:
            listing = f"Its named dimensions are {', '.join(names)}." if names else "It has no named dimensions."
            near = near_matches(name, names)
            raise SignatureError(f"no parameter of the signature {signature} has a dimension {name!r}.{near} {listing}")
        if size < 1:
            raise SignatureError(f"the size of the dimension {name!r} is {size}; it must be at least 1")
