"""A plugin by somebody else: built, installed into an environment of its own, found there, and passing the suite."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "examples" / "third_party_plugin"
COMMAND = "import sys; from argminlayer.cli import main; sys.exit(main())"


class Environment:
    """An environment that sees the packages of this one, and into which the outsider is installed.

    Args:
        folder: where everything goes: nothing is written beside the sources.
    """

    def __init__(self, folder: Path):
        self.project = shutil.copytree(SOURCE, folder / "project", ignore=shutil.ignore_patterns("__pycache__", ".*"))
        self.packages = folder / "packages"
        venv.create(self.packages, with_pip=False)
        self.python = self.packages / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        # Not just a path: editable installations are found through the .pth files beside the packages.
        outer = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
        (inner,) = self.packages.glob("[Ll]ib/**/site-packages")
        (inner / "outer.pth").write_text("\n".join(f"import site; site.addsitedir({path!r})" for path in outer))

    def install(self) -> None:
        """Build and install the project, without looking for anything elsewhere."""
        offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--no-cache-dir"]
        self._run([sys.executable, "-m", "pip", "--python", self.python, "install", *offline, self.project])

    def run(self, *arguments: object) -> str:
        """Run Python in the environment and return what it prints."""
        return self._run([self.python, *arguments])

    def _run(self, command: list[object]) -> str:
        private = ("ARGMINLAYER_", "PYTHON", "PYTEST_", "PIP_")
        variables = {name: value for name, value in os.environ.items() if not name.startswith(private)}
        variables |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
        done = subprocess.run(
            list(map(str, command)), cwd=self.project, env=variables, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("outsider"))
    assert "outsider" not in environment.run("-c", COMMAND, "plugins")
    environment.install()
    return environment


def test_the_command_line_lists_the_outsider_beside_the_built_in_plugins(environment):
    lines = environment.run("-c", COMMAND, "plugins").splitlines()
    (own,) = [line for line in lines if "outsider" in line]
    assert "argminlayer-outsider" in own
    assert tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]["version"] in own
    assert any("scipy" in line for line in lines)


def test_the_command_line_lists_its_solver(environment):
    assert "outsider.newton" in environment.run("-c", COMMAND, "solvers")


def test_the_outsider_passes_its_own_tests_and_the_suite(environment):
    output = environment.run("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider")
    passed = re.search(r"(\d+) passed", output)
    assert passed, output
    assert int(passed[1]) > 100, "the suite has not been collected"
    assert "SKIPPED" not in output, "everything the suite asks for can be tested on this solver"
