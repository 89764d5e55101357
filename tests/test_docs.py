"""The documentation: every block runs, every link leads somewhere, everything public is on a page."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import page_blocks
import pytest

import pandas_batch
from pandas_batch import errors, simulator
from pandas_batch.columns import COLUMN
from pandas_batch.requests.options import Options
from pandas_batch.types import ROW_STATUSES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))

NOT_FOR_USERS = {"PANDAS_BATCH_COMPLETE", "PANDAS_BATCH_SECOND_KEY"}  # of click, and of `make live`


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def answer(params: dict[str, Any]) -> Any:
    """What the model says on every page: a word on a review, or values that fit the schema."""
    asked = simulator.replies.last_user_text(params)
    known_word = next((word for word in ("negative", "mixed") if word in asked), "positive")
    word = "negative" if "broke" in asked else "mixed" if "but" in asked else known_word
    system = params.get("system") or ""
    if "French" in str(system):
        return {"positive": "positif", "negative": "négatif", "mixed": "mitigé"}[word]
    schema = ((params.get("output_config") or {}).get("format") or {}).get("schema")
    if schema is None:
        return word
    known = {"label": word, "sentiment": word, "score": {"positive": 0.9, "mixed": 0.4, "negative": 0.1}[word]}
    known |= {"reason": f"It sounds {word}."}
    return {
        name: known.get(name, [] if of.get("type") == "array" else "?") for name, of in schema["properties"].items()
    }


@pytest.fixture
def reading(quick_looks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A reader's desk: a folder of reviews, a key in the environment, a server whose batches end at once."""
    page_blocks.REVIEWS.to_csv(tmp_path / "reviews.csv", index=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PANDAS_BATCH_HOME")
    with mock.patch.dict(os.environ), simulator.serve(answer, seconds_per_batch=0) as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.base_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "simulator")
        monkeypatch.setenv("PANDAS_BATCH_MODEL", "claude-haiku-4-5-20251001")
        yield {**page_blocks.names(), "api": api}
        mock.patch.stopall()


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Every page is in the list of pages, every link and anchor leads somewhere, every docstring can be set."""
    pytest.importorskip("sphinx", reason="sphinx, of the group docs, is not installed")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for name in PAGES:
        assert (tmp_path / name).with_suffix(".html").exists()
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"https?://[^>]*>", text), "the site fetches nothing"


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_a_page_runs(name: str, reading: dict[str, Any]) -> None:
    """A page is one session: its blocks run in their order, and print what stands below them."""
    page_blocks.Session(DOCS / name, reading).run(page(name))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_short_and_begins_with_its_subject(name: str) -> None:
    """One heading at the top, lines of code that fit, and an end that is reached; what is looked up may be longer."""
    text = page(name)
    assert text.startswith("# ")
    assert len(re.findall(r"^# ", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)) == 1
    assert len(text.splitlines()) <= (400 if name == "errors.md" else 200)
    blocks = re.findall(r"^```python.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert [line for block in blocks for line in block.splitlines() if len(line) > 90] == []


def test_the_amounts_on_the_first_page_are_those_of_the_readme() -> None:
    """What a task costs is written twice, and is the same; the README's is held against the price list."""
    amounts = [re.findall(r"^\| [\d,]+ input.*$", text, re.MULTILINE) for text in (page("index.md"), README)]
    assert amounts[0] == amounts[1] != []


# ---------------------------------------------------------------- errors

ERRORS = {
    name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
}


def catalogue() -> dict[str, list[str]]:
    """Return the messages of the page of errors, as they stand there: class to messages."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## ", page("errors.md"), flags=re.MULTILINE)[1:]:
        rows = re.findall(r"^\| (`.+?`) \| (.+?) \|$", part, re.MULTILINE)
        assert all(remedy.strip() for _, remedy in rows)
        found[part.split("\n")[0]] = [message.strip("`") for message, _ in rows]
    return found


def is_like(message: str, told: str) -> bool:
    """Return whether `message` is one of those that `told` stands for: its `…` is what differs."""
    return re.fullmatch(".*".join(map(re.escape, told.split("…"))) + ".*", message, re.DOTALL) is not None


def snapshot() -> list[tuple[str, str]]:
    """Return class and first line of every message that is kept in messages.txt."""
    text = (ROOT / "tests" / "messages.txt").read_text(encoding="utf-8")
    return re.findall(r"^## .*\n(\w+Error|WaitTimeout)(?:\(.*\))?\n(.*)", text, re.MULTILINE)


def literal(node: ast.expr) -> str:
    """Return the text that an expression makes, with `…` for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(value) for value in node.values)
    if isinstance(node, ast.BinOp):
        return literal(node.left) + literal(node.right)
    return "…"


