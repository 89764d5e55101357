"""The documentation: every block runs, every link leads somewhere, everything public is on a page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import page_blocks
import pytest

from pandas_batch import simulator

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


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
