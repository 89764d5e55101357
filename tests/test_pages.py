"""The pages for whoever changes something here: what they name is there, and what is there they name."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from pandas_batch import simulator
from pandas_batch.store.migrations import MIGRATIONS
from pandas_batch.store.states import MEANINGS, drawn

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pandas_batch"
PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_names_is_there(name: str) -> None:
    """Every file and every link of a page exists."""
    text = page(name)
    paths = re.findall(r"`((?:tests/|pandas_batch/)?[a-z_]+(?:/[a-z_0-9]+)*\.(?:py|md|txt))`", text)
    missing = [path for path in paths if not (ROOT / path).exists() and not (PACKAGE / path).exists()]
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    missing += [link for link in links if not (ROOT / link).exists()]
    assert missing == []


def test_the_states_are_drawn_as_the_store_obeys_them() -> None:
    """The picture of a batch's states is made from the table in ``store/states.py``."""
    text = page("ARCHITECTURE.md")
    (picture,) = re.findall(r"```mermaid\n(.*?)\n```", text, re.DOTALL)
    assert picture == drawn()
    for state, meaning in MEANINGS.items():
        assert f"| `{state}` | {meaning} |" in text


def test_every_folder_and_every_file_of_the_ground_has_a_line() -> None:
    """Whoever looks for a place finds it in the table of folders."""
    text = page("ARCHITECTURE.md")
    folders = {f"`{path.parent.name}/`" for path in PACKAGE.glob("*/__init__.py")}
    files = {f"`{path.stem}`" for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert {name for name in folders | files if name not in text} == set()


def test_every_file_and_table_of_a_store_has_a_line(tmp_path: Path) -> None:
    """What a run leaves on disk stands on the page, and so does every table of the database."""
    text = page("ARCHITECTURE.md")
    frame = pd.DataFrame({"prompt": ["a", None]}, index=["x", "y"])
    with simulator.serve(seconds_per_batch=0) as api:
        run = frame.claude_batch.start("prompt", client=api.client(), store=str(tmp_path / "s"), progress="off")
        run.result()
        assert run.engine is None or run.engine.join(20)
    names = {path.name for path in (tmp_path / "s").rglob("*") if path.is_file() and path.parent.name != "locks"}
    names = {re.sub(r"^store\.db-", "-", name) for name in names}
    assert len(names) > 8
    assert {name for name in names if name not in text} == set()
    tables = re.findall(r"CREATE TABLE (\w+)", " ".join(statement for version in MIGRATIONS for statement in version))
    assert {table for table in tables if f"| `{table}` |" not in text} == set()