def raised() -> list[tuple[str, str]]:
    """Return class and text of every error that is made anywhere in the package, where the text stands there."""
    made = []
    for path in sorted((ROOT / "pandas_batch").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                text = literal(node.args[0])
                if name in ERRORS and re.search(r"[a-z]{3}", text):
                    made.append((name, text))
    return made


def test_every_class_of_errors_has_a_section() -> None:
    """Whatever may be raised is on the page, in the table at its top and in a section of its own."""
    assert set(catalogue()) == ERRORS
    assert all(f"[`{name}`](#{name.lower()})" in page("errors.md") for name in ERRORS)


@pytest.mark.parametrize("source", [snapshot, raised], ids=["messages.txt", "package"])
def test_every_message_has_its_cause_and_remedy(source: Callable[[], list[tuple[str, str]]]) -> None:
    """No message that a user may see is missing from the page of errors."""
    told = catalogue()
    messages = source()
    assert len(messages) > 150
    missing = {(name, text) for name, text in messages if not any(is_like(text, one) for one in told[name])}
    assert missing == set()


def test_the_page_of_errors_tells_of_nothing_that_is_not_there() -> None:
    """Each message of the page is one that the package makes."""
    made = {*snapshot(), *raised()}
    # These are put together before they are raised.
    made.add(("InputError", "The frame already has columns …, which this call would add."))
    made.add(("StoreError", "The database of the store at … knows nothing of batches that were posted …"))
    idle = [
        (name, one)
        for name, told in catalogue().items()
        for one in told
        if not any(name == kind and is_like(text, one) for kind, text in made)
    ]
    assert idle == []


# ---------------------------------------------------------------- tables


def table_of(name: str) -> dict[str, str]:
    """Return the rows of the tables of a page: first cell to second."""
    return dict(re.findall(r"^\| (`.+?`) \| ([^|]*?) ?\|", page(name), re.MULTILINE))


def names_in(cells: Iterable[str]) -> set[str]:
    """Return the bare names written as code in `cells`."""
    return {name for cell in cells for name in re.findall(r"`([A-Za-z_]\w*)`", cell)}


def test_every_option_is_on_its_page() -> None:
    """The table of options names each option once, and its default."""
    text = page("reference/options.md").split("## Environment")[0]
    rows = dict(re.findall(r"^\| (`.+?`) \| ([^|]*?) ?\|", text, re.MULTILINE))
    fields = {f.name: f for f in dataclasses.fields(Options) if f.name not in ("params", "budget_from_environment")}
    told = {name: default for cell, default in rows.items() for name in names_in([cell])}
    assert set(told) == set(fields)
    for name, default in told.items():
        value = fields[name].default
        if name in ("prompt_col", "prompt"):
            assert default == ""
        elif name == "extra_params":
            assert default == "`{}`"
        elif name == "schema_prefix":
            assert default == "`prefix`"
        else:
            shown = default.strip("`")
            assert shown.strip(chr(34)) == str(value).removesuffix(".0"), name


def test_every_variable_of_the_environment_is_told() -> None:
    """What the package reads from the environment stands on the page of options, and nothing else does."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "pandas_batch").rglob("*.py"))
    read = set(re.findall(r"PANDAS_BATCH_[A-Z_]+", sources)) - NOT_FOR_USERS
    told = set(re.findall(r"PANDAS_BATCH_[A-Z_]+", page("reference/options.md").split("## Environment")[1]))
    assert told == read


def test_every_column_and_status_is_on_its_page() -> None:
    """What may come back is told in full: columns, and the statuses of a row."""
    assert set(COLUMN) <= set(re.findall(r"`(\w+)`", page("reference/columns.md")))
    assert set(ROW_STATUSES) <= names_in(table_of("reference/columns.md"))


def test_the_page_of_a_run_tells_it_whole() -> None:
    """Every public name of a run is described, or is a matter of the notebook or of other rooms."""
    text = page("reference/run.md")
    shown = set(re.findall(r"`(?:await )?run\.(\w+)", text))
    public = {name for name in dir(pandas_batch.Run) if not name.startswith("_")}
    assert shown <= public | {"id", "name"}
    inner = {"answers", "clock", "engine", "is_settled", "observe", "options", "record", "show", "sibling", "snapshot"}
    inner |= {
        "answers_of_run",
        "bind",
        "target",
        "cost_of_rows",
        "expression",
        "first_difference",
        "go_on",
        "of",
        "batch_records",
        "canceled_by",
        "requests_to_keep",
        "result_async",
        "schema",
        "store",
        "to_arrow",
        "wire",
        "batches",
        "finish_at_work",
        "place",
        "wait_for_answers",
    }
    assert public - inner <= shown
