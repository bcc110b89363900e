"""The rules of the repository, as tests: who may import whom, what an import loads, what the metadata promises."""

import ast
import graphlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import argminlayer as al

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists())
SPARSE = {"argminlayer._sparse", "argminlayer._qp_sparse", "argminlayer.cones._form", "argminlayer.cones._sparse"}
CORE_MAY_IMPORT = {"argminlayer", "numpy", "pluggy", "rich", "torch", "typer"} | set(sys.stdlib_module_names)
BACK_ENDS = {
    "PIL",
    "casadi",
    "cvxpy",
    "h5py",
    "joblib",
    "matplotlib",
    "pandas",
    "pyomo",
    "scipy",
    "sklearn",
    "trimesh",
} | {
    "clarabel",
    "daqp",
    "ecos",
    "highspy",
    "osqp",
    "piqp",
    "proxsuite",
    "qpsolvers",
    "quadprog",
    "scs",
}
LONGEST_MODULE = 500


class Import(NamedTuple):
    """One import, ``from module import name``; ``name`` is empty for ``import module``.

    It is ``deferred`` inside a function, and ``for_types`` under ``if TYPE_CHECKING``.
    """

    module: str
    name: str
    line: int
    deferred: bool
    for_types: bool

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]


def module_name(path: Path) -> str:
    """Return the dotted name under which a source file of the core or of a plugin is imported."""
    base = ROOT / "plugins" if path.is_relative_to(ROOT / "plugins") else ROOT
    return ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")


def sources(package: str) -> list[Path]:
    """Return the source files of the core or of a plugin."""
    base = ROOT if package == "argminlayer" else ROOT / "plugins"
    return sorted((base / package).rglob("*.py"))


def imports(path: Path) -> Iterator[Import]:
    """Yield every import of a source file, at any depth, with relative ones made absolute."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return imports_below(ast.parse(path.read_text()), package)


def imports_below(node: ast.AST, package: str, deferred: bool = False, for_types: bool = False) -> Iterator[Import]:
    """Yield the imports at or under a syntax node of a module that belongs to ``package``."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, "", node.lineno, deferred, for_types)
    elif isinstance(node, ast.ImportFrom):
        anchor = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        module = ".".join([*anchor, *([node.module] if node.module else [])])
        for alias in node.names:
            yield Import(module, alias.name, node.lineno, deferred, for_types)
    elif isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
        for child in node.body:
            yield from imports_below(child, package, deferred, for_types=True)
        for child in node.orelse:
            yield from imports_below(child, package, deferred, for_types)
    else:
        inside = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from imports_below(child, package, inside, for_types)


def is_public(name: str) -> bool:
    """Say whether no part of a dotted name is private."""
    return not any(part.startswith("_") for part in name.split("."))


