"""What a release says of itself is true: names, versions, what it needs, where it runs."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from oldest import lower_bounds

import pandas_batch

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads(PYPROJECT)["project"]

PARTS_OF = {"pydantic_core": "pydantic", "distributed": "dask"}
"""Modules that another package brings in the one version that fits it."""

ONLY_WHERE_THE_USER_HAS_IT = {"pytz"}


def distribution_of(module: str) -> str:
    return PARTS_OF.get(module, module).lower().replace("_", "-")


def imported() -> dict[str, list[str]]:
    """Return every third-party module that the package imports, and where."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "pandas_batch").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in {name.partition(".")[0] for name in names}:
                if name not in {*sys.stdlib_module_names, "pandas_batch", "_typeshed"}:
                    found.setdefault(name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def declared(bounds: list[str]) -> set[str]:
    return {re.split(r"[\[<>=]", bound)[0].lower() for bound in bounds}


def test_everything_that_is_imported_is_declared() -> None:
    """No module is there by chance, because something else happens to bring it."""
    extras = [bound for extra in PROJECT["optional-dependencies"].values() for bound in extra]
    known = declared(PROJECT["dependencies"]) | declared(extras)
    missing = {
        name: where
        for name, where in imported().items()
        if distribution_of(name) not in known and name not in ONLY_WHERE_THE_USER_HAS_IT
    }
    assert missing == {}


def test_nothing_is_declared_in_vain() -> None:
    """Each package that is required is imported."""
    assert declared(PROJECT["dependencies"]) - {distribution_of(name) for name in imported()} == set()


def test_every_bound_is_one_that_the_oldest_environment_has() -> None:
    """Each requirement has a lower bound, which ``make oldest`` installs."""
    assert declared(PROJECT["dependencies"]) <= {name.lower() for name in lower_bounds(PYPROJECT)}


def test_the_metadata_are_whole() -> None:
    """A package index can show who, where, for which Python and which system."""
    assert PROJECT["authors"] == [{"name": "The pandas-batch project"}]
    assert {"Homepage", "Documentation", "Changelog", "Issues"} <= PROJECT["urls"].keys()
    assert all(url.startswith("https://") for url in PROJECT["urls"].values())
    told = PROJECT["classifiers"]
    minors = [
        int(found[1]) for one in told if (found := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", one))
    ]
    assert minors == [11, 12, 13, 14]
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    assert sum(one.startswith("Operating System ::") for one in told) == 3
    assert not [one for one in told if one.startswith("License ::")], "the licence is said once, as an expression"


def test_the_citation_is_of_this_version() -> None:
    """CITATION.cff can be read, and names this version, licence and repository."""
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert told["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= told.keys()
    assert (told["version"], told["license"]) == (pandas_batch.__version__, PROJECT["license"])
    assert told["repository-code"] == PROJECT["urls"]["Homepage"]


def test_the_conda_recipe_asks_for_what_the_package_asks_for() -> None:
    """The recipe can be read, and has the version, the requirements and the program of pyproject.toml."""
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["schema_version"] == 1
    assert recipe["context"]["version"] == pandas_batch.__version__
    needed = [bound.replace(" ", "") for bound in recipe["requirements"]["run"]]
    assert sorted(needed) == sorted([f"python{PROJECT['requires-python']}", *PROJECT["dependencies"]])
    (program,) = recipe["build"]["python"]["entry_points"]
    assert tuple(program.split(" = ")) in PROJECT["scripts"].items()
    assert {"package", "source", "build", "requirements", "tests", "about"} <= recipe.keys()
    assert recipe["about"]["license"] == PROJECT["license"]
    used = set(re.findall(r"\$\{\{ (\w+) \}\}", (ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8")))
    assert used <= recipe["context"].keys()


@pytest.mark.parametrize("name", ["CITATION.cff", "conda/recipe.yaml", "pyproject.toml", "CHANGELOG.md"])
def test_what_a_release_needs_is_here(name: str) -> None:
    """The files of a release are there, and hold no tab and no blank at a line's end."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "\t" not in text
    assert not re.search(r" +$", text, re.MULTILINE)
