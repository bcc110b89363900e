"""The documentation does what it says: every block of code runs, every link leads somewhere, every name is there.

Blocks of a page run in their order, in one namespace and one temporary folder. A block of ```python is executed; with
``title="FILE"`` any block is written to that file instead, and a pyproject.toml is taken for installed, as far as entry
points go. In ```bash, lines of argminlayer and pytest are run, and of make and pip checked. A block of ```text that
follows directly is compared with what was printed, where ``...`` stands for anything.
"""

import importlib.metadata
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
import types
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from typer.testing import CliRunner

import argminlayer as al
from argminlayer import _registry, cli, hookspecs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKDOWN = [*PAGES, *sorted(ROOT.glob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")
TOO_LONG = "argminlayer run bilevel"
"""What `make demo` runs; tests/bilevel has the same in small."""


@dataclass(frozen=True)
class Block:
    """One block of code: its language, the file it is written to if it has a title, its text, and where it begins."""

    language: str
    title: str | None
    text: str
    line: int
    adjacent: bool


def blocks(page):
    """Yield the blocks of code of a page."""
    text, end = page.read_text(), 0
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(match[1], match[2], match[3], line, not text[end : match.start()].strip())
        end = match.end()


def id_of(page):
    return str(page.relative_to(ROOT))


def shows(expected, printed):
    """Say whether the text is what was printed, up to white space and to what the dots stand for."""
    parts = (re.escape(" ".join(part.split())) for part in expected.split("..."))
    return re.fullmatch(".*".join(parts), " ".join(printed.split())) is not None


class Reader:
    """Somebody who follows a page to the letter in an empty folder."""

    def __init__(self, page, folder):
        self.page, self.folder = page, folder
        self.module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
        self.printed = ""

    def follow(self, block):
        if block.title:
            self.write(block)
        elif block.language == "python":
            self.execute(block)
        elif block.language == "bash":
            self.printed = "".join(self.command(line) for line in block.text.splitlines() if line.strip())
        elif block.language == "text" and block.adjacent and self.printed:
            assert shows(block.text, self.printed), (
                f"{id_of(self.page)}:{block.line} shows\n{block.text}\nbut this is printed:\n{self.printed}"
            )
            self.printed = ""

    def write(self, block):
        (self.folder / block.title).write_text(block.text)
        if block.title == "pyproject.toml":
            self.install(tomllib.loads(block.text))

    def install(self, project):
        """Give the folder the metadata that installing the project would give its environment."""
        name, version = project["project"]["name"], project["project"]["version"]
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        groups = project["project"]["entry-points"]
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in items.items()) for group, items in groups.items()]
        (info / "entry_points.txt").write_text("".join(lines))
        _registry.reload()

    def execute(self, block):
        code = compile("\n" * block.line + block.text, str(self.page), "exec")
        with warnings.catch_warnings(), redirect_stdout(StringIO()) as out:
            warnings.simplefilter("error")
            # torch's own forward mode compiles a few of its decompositions in this way
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
            exec(code, vars(self.module))
        self.printed = out.getvalue()

    def command(self, line):
        words = shlex.split(line, comments=True)
        settings = {}
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            key, _, settings[key] = words.pop(0).partition("=")
        if words[:1] == ["argminlayer"] and line != TOO_LONG:
            return self.argminlayer(words[1:], settings)
        if words[:1] == ["pytest"]:
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words[1:]]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        if words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        if words[:2] == ["pip", "install"]:
            asked = (Requirement(word) for word in words[2:] if word.startswith("argminlayer"))
            extras = {extra for requirement in asked for extra in requirement.extras}
            assert extras <= set(PROJECT["project"]["optional-dependencies"]), line
        known = {"argminlayer", "make", "pip", "cd", "git", "python", "pytest"}
        assert words[0] in known, f"{id_of(self.page)}: what is {words[0]!r}?"
        return ""

    def argminlayer(self, words, settings):
        with pytest.MonkeyPatch.context() as patch:
            for key, value in settings.items():
                patch.setenv(key, value)
            _registry.reload()
            result = CliRunner().invoke(cli.app, words, env={"COLUMNS": "200"})
        _registry.reload()
        assert result.exit_code == 0, f"argminlayer {' '.join(words)}: {result.output}"
        return result.stdout


