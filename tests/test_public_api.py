"""The names that users see: all of them, documented, typed, and the ones that were promised."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import pandas_batch
from pandas_batch import errors
from pandas_batch.accessor import ClaudeBatchFrame, ClaudeBatchSeries
from pandas_batch.call_options import CALL_OPTIONS

ROOT = Path(__file__).parents[1]
NAMES = pandas_batch.__all__
DOCUMENTED: dict[str, Any] = {
    **{name: getattr(pandas_batch, name) for name in NAMES},
    **{f"df.claude_batch.{name}": value for name, value in vars(ClaudeBatchFrame).items() if not name.startswith("_")},
    "df.claude_batch": ClaudeBatchFrame,
    "series.claude_batch": ClaudeBatchSeries,
}
WITHOUT_EXAMPLES = {
    # Errors are shown by the calls that raise them; records are made by the package and not by hand.
    *(name for name in NAMES if isinstance(getattr(pandas_batch, name), type) and name in vars(errors)),
    "BatchJob",
    "BatchResult",
    "Comparison",
    "Estimate",
    "RunStatus",
}


def test_the_list_of_names_is_sorted_and_complete() -> None:
    """`__all__` is sorted and names everything public that the package defines or loads at first use."""
    assert sorted(set(NAMES)) == NAMES
    tree = ast.parse((ROOT / "pandas_batch" / "__init__.py").read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.level or str(node.module).startswith("pandas_batch."))
        for alias in node.names
    }
    assert imported - {"register", "exiting"} == set(NAMES)
    assert set(NAMES) <= set(dir(pandas_batch))


def test_every_error_can_be_imported_from_the_top() -> None:
    """What may be raised can be caught by a name of the package itself, and has one base."""
    raised = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert {name for name in raised if not hasattr(pandas_batch, name)} == set()
    assert all(issubclass(value, pandas_batch.PandasBatchError) for value in raised.values())


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelled name fails as it does for any module, and is not taken for a room."""
    with pytest.raises(AttributeError, match="has no attribute 'BachClient'"):
        pandas_batch.BachClient  # noqa: B018 - to look is all it takes
    assert not hasattr(pandas_batch, "no_such_thing")


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_everything_public_is_documented(name: str) -> None:
    """Every public name says what it is, in one first line that ends with a full stop, and shows how it is used."""
    text = inspect.getdoc(DOCUMENTED[name]) or ""
    first = text.split("\n\n")[0]
    assert first.rstrip().endswith((".", ":", "?")), first
    if name not in WITHOUT_EXAMPLES and not inspect.ismodule(DOCUMENTED[name]):
        assert ">>>" in text


@pytest.mark.parametrize("name", sorted(name for name in DOCUMENTED if callable(DOCUMENTED[name])))
def test_parameters_that_are_described_exist(name: str) -> None:
    """A docstring's section ``Parameters`` names only parameters that there are."""
    doc = inspect.getdoc(DOCUMENTED[name]) or ""
    if "Parameters\n----------" not in doc:
        return
    body = doc.split("Parameters\n----------\n")[1].split("\n\n")[0:20]
    lines = "\n\n".join(body).splitlines()
    described: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if set(following) == {"-"}:
            break
        if line and not line.startswith(" "):
            described += [part.strip().lstrip("*") for part in line.split(",")]
    target = DOCUMENTED[name]
    there = set(inspect.signature(target).parameters)
    if there >= CALL_OPTIONS.keys():
        there.add("options")  # each by its own name
    assert set(described) <= there, set(described) - there


def test_the_accessor_is_registered_on_frames_and_series() -> None:
    """`import pandas_batch` is all it takes; both accessors offer the same calls."""
    assert isinstance(pd.DataFrame().claude_batch, ClaudeBatchFrame)
    assert isinstance(pd.Series(dtype=object).claude_batch, ClaudeBatchSeries)
    calls = ["submit", "asubmit", "start", "trial", "preview", "estimate", "attach", "merge"]
    for accessor in (ClaudeBatchFrame, ClaudeBatchSeries):
        assert [name for name in vars(accessor) if not name.startswith("_")] == calls


def test_records_are_frozen() -> None:
    """What is handed to users and observers cannot be changed under somebody's feet."""
    for name in ("BatchJob", "BatchRequest", "BatchResult", "Comparison", "Estimate", "Prompt", "RunStatus"):
        cls = getattr(pandas_batch, name)
        assert dataclasses.is_dataclass(cls), name
        assert cls.__dataclass_params__.frozen, name


def test_both_clients_offer_the_same() -> None:
    """The asynchronous client has the same names and the same parameters, in the same order."""
    one, other = pandas_batch.BatchClient, pandas_batch.AsyncBatchClient
    public = [name for name in vars(one) if not name.startswith("_")]
    assert public == [name for name in vars(other) if not name.startswith("_")]
    for name in [*public, "__init__"]:
        mine, theirs = inspect.signature(getattr(one, name)), inspect.signature(getattr(other, name))
        assert list(mine.parameters.values()) == list(theirs.parameters.values()), name
    mine, theirs = inspect.signature(pandas_batch.run_prompts), inspect.signature(pandas_batch.arun_prompts)
    assert list(mine.parameters.values()) == list(theirs.parameters.values())


def test_the_package_is_typed() -> None:
    """The API as users write it passes a strict type checker, and the marker file for it is there."""
    assert (ROOT / "pandas_batch" / "py.typed").exists()
    command = [sys.executable, "-m", "mypy", "tests/typing_api.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stdout


def test_the_package_is_typed_for_editors(tmp_path: Path) -> None:
    """The same lines pass pyright, which is what most editors ask; it fetches nothing."""
    pytest.importorskip("pyright", reason="pyright, of the group dev, is not installed")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    environment = os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stdout


def test_every_module_can_be_imported_alone() -> None:
    """No module needs another to have been imported before it."""
    for name in ("display.panel", "display.progress", "store", "run.run", "client.client", "requests.plan"):
        command = [sys.executable, "-c", f"import pandas_batch.{name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert importlib.import_module("pandas_batch.simulator") is pandas_batch.simulator
