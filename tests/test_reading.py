"""What was paid for can be read: nothing is refused then that only a new call has to satisfy."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
from rowlab import ask

import pandas_batch
from pandas_batch import InputError, simulator
from pandas_batch.clock import Clock
from pandas_batch.requests.options import Options
from pandas_batch.run.starting import attach_run

FRAME = pd.DataFrame({"prompt": ["a", "b", "a"], "rule": ["A", "B", "A"]})
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

PER_ROW: dict[str, Callable[[pd.DataFrame], Any]] = {
    "series": lambda frame: frame["rule"] + " rules",
    "function": lambda frame: lambda part: part["rule"] + " laws",
}


@pytest.mark.parametrize("way", sorted(PER_ROW))
def test_a_cached_prompt_per_row_is_no_matter_to_who_reads(api: simulator.Simulator, clock: Clock, way: str) -> None:
    """A run whose cached system prompts are not at hand is loaded, retried and merged."""
    system = PER_ROW[way](FRAME)
    api.faults.add(simulator.RowFault("overloaded", marker="b"))
    out = ask(FRAME, api, clock, name="cached", system=system, cache_system=True).result()
    loaded = pandas_batch.load("cached", client=api.client(), clock=clock)
    pd.testing.assert_frame_equal(loaded.result(), out.drop(columns=list(FRAME)))
    api.faults.clear()
    assert loaded.retry_failed().result()["status"].tolist() == ["succeeded"] * 3
    again = attach_run(FRAME, "cached", {"system": system, "client": api.client()}, clock=clock)
    assert again.result()["status"].tolist() == ["succeeded"] * 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PANDAS_BATCH_MAX_COST_USD", "a lot"),
        ("PANDAS_BATCH_MAX_COST_USD", "-1"),
        ("PANDAS_BATCH_MODEL", " "),
        ("PANDAS_BATCH_MODEL", "x" * 5000),
    ],
)
def test_a_bad_environment_is_told_where_it_spends(
    api: simulator.Simulator, clock: Clock, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """What the environment says wrongly stops a new call; a finished run is read whatever it says."""
    api.faults.add(simulator.RowFault("overloaded", marker="b"))
    run = ask(FRAME, api, clock, model=FRAME["rule"].map({"A": "claude-haiku-4-5-20251001"}.get).ffill())
    out = run.result()
    monkeypatch.setenv(name, value)
    loaded = pandas_batch.load(run.id, client=api.client(), clock=clock)
    pd.testing.assert_frame_equal(loaded.result(), out.drop(columns=list(FRAME)))
    assert pandas_batch.runs().index.tolist() == [run.id]
    pd.testing.assert_frame_equal(FRAME.claude_batch.merge(run), out)
    if name == "PANDAS_BATCH_MAX_COST_USD":
        with pytest.raises(InputError, match=name):
            loaded.retry_failed()
        with pytest.raises(InputError, match=name):
            ask(FRAME.head(1), api, clock)
    assert "ended already" in loaded.cancel()
    loaded.delete()
    assert pandas_batch.runs().empty


def test_options_of_other_versions_are_kept_or_left_out(api: simulator.Simulator, clock: Clock, tmp_path: Path) -> None:
    """A parameter that the SDK no longer knows, a value no call could give, an option not known here: all is read."""
    run = ask(FRAME, api, clock, store=str(tmp_path / "store"))
    out = run.result()
    (database,) = (tmp_path / "store").glob("*.db")
    assert run.engine is not None
    assert run.engine.join(20)
    with closing(sqlite3.connect(database)) as connection:
        (text,) = connection.execute("SELECT options FROM runs").fetchone()
        stored = msgspec.json.decode(text)
        stored |= {"of_tomorrow": 7, "on_missing": "guess", "poll_interval": -4, "warm_cache": True}
        stored["params"] = {"bygone": [1], "thinking": "yes"}
        changed = msgspec.json.encode(stored)
        connection.execute("UPDATE runs SET options = ?", (changed if isinstance(text, bytes) else changed.decode(),))
        connection.commit()
    loaded = pandas_batch.load(run.id, store=str(tmp_path / "store"), client=api.client(), clock=clock)
    pd.testing.assert_frame_equal(loaded.result(), out.drop(columns=list(FRAME)))
    assert dict(loaded.options.params) == {"bygone": [1], "thinking": "yes"}


def test_what_is_given_anew_is_checked() -> None:
    """A wrong value or an unknown name beside stored options is told, as in any call."""
    stored = {"prompt_col": {"label": "p"}, "model": "m", "max_tokens": 9}
    for again in ({"max_tokens": -1}, {"columns": ["no"]}, {"prompt": "{p}", "prompt_col": "p"}):
        with pytest.raises(InputError):
            Options.from_json(stored, **again)
    with pytest.raises(TypeError):
        Options.from_json(stored, promt="x")
    assert Options.from_json(stored, max_tokens=12).max_tokens == 12


def test_images_that_are_gone_keep_their_answers(api: simulator.Simulator, clock: Clock, tmp_path: Path) -> None:
    """Where rows stand as they stood, those whose file is gone have their answers; elsewhere they say why not."""
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        path.write_bytes(PNG + bytes([i]))
    frame = pd.DataFrame({"prompt": ["a", "b", "c"], "photo": [str(path) for path in paths]}, index=list("xyz"))
    run = ask(frame, api, clock, images_col="photo")
    out = run.result()
    paths[1].unlink()
    pd.testing.assert_frame_equal(frame.claude_batch.merge(run), out)
    pd.testing.assert_frame_equal(attach_run(frame, run, {}).result(), out)
    moved = attach_run(frame.iloc[::-1], run, {}).result()
    assert moved["status"].tolist() == ["succeeded", "skipped", "succeeded"]
    assert "1.png" in moved["error"]["y"]
    edited = attach_run(frame.assign(prompt=["a", "b", "other"]), run, {}).result()
    assert edited["status"].tolist() == ["succeeded", "skipped", "unsent"]


def test_an_answer_that_is_a_call_says_where_it_is(api: simulator.Simulator, clock: Clock, tmp_path: Path) -> None:
    """Content that the output does not hold is told of once, with a line that shows it."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "label", "input": {"mood": "very-calm"}}
    words = {"type": "text", "text": "I call."}
    contents = {"a": [call], "b": [words, call], "c": [words]}
    reasons = {"a": "tool_use", "b": "tool_use", "c": "end_turn"}

    def answer(params: dict[str, Any]) -> simulator.Reply:
        asked = params["messages"][-1]["content"]
        return simulator.Reply(content=contents[asked], stop_reason=reasons[asked])

    api.answer = answer
    tool = {"name": "label", "input_schema": {"type": "object", "properties": {"mood": {"type": "string"}}}}
    run = ask(pd.DataFrame({"prompt": ["a", "b", "c", "a"]}), api, clock, tools=[tool])
    with pytest.warns(UserWarning, match="3 rows answered with content that the column output does not hold") as told:
        run.result()
    assert len(told) == 1
    line = str(told[0].message).rpartition(": ")[2]
    assert line.startswith(f'pandas_batch.load("{run.id}").result(columns=["output", ')
    assert '"tool_calls"' in line
    moods = [None if calls is None else calls[0]["input"]["mood"] for calls in eval(line)["tool_calls"]]
    assert moods == ["very-calm", "very-calm", None, "very-calm"]
    assert run.to_jsonl(tmp_path / "raw.jsonl").read_text().count("very-calm") == 2