@pytest.fixture
def reader(request, tmp_path, monkeypatch):
    """Return a reader of the page, in an empty folder from which Python can import."""
    found = Reader(request.param, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for variable in environment_variables():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setitem(sys.modules, found.module.__name__, found.module)
    loaded, dtype = set(sys.modules), torch.get_default_dtype()
    _registry.reload()
    yield found
    torch.set_default_dtype(dtype)
    for name in set(sys.modules) - loaded:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    sys.path.remove(str(tmp_path))
    _registry.reload()


def environment_variables():
    """Return the environment variables that the sources mention."""
    sources = [*(ROOT / "argminlayer").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    return {name for path in sources for name in re.findall(r"ARGMINLAYER_[A-Z_]+[A-Z]", path.read_text())}


@pytest.mark.parametrize("reader", PAGES, ids=id_of, indirect=True)
def test_a_reader_who_follows_the_page_gets_what_it_shows(reader):
    for block in blocks(reader.page):
        reader.follow(block)


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_every_block_of_code_says_what_language_it_is(page):
    fences = [line for line in page.read_text().splitlines() if line.startswith("```")]
    assert [line for line in fences[::2] if line == "```"] == []
    assert len(fences) == 2 * len(list(blocks(page)))


@pytest.mark.parametrize("page", MARKDOWN, ids=id_of)
def test_relative_links_lead_somewhere(page):
    targets = [first or second for first, second in LINK.findall(BLOCK.sub("", page.read_text()))]
    for target in targets:
        file, _, anchor = target.partition("#")
        if not file.startswith(("http://", "https://", "mailto:")):
            linked = page.parent / file if file else page
            assert linked.exists(), f"{id_of(page)} links to {target}"
            assert not anchor or anchor in anchors(linked), f"{id_of(page)} links to {target}"


def anchors(page):
    """Return what the headings of a page are called in links to them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_leads_to_every_page():
    linked = {target for target, _ in LINK.findall((ROOT / "docs" / "index.md").read_text())}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - linked == {"index.md"}


def generator(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["generate_api", "generate_solver_table", "generate_operator_table"])
def test_a_generated_page_is_up_to_date(name):
    module = generator(name)
    assert module.PAGE.read_text() == module.page(), f"run: python docs/{name}.py"


def test_every_public_name_has_its_place_in_the_reference():
    listed = [name for names in generator("generate_api").SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(al.__all__)


def test_every_hook_is_in_the_page_on_plugins_and_in_the_reference():
    hooks = [name for name in vars(hookspecs) if name.startswith("argminlayer_")]
    for page in ("write-a-plugin.md", "api.md"):
        text = (ROOT / "docs" / page).read_text()
        assert [hook for hook in hooks if hook not in text] == []


def test_every_status_is_in_the_page_on_failures():
    text = (ROOT / "docs" / "when-a-solve-fails.md").read_text()
    assert [status.name for status in al.Status if f"`{status.name}`" not in text] == []


def test_every_environment_variable_is_documented():
    text = "".join(page.read_text() for page in PAGES)
    assert {"ARGMINLAYER_SOLVER", "ARGMINLAYER_DISABLE_PLUGINS"} <= environment_variables()
    assert [name for name in sorted(environment_variables()) if f"`{name}`" not in text] == []


def test_every_command_is_documented():
    text = (ROOT / "docs" / "command-line.md").read_text()
    commands = [command.name or command.callback.__name__ for command in cli.app.registered_commands]
    assert [name for name in commands if f"## argminlayer {name}" not in text] == []


def test_every_solver_shipped_is_in_the_table():
    text = (ROOT / "docs" / "solvers.md").read_text()
    shipped = importlib.metadata.entry_points(group="argminlayer").select(name="scipy")
    assert len(shipped) == 1
    names = [solver.name for solver in _registry.load().solvers.values() if solver.name.startswith("scipy.")]
    assert [name for name in names if f"`{name}`" not in text] == []
