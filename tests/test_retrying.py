"""A retry with other parameters sends, and is known by, exactly what a submit with these parameters would send."""

from __future__ import annotations

import json
import warnings
from datetime import datetime
from typing import Any, Literal

import pandas as pd
import pytest
from pydantic import BaseModel
from rowlab import ask, lose_rows

import pandas_batch
from pandas_batch import InputError, UnknownOptionError
from pandas_batch.running.run import Run
from pandas_batch.simulator import Reply
from pandas_batch.simulator.faults import RowFault

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001000548"
    "2dcc0000000049454e44ae426082"
)
ZEAL_FIRST = {
    "type": "object",
    "properties": {"zeal": {"type": "string"}, "amount": {"type": "number"}},
    "required": ["zeal", "amount"],
    "additionalProperties": False,
}
TOOL = {"name": "look", "description": "", "input_schema": {"type": "object", "properties": {"z": {}, "a": {}}}}


class Verdict(BaseModel):
    """A schema that is a class."""

    verdict: Literal["good", "bad"]
    points: int = 3


TEXTS = pd.DataFrame({"prompt": ["Lovely.", "It broke.", "zwölf 🎉"]})
CASES: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
    "texts": (TEXTS, {"system": "Be brief."}),
    "template": (TEXTS, {"prompt": "Judge: {prompt}"}),
    "few_shot": (TEXTS, {"few_shot": [("a", "b"), ([{"type": "text", "text": "c"}], "d")]}),
    "blocks": (pd.DataFrame({"prompt": [[{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]]}), {}),
    "messages": (
        pd.DataFrame(
            {"prompt": [[{"role": r, "content": c} for r, c in (("user", "1"), ("assistant", "2"), ("user", "3"))]]}
        ),
        {"few_shot": [("a", "b")]},
    ),
    "one message": (pd.DataFrame({"prompt": [[{"role": "user", "content": "1"}]]}), {}),
    "images": (TEXTS.assign(picture=[PNG, None, [PNG]]), {"images_col": "picture"}),
    "inline image": (
        pd.DataFrame(
            {"prompt": [[{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}]]}
        ),
        {},
    ),
    "documents": (TEXTS.assign(file=[b"some text", None, b"more"]), {"documents_col": "file"}),
    "json schema": (TEXTS, {"output_schema": ZEAL_FIRST}),
    "class": (TEXTS, {"output_schema": Verdict}),
    "types": (TEXTS, {"output_schema": {"zeal": str, "amount": float}, "output_config": {"effort": "low"}}),
    "cache": (TEXTS, {"system": "Be brief.", "cache_system": True}),
    "tools": (TEXTS, {"tools": [TOOL]}),
    "samples": (TEXTS, {"samples": 2}),
    "betas": (TEXTS, {"betas": ["context-1m-2025-08-07"]}),
}


def settled(run: Run) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.result()
    return run


def failed_run(frame: pd.DataFrame, api: Any, clock: Any, **options: Any) -> Run:
    """Return a run of which every row failed."""
    fault = api.faults.add(RowFault("overloaded", share=1.0))
    run = settled(ask(frame, api, clock, **options))
    api.faults.remove(fault)
    assert set(run.result()["status"].explode()) == {"errored"}
    return run


