"""`df.claude_batch`: each operation as a user calls it, against a server, by the clock on the wall."""

from __future__ import annotations

import asyncio
import base64
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import anthropic
import numpy as np
import pandas as pd
import pydantic
import pytest
from rowlab import cut_on_purpose

import pandas_batch
from pandas_batch import InputError, simulator
from pandas_batch.results.rates import rates
from pandas_batch.simulator.faults import RowFault
from pandas_batch.simulator.models import MODELS
from pandas_batch.simulator.replies import last_user_text


@pytest.fixture
def api(quick_looks: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[simulator.Simulator]:
    """A server whose batches end at once; the environment leads to it."""
    made: list[anthropic.Anthropic] = []
    init = anthropic.Anthropic.__init__

    def remembered(client: anthropic.Anthropic, *args: Any, **options: Any) -> None:
        init(client, *args, **options)
        made.append(client)

    # Clients that a call builds from the environment live as long as the process: a test has to close them.
    monkeypatch.setattr(anthropic.Anthropic, "__init__", remembered)
    with simulator.serve(seconds_per_batch=0) as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.base_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "simulator")
        yield running
        for client in made:
            client.close()


class Asked:
    """An answer function that remembers what it was asked."""

    def __init__(self, answer: Any = "fine") -> None:
        self.params: list[dict[str, Any]] = []
        self._answer = answer

    def __call__(self, params: dict[str, Any]) -> Any:
        self.params.append(params)
        return self._answer(params) if callable(self._answer) else self._answer

    def by_text(self) -> dict[str, dict[str, Any]]:
        """Return the requests by the text of their last question."""
        return {last_user_text(params): params for params in self.params}


def submit(frame: pd.DataFrame, prompt_col: Any = None, **options: Any) -> pd.DataFrame:
    return frame.claude_batch.submit(prompt_col, **{"progress": "off", "preflight": False, **options})


def start(frame: pd.DataFrame, prompt_col: Any = None, **options: Any) -> pandas_batch.Run:
    return frame.claude_batch.start(prompt_col, **{"progress": "off", "preflight": False, **options})


# ---------------------------------------------------------------- structured answers


class Verdict(pydantic.BaseModel):
    mood: Literal["glad", "angry"]
    score: float
    stars: int
    urgent: bool


OF_TYPES = {"mood": Literal["glad", "angry"], "score": float, "stars": int, "urgent": bool}
OF_JSON = {
    "type": "object",
    "properties": {
        "mood": {"type": "string", "enum": ["glad", "angry"]},
        "score": {"type": "number"},
        "stars": {"type": "integer"},
        "urgent": {"type": "boolean"},
    },
    "required": ["mood", "score", "stars", "urgent"],
    "additionalProperties": False,
}
GOOD = {"mood": "glad", "score": 0.5, "stars": 4, "urgent": False}


@pytest.mark.parametrize("schema", [Verdict, OF_JSON, OF_TYPES], ids=["pydantic", "JSON schema", "types"])
def test_any_kind_of_schema_gives_typed_columns(api: simulator.Simulator, schema: Any) -> None:
    """A pydantic model, a JSON schema and a dict of types give the same columns; rows without a prompt are NA there."""
    api.answer = Asked(lambda params: GOOD | {"stars": len(last_user_text(params))})
    frame = pd.DataFrame({"review": ["abc", None, "ab"]}, index=["x", "y", "z"])
    out = submit(frame, "review", output_schema=schema, prefix="a_")
    assert {name: str(dtype) for name, dtype in out.dtypes.items() if name in [f"a_{field}" for field in GOOD]} == {
        "a_mood": "category",
        "a_score": "Float64",
        "a_stars": "Int64",
        "a_urgent": "boolean",
    }
    assert out["a_mood"].cat.categories.tolist() == ["glad", "angry"]
    assert out["a_stars"].tolist() == [3, pd.NA, 2]
    assert out["a_status"].tolist() == ["succeeded", "skipped", "succeeded"]
    # The answer function was called with a request for the schema, every field of it required.
    (asked, _) = api.answer.params
    assert sorted(asked["output_config"]["format"]["schema"]["required"]) == sorted(GOOD)