def attributes_of_the_core(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the attributes read from the core by a plugin, ``al.Problem`` as ``Problem``, with their lines."""
    tree = ast.parse(path.read_text())
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "argminlayer"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            yield node.attr, node.lineno


def dependencies(paths: list[Path]) -> dict[str, set[str]]:
    """Return which of these modules each imports while it is itself being imported."""
    names = {module_name(path) for path in paths}
    graph: dict[str, set[str]] = {}
    for path in paths:
        found = [imp for imp in imports(path) if not imp.deferred and not imp.for_types]
        # `from package import module` depends on the module, `from package import name` on the package.
        targets = {full if (full := f"{imp.module}.{imp.name}") in names else imp.module for imp in found}
        graph[module_name(path)] = targets & names
    return graph


def loaded_by(statement: str, after: str = "pass") -> set[str]:
    """Return the top-level packages that ``statement`` adds, in a fresh process, to those that ``after`` has loaded."""
    code = (
        f"import json, sys; {after}; before = set(sys.modules);"
        f"{statement}; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return {name.partition(".")[0] for name in json.loads(result.stdout)}


def has_own_docstring(value: object) -> bool:
    """Say whether a class or function was documented by hand; a dataclass writes its own signature where nothing is."""
    text = vars(value).get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
    return bool(text) and not re.match(rf"{getattr(value, '__name__', '')}\(", text)


def undocumented_methods(cls: type) -> list[str]:
    """Return the public methods and properties a class defines without a docstring of their own or of a base class."""
    described = [
        name
        for name, value in vars(cls).items()
        if is_public(name) and isinstance(value, classmethod | staticmethod | property | type(is_public))
    ]
    return [f"{cls.__name__}.{name}" for name in described if not inspect.getdoc(getattr(cls, name))]


def test_there_are_plugins_and_core_modules_to_check():
    assert {"argminlayer_bilevel", "argminlayer_scipy"} <= set(PLUGINS)
    assert len(sources("argminlayer")) > 10


def test_imports_are_found_at_every_depth_and_made_absolute():
    lines = [
        "import a.b",
        "from ._x import y",
        "from .. import z",
        "if TYPE_CHECKING: import t",
        "def f(): import late",
    ]
    found = list(imports_below(ast.parse("\n".join(lines)), "p.q"))
    assert [(imp.module, imp.name) for imp in found] == [
        ("a.b", ""),
        ("p.q._x", "y"),
        ("p", "z"),
        ("t", ""),
        ("late", ""),
    ]
    assert [imp.for_types for imp in found] == [False, False, False, True, False]
    assert [imp.deferred for imp in found] == [False, False, False, False, True]


@pytest.mark.parametrize("path", sources("argminlayer"), ids=module_name)
def test_the_core_imports_no_plugin_and_no_back_end(path):
    # The conformance suite is for test files, so it alone may use pytest.
    allowed = CORE_MAY_IMPORT | ({"pytest"} if module_name(path).startswith("argminlayer.testing") else set())
    # torch has no sparse direct solver for the CPU; SciPy's is imported when the first sparse system is met.
    sparse = {"scipy"} if module_name(path) in SPARSE else set()
    for imp in imports(path):
        only_its_types = imp.for_types and imp.root in BACK_ENDS
        late = imp.deferred and imp.root in sparse
        assert imp.root in allowed or only_its_types or late, (
            f"{path.relative_to(ROOT)}:{imp.line}: imports {imp.module}"
        )


def test_core_modules_do_not_import_each_other_in_a_circle():
    sorter = graphlib.TopologicalSorter(dependencies(sources("argminlayer")))
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_imports_only_public_modules_of_the_core_and_no_other_plugin(plugin):
    others = set(PLUGINS) - {plugin}
    for path in sources(plugin):
        for imp in imports(path):
            where = f"{path.relative_to(ROOT)}:{imp.line}"
            assert imp.root not in others, f"{where}: imports the plugin {imp.root}"
            if imp.root == "argminlayer":
                public_module = imp.module in {"argminlayer", "argminlayer.testing"}
                assert public_module, f"{where}: imports {imp.module}; use argminlayer or argminlayer.testing"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_uses_only_public_names_of_the_core(plugin):
    public = {*al.__all__, "testing"}
    for path in sources(plugin):
        named = [(imp.name, imp.line) for imp in imports(path) if imp.module == "argminlayer" and imp.name]
        tested = [(imp.name, imp.line) for imp in imports(path) if imp.module == "argminlayer.testing" and imp.name]
        for name, line in [*named, *attributes_of_the_core(path)]:
            assert name in public, f"{path.relative_to(ROOT)}:{line}: {name} is not in argminlayer.__all__"
        for name, line in tested:
            assert is_public(name), f"{path.relative_to(ROOT)}:{line}: {name} is private"


def test_torch_alone_loads_no_back_end():
    assert loaded_by("import torch") & BACK_ENDS == set(), "the two tests below cannot see these"


def test_importing_the_core_loads_no_plugin_no_back_end_and_no_test_library():
    loaded = loaded_by("import argminlayer", after="import torch")
    assert "argminlayer" in loaded
    assert loaded & {*BACK_ENDS, *PLUGINS, "hypothesis", "pytest"} == set()


@pytest.mark.parametrize("plugin", PLUGINS)
def test_importing_a_plugin_loads_no_back_end_and_no_other_plugin(plugin):
    loaded = loaded_by(f"import {plugin}", after="import torch")
    assert plugin in loaded
    assert loaded & (BACK_ENDS | set(PLUGINS) - {plugin}) == set()


def test_entry_points_plugin_folders_and_wheel_name_the_same_plugins():
    entries = PROJECT["project"]["entry-points"]["argminlayer"]
    assert sorted(entries.values()) == PLUGINS
    assert {f"argminlayer_{name}" for name in entries} == set(entries.values())
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(packages) == ["argminlayer", *(f"plugins/{name}" for name in PLUGINS)]


@pytest.mark.parametrize("package", ["argminlayer", *PLUGINS])
def test_a_package_says_that_it_is_typed(package):
    assert (sources(package)[0].parent / "py.typed").exists()


@pytest.mark.parametrize("package", ["argminlayer", *PLUGINS])
def test_no_module_is_longer_than_a_reader_can_hold(package):
    lengths = {module_name(path): len(path.read_text().splitlines()) for path in sources(package)}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_every_public_name_exists_once():
    assert len(al.__all__) == len(set(al.__all__))
    assert [name for name in al.__all__ if not hasattr(al, name)] == []


def test_every_public_class_method_and_function_has_a_docstring():
    public = {name: getattr(al, name) for name in al.__all__}
    described = {name: value for name, value in public.items() if inspect.isclass(value) or inspect.isroutine(value)}
    silent = [name for name, value in described.items() if not has_own_docstring(value)]
    for value in described.values():
        silent += undocumented_methods(value) if inspect.isclass(value) else []
    assert silent == []


def test_the_versions_used_in_development_satisfy_the_published_ranges():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)) for pin in pins}
    assert {name: str(pin) for name, pin in pinned.items() if pin.operator != "=="} == {}
    project = PROJECT["project"]
    texts = [*PROJECT["build-system"]["requires"], *project["dependencies"]]
    texts += [text for extra in project["optional-dependencies"].values() for text in extra]
    ranges = [requirement for text in texts if (requirement := Requirement(text)).name != project["name"]]
    assert {requirement.name for requirement in ranges} <= set(pinned)
    outside = [str(wanted) for wanted in ranges if not wanted.specifier.contains(pinned[wanted.name].version)]
    assert outside == []


def test_the_extra_all_holds_every_back_end():
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = (Requirement(text) for text in extras["all"])
    assert everything.extras == set(extras) - {"all", "dev"}
