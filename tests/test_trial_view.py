"""What a notebook shows of a trial: prompt beside answer, figures, the forecast; hostile text stays text."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandas_batch import simulator
from pandas_batch.display.trial_view import TriedRow, trial_html, trial_text


def row(**changes: Any) -> TriedRow:
    given: dict[str, Any] = {
        "label": "a",
        "prompt": "How?",
        "answer": "So.",
        "is_answered": True,
        "tokens": 12,
        "cost_usd": 0.0123,
    }
    return TriedRow(**given | changes)


class Tags(HTMLParser):
    """Collects the tags and the text of a piece of HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(label=st.text(), prompt=st.text(), answer=st.text(), said=st.text())
def test_whatever_a_row_holds_is_text(label, prompt, answer, said):
    parser = Tags()
    parser.feed(trial_html([row(label=label, prompt=prompt, answer=answer)], said))
    assert parser.tags <= {"div", "table", "tbody", "tr", "th", "td"}


@given(label=st.text(), prompt=st.text(), answer=st.text())
def test_plain_text_holds_no_control_character(label, prompt, answer):
    text = trial_text([row(label=label, prompt=prompt, answer=answer)], "said")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)


def test_prompt_answer_tokens_and_cost_stand_side_by_side():
    parser = Tags()
    parser.feed(trial_html([row(), row(label="b", answer="overloaded", is_answered=False)], "All rows: $1.00"))
    assert parser.text.split("a", 1)[1].startswith("How?So.12 tokens, $0.0123")
    assert "no answer" in parser.text
    assert parser.text.endswith("All rows: $1.00")


def test_an_unknown_figure_is_said_to_be_unknown():
    assert "tokens unknown" in trial_text([row(tokens=None, cost_usd=None)], "")


def test_long_texts_are_cut():
    assert len(trial_html([row(prompt="p" * 100_000, answer="a" * 100_000)], "")) < 10_000


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """This process passes for a kernel; what it displays stands here."""
    displayed: list[dict[str, str]] = []
    monkeypatch.setattr("pandas_batch.run.trial.in_kernel", lambda: True)
    module = SimpleNamespace(display=lambda bundle, raw: displayed.append(bundle))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return displayed


def test_a_notebook_shows_the_rows_and_what_all_would_cost(shown, capsys):
    frame = pd.DataFrame({"review": [f"<b>review {n}</b>" for n in range(100)]})
    with simulator.serve(answer="<script>alert(1)</script>") as api:
        api.faults.add(simulator.RowFault("errored", marker="review 99"))
        frame.claude_batch.trial("review", n=3, client=api.client(), progress="text")
    (bundle,) = shown
    assert set(bundle) == {"text/html", "text/plain"}
    assert "<script>" not in bundle["text/html"]
    assert "&lt;b&gt;review 0&lt;/b&gt;" in bundle["text/html"]
    assert "> <b>review 0</b>" in bundle["text/plain"]
    assert "2 of 3 rows answered" in bundle["text/html"]
    assert "All 100 rows in a batch, at this length: $" in bundle["text/html"]
    assert "the simulator was asked to refuse this row" in bundle["text/plain"]
    assert "at the standard price: at most $" in capsys.readouterr().err


def test_answers_are_left_out_where_the_environment_says_so(shown, monkeypatch):
    monkeypatch.setenv("PANDAS_BATCH_SHOW_ANSWERS", "0")
    with simulator.serve(answer="secret") as api:
        frame = pd.DataFrame({"review": ["one"]})
        frame.claude_batch.trial("review", client=api.client(), progress="text")
    assert "secret" not in shown[0]["text/html"] + shown[0]["text/plain"]


def test_contents_of_blocks_and_samples_are_shown(shown):
    frame = pd.DataFrame({"review": [[{"type": "text", "text": "block text"}]]})
    with simulator.serve(answer="yes") as api:
        frame.claude_batch.trial("review", client=api.client(), progress="text", samples=2)
    assert "block text" in shown[0]["text/plain"]