def test_answers_that_do_not_fit_are_told_apart(api: simulator.Simulator) -> None:
    """Refused, cut, no JSON, the wrong value, no text: each is ``invalid`` for its own reason, and keeps what came."""
    texts = {"wrong value": '{"mood": "sad", "score": 1, "stars": 1, "urgent": true}'}
    api.answer = lambda params: texts.get(last_user_text(params), GOOD)
    for outcome in ("refused", "truncated", "invalid_json", "refused_early", "no_text"):
        api.faults.add(RowFault(outcome, marker=f"please be {outcome}!"))
    prompts = ["fine", "wrong value"]
    prompts += [f"please be {o}!" for o in ("refused", "truncated", "invalid_json", "refused_early", "no_text")]
    frame = pd.DataFrame({"prompt": [*prompts, None]})
    run = start(frame, "prompt", output_schema=Verdict)
    with pytest.warns(UserWarning, match="were cut at max_tokens, 2 were refused"):
        out = run.result()
    assert out["status"].tolist() == ["succeeded", *["invalid"] * 6, "skipped"]
    errors = out["error"].tolist()
    assert "mood" in errors[1]
    assert errors[2] == errors[5] == "invalid: the model refused to answer"
    assert errors[3] == "invalid: the answer was cut at max_tokens"
    assert errors[4] == errors[6] == "invalid: the answer does not fit output_schema: it is not JSON"
    assert out["output"][1] == texts["wrong value"]
    assert out["output"][[2, 3, 4]].notna().all()
    assert out["output"][[5, 6]].isna().all()
    # The server billed them all but the refusal before any output.
    assert (out["cost_usd"][[0, 1, 2, 3, 4, 6]] > 0).all()
    assert out["cost_usd"][5] == 0
    assert run.counts == {"succeeded": 1, "skipped": 1, "invalid": 6}
    assert run.failed["position"].tolist() == [1, 2, 3, 4, 5, 6]
    assert run.failed["error"].tolist() == errors[1:7]


def test_a_tool_call_is_no_misfit(api: simulator.Simulator) -> None:
    """Where tools are offered beside a schema, a row that calls one has no text, rightly: its fields are NA."""
    call = {"type": "tool_use", "id": "toolu_01", "name": "look_up", "input": {}}
    api.answer = lambda params: simulator.Reply(content=[call], stop_reason="tool_use")
    tools = [{"name": "look_up", "description": "Looks up.", "input_schema": {"type": "object", "properties": {}}}]
    with pytest.warns(UserWarning, match="content that the column output does not hold"):
        out = submit(pd.DataFrame({"p": ["a"]}), "p", output_schema=OF_TYPES, tools=tools)
    assert out.loc[0, ["status", "stop_reason"]].tolist() == ["succeeded", "tool_use"]
    assert out.loc[0, ["output", *OF_TYPES]].isna().all()


@cut_on_purpose
def test_invalid_rows_are_asked_again_when_told_so(api: simulator.Simulator) -> None:
    """``retry_failed`` leaves rows alone that would fail again; ``errors="all"`` asks them, and the frame is whole."""
    api.answer = lambda params: GOOD
    broken = api.faults.add(RowFault("invalid_json", marker="odd"))
    cut = api.faults.add(RowFault("truncated", marker="long"))
    frame = pd.DataFrame({"prompt": ["fine", "odd", "long", "odd"]})
    run = start(frame, "prompt", output_schema=Verdict)
    assert run.result()["status"].tolist() == ["succeeded", "invalid", "invalid", "invalid"]
    assert run.retry_failed().id == run.id
    assert api.calls("create") == 1
    del broken, cut
    api.faults.clear()
    again = run.retry_failed(errors="all", max_tokens=2048)
    out = again.result()
    assert out["status"].tolist() == ["succeeded"] * 4
    assert out["stars"].tolist() == [4] * 4
    assert [batch.facts.n_requests for batch in api.batches] == [2, 3]
    assert again.counts == {"succeeded": 4}
    # The estimate was of all rows: it says nothing about the retry of some.
    assert "estimate and bill" in run.summary()
    assert "estimate and bill" not in again.summary()