@pytest.mark.parametrize("changed", [{"max_tokens": 77}, {"system": "Be long."}, {"model": "claude-opus-4-8"}], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_a_submit_takes_the_answers_of_a_retry_with_the_same_changes(
    api: Any, clock: Any, case: str, changed: dict[str, Any]
) -> None:
    """Whatever the rows hold, what a changed retry has bought is not bought again by a submit of the same options."""
    frame, options = CASES[case]
    failed = failed_run(frame, api, clock, **options)
    retry = settled(failed.retry_failed(**changed))
    n_posted = api.calls("create")
    again = settled(ask(frame, api, clock, **(options | changed)))
    assert api.calls("create") == n_posted
    assert again.id != retry.id
    pd.testing.assert_frame_equal(again.result(), retry.result())


@pytest.mark.parametrize("changed", [{"max_tokens": 77}, {"system": "Be long."}, {"output_config": {"effort": "high"}}])
@pytest.mark.parametrize("case", CASES)
def test_a_changed_retry_sends_what_a_submit_would_send(
    api: Any, clock: Any, case: str, changed: dict[str, Any]
) -> None:
    """The requests are the same to the byte: a schema stays in them, with its fields in their order."""
    frame, options = CASES[case]
    failed = failed_run(frame, api, clock, **options)
    asked: list[str] = []
    api.answer = lambda params: asked.append(json.dumps(params)) or "noted"
    settled(failed.retry_failed(**changed))
    by_retry = sorted(asked)
    asked.clear()
    settled(ask(frame, api, clock, reuse=False, name="by submit", **(options | changed)))
    assert sorted(asked) == by_retry != []


def test_a_parameter_that_is_none_is_left_out(api: Any, clock: Any) -> None:
    """None takes a parameter away, as it does in a submit."""
    failed = failed_run(TEXTS, api, clock, system="Be brief.", stop_sequences=["END"])
    asked: list[dict[str, Any]] = []
    api.answer = lambda params: asked.append(params) or "noted"
    settled(failed.retry_failed(system=None, stop_sequences=None))
    assert asked
    assert all(params.keys() == {"model", "max_tokens", "messages"} for params in asked)


def test_a_retry_takes_what_another_run_has_bought(api: Any, clock: Any) -> None:
    """Rows that were answered elsewhere since are not paid again, with changes or without."""
    failed = failed_run(TEXTS, api, clock)
    settled(ask(TEXTS.iloc[:1], api, clock))
    settled(ask(TEXTS.iloc[1:2], api, clock, max_tokens=77))
    assert settled(failed.retry_failed()).record.n_reused == 1
    assert api.batches[0].n_requests == 2
    other = failed_run(TEXTS, api, clock, name="other", max_tokens=78)
    retry = settled(other.retry_failed(max_tokens=77))
    assert api.batches[0].n_requests == 2
    assert retry.result()["status"].eq("succeeded").all()
    assert retry.paid_usd < retry.cost_usd


@pytest.mark.parametrize(
    ("kind", "is_worth_it"),
    [
        ("api_error", True),
        ("overloaded_error", True),
        ("rate_limit_error", True),
        ("timeout_error", True),
        ("invalid_request_error", False),
        ("permission_error", False),
    ],
)
def test_only_errors_that_pass_are_asked_again(api: Any, clock: Any, kind: str, is_worth_it: bool) -> None:
    """What failed by the server's fault is worth the same request again; what the request is to blame for is not."""
    api.answer = lambda params: Reply(error=(kind, "no"))
    failed = settled(ask(TEXTS, api, clock))
    assert failed.result()["error"].tolist() == [f"{kind}: no"] * 3
    api.answer = None
    assert set(settled(failed.retry_failed()).result()["status"]) == {"succeeded" if is_worth_it else "errored"}
    assert set(settled(failed.retry_failed(errors="all")).result()["status"]) == {"succeeded"}
    assert len(api.batches) == 2


def test_rows_without_an_answer_are_asked_again(api: Any, clock: Any) -> None:
    """A row that the server never answered for is worth asking again, and it alone is."""
    lose_rows(api, 1)
    lost = settled(ask(TEXTS, api, clock))
    assert sorted(lost.result()["status"]) == ["missing", "succeeded", "succeeded"]
    api.faults.clear()
    assert set(settled(lost.retry_failed()).result()["status"]) == {"succeeded"}
    assert api.batches[0].n_requests == 1


def test_a_cut_answer_is_asked_again_with_all(api: Any, clock: Any) -> None:
    """`errors="all"` asks for a cut answer anew, and does not take it for one that is there already."""
    api.faults.add(RowFault("truncated", share=1.0))
    cut = settled(ask(TEXTS, api, clock))
    api.faults.clear()
    again = settled(cut.retry_failed(errors="all"))
    assert set(cut.result()["stop_reason"]) == {"max_tokens"}
    assert set(again.result()["stop_reason"]) == {"end_turn"}


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        ({"max_token": 77}, UnknownOptionError, "did you mean max_tokens=?"),
        ({"prompt_col": "other"}, InputError, "cannot change prompt_col=: it sends the same prompts again"),
        ({"progress": "off"}, InputError, "df.claude_batch.attach(run.id, progress=...).retry_failed()"),
        ({"output_schema": {"a": str}}, InputError, "cannot change output_schema="),
        ({"temperature": 0.5}, UnknownOptionError, "temperature= is gone"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, InputError, "both say what the answer"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_a_retry_cannot_change_is_refused(
    api: Any, clock: Any, overrides: dict[str, Any], error: type[Exception], said: str
) -> None:
    """A name or a value that would have every row refused is told before anything is sent."""
    failed = failed_run(TEXTS, api, clock, output_schema=ZEAL_FIRST)
    n_posted = api.calls("create")
    with pytest.raises(error) as told:
        failed.retry_failed(**overrides)
    assert said in str(told.value)
    assert api.calls("create") == n_posted


def test_a_run_of_a_json_schema_is_found_by_the_options_it_remembers(api: Any, clock: Any) -> None:
    """The order in which a schema names its fields is remembered: `attach` finds every row, `load` keeps the order."""
    run = settled(ask(TEXTS, api, clock, output_schema=ZEAL_FIRST, name="zeal first"))
    attached = TEXTS.claude_batch.attach("zeal first", client=api.client(), progress="off")
    pd.testing.assert_frame_equal(attached.result(), run.result())
    loaded = pandas_batch.load("zeal first")
    pd.testing.assert_frame_equal(loaded.result(), run.result().drop(columns="prompt"))


@pytest.mark.parametrize("schema", [Verdict, {"zeal": Literal["high", "low"], "when": datetime, "n": int}])
def test_a_loaded_run_has_the_columns_of_its_schema_class(api: Any, clock: Any, schema: Any) -> None:
    """The class itself is not remembered, the JSON schema that was made of it is: the same columns, the same dtypes."""
    run = settled(ask(TEXTS, api, clock, output_schema=schema, name="class"))
    loaded = pandas_batch.load("class")
    pd.testing.assert_frame_equal(loaded.result(), run.result().drop(columns="prompt"))
    pd.testing.assert_frame_equal(TEXTS.claude_batch.merge(loaded, client=api.client()), run.result())