def test_a_loaded_run_knows_its_schema(api: simulator.Simulator) -> None:
    """A schema that JSON can hold is remembered: a run loaded by name gives the typed columns, and the same counts."""
    api.answer = lambda params: GOOD if "fine" in last_user_text(params) else "no JSON"
    out = submit(pd.DataFrame({"p": ["fine", "not so"]}), "p", output_schema=OF_JSON, name="typed")
    loaded = pandas_batch.load("typed")
    assert loaded.counts == {"succeeded": 1, "invalid": 1}
    pd.testing.assert_frame_equal(loaded.result(), out.drop(columns="p"))


@cut_on_purpose
def test_a_partial_result_has_the_columns_of_a_whole_one(
    api: simulator.Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed columns are there from the start, NA where an answer is pending; what came already is read, and judged."""
    monkeypatch.setattr("pandas_batch.run.recording.MAX_BATCH_REQUESTS", 2)
    api.answer = lambda params: "no JSON" if "odd" in last_user_text(params) else GOOD
    api.seconds_per_batch = lambda n_requests: 0.0 if n_requests == 2 else 3600.0
    run = start(pd.DataFrame({"p": ["fine", "odd", "late", None]}), "p", output_schema=OF_TYPES)
    home = threading.Event()
    run.observe(lambda status: home.set() if run.counts.get("pending") == 1 else None)
    assert home.wait(20)
    partial = run.result(partial=True)
    assert partial["status"].tolist() == ["succeeded", "invalid", "pending", "skipped"]
    assert partial["stars"].tolist() == [4, pd.NA, pd.NA, pd.NA]
    assert "estimate and bill" not in run.summary()
    run.cancel()
    whole = run.result()
    assert partial.columns.tolist() == whole.columns.tolist()
    assert partial.dtypes.tolist() == whole.dtypes.tolist()
    # What did not fit can be asked again, also where its batch came home long before the others.
    api.seconds_per_batch, api.answer = 0, lambda params: GOOD
    again = run.retry_failed(errors="all").result()
    assert again["status"].tolist() == ["succeeded"] * 3 + ["skipped"]


def test_samples_with_a_schema_are_lists(api: simulator.Simulator) -> None:
    """Each field of each answer comes as a list per row, in step with the outputs; one bad answer fails the row."""
    draws = iter(range(100))
    api.answer = lambda params: "no JSON" if "odd" in last_user_text(params) else GOOD | {"stars": next(draws)}
    run = start(pd.DataFrame({"p": ["fine", "odd", None]}), "p", samples=3, output_schema=OF_TYPES)
    out = run.result()
    assert sorted(out["stars"][0]) == [0, 1, 2]
    assert [f'"stars":{stars}' in output for stars, output in zip(out["stars"][0], out["output"][0], strict=True)] == [
        True,
        True,
        True,
    ]
    assert out["status"][1] == ["invalid"] * 3
    assert out["stars"][1] == [pd.NA] * 3
    assert out["status"][2] == ["skipped"] * 3
    assert run.failed["position"].tolist() == [1]
    assert sum(run.counts.values()) == 3


# ---------------------------------------------------------------- what is asked


def test_examples_go_before_the_question(api: simulator.Simulator) -> None:
    """`few_shot` pairs become turns before the prompt, the same in the preview as on the wire."""
    api.answer = asked = Asked()
    frame = pd.DataFrame({"review": ["Lovely."]})
    options: dict[str, Any] = {"few_shot": [("It broke.", "bad"), ("It works.", "good")], "system": "good or bad?"}
    submit(frame, "review", **options)
    (params,) = asked.params
    assert [(m["role"], m["content"]) for m in params["messages"]] == [
        ("user", "It broke."),
        ("assistant", "bad"),
        ("user", "It works."),
        ("assistant", "good"),
        ("user", "Lovely."),
    ]
    assert frame.claude_batch.preview("review", **options)[0]["params"] == params


def test_conversations_and_blocks_are_prompts_too(api: simulator.Simulator) -> None:
    """A cell may hold a text, content blocks, or a whole conversation; each is sent as it is."""
    talk = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Bye"},
    ]
    blocks = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    api.answer = asked = Asked()
    out = submit(pd.DataFrame({"p": ["plain", blocks, talk, None]}), "p")
    assert out["status"].tolist() == ["succeeded"] * 3 + ["skipped"]
    sent = asked.by_text()
    assert sent["plain"]["messages"] == [{"role": "user", "content": "plain"}]
    assert sent["one\ntwo"]["messages"] == [{"role": "user", "content": blocks}]
    assert sent["Bye"]["messages"] == talk


def png(width: int = 8, height: int = 8) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_images_and_documents_go_along(api: simulator.Simulator, tmp_path: Path) -> None:
    """Path, bytes and URL become blocks before the prompt; one content under two names is one request."""
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.bin").write_bytes(png())
    (tmp_path / "terms.txt").write_text("Payment within 30 days.")
    frame = pd.DataFrame(
        {
            "ask": ["What is it?"] * 4,
            "photo": [str(tmp_path / "a.png"), tmp_path / "b.bin", png(), "https://example.com/c.png"],
        }
    )
    api.answer = asked = Asked()
    out = submit(frame, "ask", images_col="photo")
    assert out["status"].tolist() == ["succeeded"] * 4
    assert len(asked.params) == 2
    sources = sorted((p["messages"][0]["content"][0]["source"] for p in asked.params), key=lambda s: s["type"])
    assert sources == [
        {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png()).decode()},
        {"type": "url", "url": "https://example.com/c.png"},
    ]
    asked.params.clear()
    papers = pd.DataFrame({"ask": ["When is it due?", "And this?"], "paper": [tmp_path / "terms.txt", None]})
    submit(papers, "ask", documents_col="paper")
    sent = asked.by_text()
    with_paper = sent["When is it due?"]["messages"][0]["content"]
    assert [block["type"] for block in with_paper] == ["document", "text"]
    assert with_paper[0]["source"]["data"] == "Payment within 30 days."
    assert sent["And this?"]["messages"] == [{"role": "user", "content": "And this?"}]


def test_a_missing_file_is_named_with_its_row(api: simulator.Simulator, tmp_path: Path) -> None:
    """What cannot be read stops the call before anything is sent, or is left out and says why."""
    frame = pd.DataFrame({"ask": ["one", "two"], "photo": [png(), str(tmp_path / "gone.png")]}, index=["a", "b"])
    with pytest.raises(pandas_batch.PromptError, match=r"gone\.png") as raised:
        submit(frame, "ask", images_col="photo")
    assert raised.value.rows.index.tolist() == ["b"]
    assert api.calls("create") == 0
    run = start(frame, "ask", images_col="photo", on_unsendable="skip")
    out = run.result()
    assert out["status"].tolist() == ["succeeded", "skipped"]
    assert out.loc["b", "error"].startswith("unsendable: ")
    assert run.failed.index.tolist() == ["b"]


def test_rows_that_cannot_be_sent_are_skipped_on_request(api: simulator.Simulator) -> None:
    """`on_unsendable="skip"` sends the rest; the row says why, costs nothing, and counts as failed."""
    frame = pd.DataFrame({"p": ["fine", 7.5, "half \ud800", None]}, dtype=object)
    with pytest.raises(pandas_batch.PromptError) as raised:
        submit(frame, "p")
    assert raised.value.rows.index.tolist() == [1, 2]
    run = start(frame, "p", on_unsendable="skip")
    out = run.result()
    assert out["status"].tolist() == ["succeeded", "skipped", "skipped", "skipped"]
    assert out["error"].notna().tolist() == [False, True, True, False]
    assert (out["cost_usd"][1:] == 0).all()
    assert run.failed["position"].tolist() == [1, 2]


def test_options_may_differ_by_row(api: simulator.Simulator) -> None:
    """Model, system prompt and max_tokens as Series or function: every row is asked with its own."""
    frame = pd.DataFrame({"p": ["a", "b", "c"], "lang": ["de", "en", "fr"]}, index=[3, 1, 2])
    api.answer = asked = Asked()
    out = submit(
        frame,
        "p",
        model=pd.Series({1: "claude-opus-4-5-20251101", 2: "claude-haiku-4-5-20251001", 3: "claude-opus-4-5-20251101"}),
        system=lambda df: "Answer in " + df["lang"],
        max_tokens=pd.Series([10, 20, 30], index=frame.index),
        columns=["model", "status"],
    )
    sent = asked.by_text()
    assert {text: (p["model"][:11], p["system"], p["max_tokens"]) for text, p in sent.items()} == {
        "a": ("claude-opus", "Answer in de", 10),
        "b": ("claude-opus", "Answer in en", 20),
        "c": ("claude-haik", "Answer in fr", 30),
    }
    assert out["model"].str.slice(0, 11).tolist() == ["claude-opus", "claude-opus", "claude-haik"]


# ---------------------------------------------------------------- the prompt cache


RULES = "Judge each review by these rules, one after the other. " * 600


def test_the_cache_is_warmed_by_one_row_and_its_saving_told(api: simulator.Simulator) -> None:
    """One row goes first and writes the prefix, the others read it; the summary says what that has spared."""
    frame = pd.DataFrame({"p": [f"Review {i}" for i in range(6)]})
    run = start(frame, "p", system=RULES, cache_system=True, warm_cache=True, columns="all")
    out = run.result()
    assert sorted(batch.facts.n_requests for batch in api.batches) == [1, 5]
    assert (out["cache_write_tokens"] > 0).sum() == 1
    assert (out["cache_read_tokens"] > 0).sum() == 5
    prices = rates("claude-haiku-4-5-20251001")
    assert prices is not None
    batch = prices.batch[0]
    spared = int(out["cache_read_tokens"].sum()) * (batch.input - batch.cache_read)
    spared -= int(out["cache_write_tokens"].sum()) * (batch.cache_write_1h - batch.input)
    told = run.summary()
    assert told["spared by prompt caching (USD)"] == pytest.approx(float(spared) / 1e6, abs=1e-12)
    assert told["spared by prompt caching (USD)"] > 0
    uncached = start(frame, "p", system=RULES, name="without")
    uncached.wait()
    assert uncached.cost_usd - run.cost_usd == pytest.approx(told["spared by prompt caching (USD)"], abs=1e-12)
    assert uncached.summary()["spared by prompt caching (USD)"] == 0


def test_a_cache_that_nobody_read_has_cost_more(api: simulator.Simulator) -> None:
    """One row alone only writes: what is spared is below zero, and the same as against a run without."""
    run = start(pd.DataFrame({"p": ["alone"]}), "p", system=RULES, cache_system=True)
    run.wait()
    assert run.summary()["spared by prompt caching (USD)"] < 0


# ---------------------------------------------------------------- money


@pytest.fixture
def unpriced(monkeypatch: pytest.MonkeyPatch) -> str:
    """A model that the server has and no price list knows."""
    monkeypatch.setitem(MODELS, "claude-next", replace(MODELS["claude-haiku-4-5"], id="claude-next", aliases=()))
    return "claude-next"


def test_an_unknown_price_is_missing_and_said_once(api: simulator.Simulator, unpriced: str) -> None:
    """Without a price the cost is NA, never 0, with one warning; with `prices=` it is what they come to, halved."""
    frame = pd.DataFrame({"p": ["one", None, "two"]})
    run = start(frame, "p", model=unpriced)
    with pytest.warns(UserWarning, match="claude-next") as caught:
        out = run.result()
    assert len(caught) == 1
    assert out["cost_usd"].isna().tolist() == [True, False, True]
    assert run.cost_usd is None
    assert run.paid_usd is None
    assert run.summary()["spared by prompt caching (USD)"] == 0
    run.result()
    # The line of the warning, typed in: the same run, nothing paid again, and now its cost is known.
    n_creates = api.calls("create")
    priced = submit(frame, "p", model=unpriced, prices={unpriced: (3.0, 15.0)})
    assert api.calls("create") == n_creates
    n_input, n_output = priced["input_tokens"].sum(), priced["output_tokens"].sum()
    assert priced["cost_usd"].sum() == pytest.approx((n_input * 1.5 + n_output * 7.5) / 1e6, abs=1e-12)
    new = submit(frame, "p", model=unpriced, prices={unpriced: (3.0, 15.0)}, reuse=False, name="new")
    pd.testing.assert_series_equal(new["cost_usd"], priced["cost_usd"])


def test_the_summary_holds_the_bill_against_the_estimate(api: simulator.Simulator) -> None:
    """What was estimated when the run was made is remembered, and told beside what was billed; also after a restart."""
    frame = pd.DataFrame({"p": [f"Review {i}: works." for i in range(20)]})
    run = start(frame, "p", max_tokens=64, max_cost_usd=1.0)
    run.wait()
    told = run.summary()
    assert told.index[-1] == "estimate and bill"
    usage = [bill.usage for bill in api.billed]
    assert told["billed input tokens"] == sum(one["input_tokens"] for one in usage)
    assert told["estimated input tokens"] == pytest.approx(told["billed input tokens"], rel=0.2)
    assert told["estimate and bill"].startswith("billed $0.000")
    assert " of at most $0.00" in told["estimate and bill"]
    pd.testing.assert_series_equal(pandas_batch.load(run.id).summary(), told)
    # A run that shares rows with it is held against what it sends itself.
    longer = pd.concat([frame, pd.DataFrame({"p": ["One more of them, and longer than all the others are."]})])
    more = start(longer, "p", max_tokens=64)
    more.wait()
    assert len(api.billed) == 21
    assert more.summary()["billed input tokens"] == max(bill.usage["input_tokens"] for bill in api.billed)
    # A run that sends nothing was not estimated.
    reusing = start(frame.iloc[:5], "p", max_tokens=64)
    reusing.wait()
    assert "estimate and bill" not in reusing.summary()


# ---------------------------------------------------------------- chains, loops, clients


def test_a_chain_of_two_submits(api: simulator.Simulator) -> None:
    """The second call asks about the answers of the first; each has its columns under its own prefix."""
    api.answer = lambda params: params["system"][:3] + ":" + last_user_text(params)
    frame = pd.DataFrame({"title": ["A", "B", "A"], "n": [1, 2, 3]}, index=list("xyz"))
    line = {"progress": "off", "preflight": False}
    out = (
        frame.query("n > 1")
        .claude_batch.submit(prompt="Sum up {title}", system="One word", prefix="summary_", **line)
        .claude_batch.submit("summary_output", system="Two words", prefix="fr_", **line)
    )
    assert out["fr_output"].tolist() == ["Two:One:Sum up B", "Two:One:Sum up A"]
    assert out.index.tolist() == ["y", "z"]
    assert [name for name in out.columns if name.endswith("status")] == ["summary_status", "fr_status"]


def test_a_column_alone_has_the_same_calls(api: simulator.Simulator) -> None:
    """`Series.claude_batch` returns frames: the prompts under their own name, or ``prompt``, and the answers."""
    prompts = pd.Series(["one", None, "two"], index=list("abc"), name="question")
    calls = prompts.claude_batch
    out = calls.submit(progress="off", preflight=False)
    assert out.columns[:2].tolist() == ["question", "output"]
    assert out["output"].tolist() == ["one", np.nan, "two"]
    pd.testing.assert_index_equal(out.index, prompts.index)
    run = calls.start(progress="off")
    assert api.calls("create") == 1
    pd.testing.assert_frame_equal(run.result(), out)
    pd.testing.assert_frame_equal(calls.merge(run), out)
    assert prompts.iloc[[2]].claude_batch.attach(run.id).result()["output"].tolist() == ["two"]
    assert calls.estimate().requests == 2
    assert calls.preview(1)[0]["params"]["messages"][0]["content"] == "one"
    assert pd.Series(["x"]).claude_batch.submit(progress="off").columns[0] == "prompt"
    pd.testing.assert_frame_equal(asyncio.run(calls.asubmit(progress="off")), out)


class Ticks:
    """A task of the user's own, on the loop of the notebook: counts how often it had its turn."""

    def __init__(self) -> None:
        self.n = 0

    async def run(self) -> None:
        while True:
            self.n += 1
            await asyncio.sleep(0.01)


def test_asubmit_leaves_the_loop_free(api: simulator.Simulator) -> None:
    """While `await df.claude_batch.asubmit()` waits, other tasks of the loop have their turn."""
    api.seconds_per_batch = 0.3

    async def notebook() -> tuple[pd.DataFrame, int]:
        ticks = Ticks()
        task = asyncio.create_task(ticks.run())
        out = await pd.DataFrame({"p": ["a", "b"]}).claude_batch.asubmit("p", progress="off")
        task.cancel()
        return out, ticks.n

    out, n_ticks = asyncio.run(notebook())
    assert out["output"].tolist() == ["a", "b"]
    assert n_ticks >= 5


@pytest.mark.parametrize("nested", [True, False])
def test_a_blocking_call_in_a_running_loop(api: simulator.Simulator, nested: bool) -> None:
    """`submit` works where a loop runs already; with ``nested=True`` the loop's own tasks go on meanwhile."""
    pytest.importorskip("nest_asyncio2", reason="the extra for older loops is not installed")
    api.seconds_per_batch = 0.3

    async def notebook() -> tuple[pd.DataFrame, int]:
        ticks = Ticks()
        task = asyncio.create_task(ticks.run())
        await asyncio.sleep(0)
        out = pd.DataFrame({"p": ["a", "b"]}).claude_batch.submit("p", progress="off", nested=nested)
        n_ticks = ticks.n
        task.cancel()
        return out, n_ticks

    loop = asyncio.new_event_loop()
    try:
        out, n_ticks = loop.run_until_complete(notebook())
    finally:
        loop.close()
    assert out["output"].tolist() == ["a", "b"]
    assert n_ticks >= 5 if nested else n_ticks == 1


def test_an_asynchronous_client_stays_its_owner_s(api: simulator.Simulator) -> None:
    """A user's `AsyncAnthropic` works on its own loop before, during and after a run that was given it."""
    api.seconds_per_batch = 0.3

    async def say(client: anthropic.AsyncAnthropic, text: str) -> str:
        message = await client.messages.create(
            model="claude-haiku-4-5", max_tokens=8, messages=[{"role": "user", "content": text}]
        )
        return message.content[0].text

    async def notebook() -> tuple[list[str], pd.DataFrame]:
        async with anthropic.AsyncAnthropic() as client:
            said = [await say(client, "before")]
            run = pd.DataFrame({"p": ["a", "b"]}).claude_batch.start("p", client=client, progress="off")
            said += await asyncio.gather(*(say(client, f"during {i}") for i in range(3)))
            assert run.status != "collected"
            out = await run
            said.append(await say(client, "after"))
            assert not client.is_closed()
        return said, out

    said, out = asyncio.run(notebook())
    assert said == ["before", "during 0", "during 1", "during 2", "after"]
    assert out["output"].tolist() == ["a", "b"]


def test_clients_without_batches_are_refused_in_words(api: simulator.Simulator) -> None:
    """A Bedrock client is told apart by name before anything is sent, in every call that takes one."""
    client = anthropic.AnthropicBedrock(aws_region="us-east-1", aws_access_key="x", aws_secret_key="y")
    calls = pd.DataFrame({"p": ["a"]}).claude_batch
    for call in (calls.submit, calls.start, calls.preview, calls.estimate):
        with pytest.raises(InputError, match="Amazon Bedrock does not offer the Message Batches API"):
            call("p", client=client)
    assert api.requests == []


def test_nothing_is_left_in_the_frame(api: simulator.Simulator) -> None:
    """The frame that was asked is as it was, its attrs too; they come along into the result."""
    frame = pd.DataFrame({"p": ["a", "b"], "n": np.array([1, 2], dtype=np.int8)})
    frame.attrs["source"] = "test"
    before = frame.copy(deep=True)
    out = submit(frame, "p")
    pd.testing.assert_frame_equal(frame, before)
    assert frame.attrs == out.attrs == {"source": "test"}
    assert out["n"].dtype == np.int8


def test_columns_of_several_levels(api: simulator.Simulator) -> None:
    """A frame with a MultiIndex as columns is asked by tuple, gets ours at the top level, and may be asked again."""
    columns = pd.MultiIndex.from_tuples([("a", "n"), ("a", "p")], names=["group", "field"])
    frame = pd.DataFrame([[1, "x"], [2, "y"]], columns=columns)
    out = submit(frame, ("a", "p"))
    assert out["output"].tolist() == ["x", "y"]
    assert out.columns.names == ["group", "field"]
    assert ("status", "") in out.columns
    pd.testing.assert_frame_equal(out[["a"]], frame)
    again = submit(out, ("a", "p"))
    pd.testing.assert_frame_equal(again, out)
    assert api.calls("create") == 1
