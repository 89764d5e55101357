"""Calls whose arguments do not fit: answered in words, whatever stands where."""

from __future__ import annotations

import asyncio
import enum
import inspect
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

import pandas_batch
from pandas_batch import AsyncBatchClient, BatchClient, BatchRequest, Prompt, simulator
from pandas_batch.call_arguments import calls_in_words, in_words, nearest
from pandas_batch.errors import InputError, PandasBatchError, UnknownOptionError


class _Color(enum.Enum):
    RED = "red"


FRAME = pd.DataFrame({"review": ["Lovely.", "It broke."]})
WRONG: dict[str, Any] = {
    "a text": "x",
    "an empty text": "",
    "a number": 5,
    "half a number": 1.5,
    "less than nothing": -1,
    "no number": float("nan"),
    "more than a machine holds": 10**400,
    "yes": True,
    "a list": ["review"],
    "a dict": {"a": 1},
    "a set": {"a"},
    "a Series": FRAME["review"],
    "a frame": FRAME,
    "an array": np.array(["a", "b"]),
    "an index": FRAME.index,
    "a path": Path("/nowhere/at/all"),
    "bytes": b"x",
    "nothing known": pd.NA,
    "a class": int,
    "a Literal": Literal["a"],
    "an enumeration": _Color,
    "a member of one": _Color.RED,
    "an object": object(),
}
"""What stands by mistake where something else is meant."""


@in_words
def ask(frame: Any, n: int = 1, *, model: str = "", **further: Any) -> Any:
    return frame, n, model, further


@in_words
def shut(*, server: bool = False, force: bool = False) -> None:
    """Take two options by name alone."""


@calls_in_words("All is as it was.")
class Handle:
    def __init__(self, name: str, *, size: int = 1) -> None:
        self.name = name

    def look(self, twice: bool = False) -> bool:
        return twice

    async def later(self, once: bool = True) -> bool:
        return once

    def fails(self) -> None:
        int(None)  # type: ignore[call-overload]  # on purpose


@pytest.mark.parametrize(
    ("call", "kind", "what", "hint"),
    [
        (lambda: ask(), InputError, "lacks frame", "ask(frame, n)"),
        (lambda: ask(1, 2, 3), UnknownOptionError, "takes 2 arguments without a name (frame, n); 3 were", "model=3"),
        (lambda: ask(1, 2, "x"), UnknownOptionError, "3 were given", "ask(frame, n, model=...)"),
        (lambda: ask(1, frame=2), InputError, "given frame twice", "ask(frame, n)"),
        (lambda: shut(True), UnknownOptionError, "takes no arguments without a name; 1 was", "shut(server=True)"),
        (lambda: shut(sever=True), UnknownOptionError, "takes no sever=", "did you mean server=?"),
        (lambda: shut(x=1), UnknownOptionError, "takes no x=", "shut(server=..., force=...)"),
        (lambda: Handle(), InputError, "Handle() lacks name", "Handle(name)"),
        (lambda: Handle("a", nmae=1), UnknownOptionError, "Handle() takes no nmae=", "did you mean name=?"),
        (lambda: Handle("a").look(twize=True), UnknownOptionError, "look() takes no twize=", "did you mean twice=?"),
        (lambda: asyncio.run(Handle("a").later(oncee=True)), UnknownOptionError, "later() takes", "mean once=?"),
    ],
)
def test_what_does_not_fit_is_named_with_the_line_to_type(
    call: Callable[[], object], kind: type[Exception], what: str, hint: str
) -> None:
    """An argument that a call does not take, lacks, or gets twice is told in three parts."""
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, PandasBatchError)
    assert what in caught.value.what
    assert hint in caught.value.hint
    assert caught.value.state in ("Nothing was sent, nothing was billed.", "All is as it was.")


def test_what_a_call_itself_raises_is_left_alone() -> None:
    """A TypeError from the inside of a call stays what it is: no mistake of ours reads as the user's."""
    with pytest.raises(TypeError) as caught:
        Handle("a").fails()
    assert not isinstance(caught.value, PandasBatchError)


def test_a_call_that_fits_is_the_call() -> None:
    """Signatures, values, pickles and coroutines are those of the call itself."""
    assert ask(1, 2, model="m", x=3) == (1, 2, "m", {"x": 3})
    assert str(inspect.signature(Handle.look)) == "(self, twice: 'bool' = False) -> 'bool'"
    assert inspect.iscoroutinefunction(Handle.later)
    assert asyncio.run(Handle("a").later()) is True
    assert pickle.loads(pickle.dumps(BatchRequest("a", "b"))) == BatchRequest("a", "b")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("modle", "model"), ("mdoel", "model"), ("modell", "model"), ("max_token", "max_tokens"), ("score", None)],
)
def test_a_slip_is_told_from_another_word(name: str, meant: str | None) -> None:
    """Letters in another order are the name that was meant; a word that merely looks like it is not."""
    assert nearest(name, ["mode", "model", "max_tokens", "store"], 0.84) == meant


class _World:
    """A finished run, a client, and an ended batch."""

    def __init__(self, api: simulator.Simulator) -> None:
        self.sdk = api.client(max_retries=0)
        self.given: dict[str, Any] = {"client": self.sdk, "progress": "off", "poll_interval": 0.01}
        self.run = FRAME.claude_batch.start("review", name="done", **self.given)
        self.run.result()
        self.client = BatchClient(client=self.sdk)
        self.requests = [BatchRequest("a", "x")]
        self.batch = self.client.submit(self.requests)

    def asynchronous(self) -> AsyncBatchClient:
        return AsyncBatchClient(client=self.sdk)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_World]:
    with pytest.MonkeyPatch.context() as patch, simulator.serve() as api:
        patch.setenv("PANDAS_BATCH_HOME", str(tmp_path_factory.mktemp("home") / "store"))
        yield _World(api)


CALLS: dict[str, Callable[[_World, Any], object]] = {
    "run.wait": lambda w, v: w.run.wait(v),
    "run.wait_submitted": lambda w, v: w.run.wait_submitted(timeout=v),
    "run.result(partial)": lambda w, v: w.run.result(v),
    "run.result(columns)": lambda w, v: w.run.result(columns=v),
    "run.check": lambda w, v: w.run.check(max_failed=v),
    "run.check(max_cost_usd)": lambda w, v: w.run.check(max_cost_usd=v),
    "run.retry_failed(errors)": lambda w, v: w.run.retry_failed(errors=v),
    "run.retry_failed(max_cost_usd)": lambda w, v: w.run.retry_failed(max_cost_usd=v),
    "run.retry_failed(max_tokens)": lambda w, v: w.run.retry_failed(max_tokens=v),
    "run.retry_failed(rows)": lambda w, v: w.run.retry_failed(rows=v, modle="x"),
    "run.finish_now": lambda w, v: w.run.finish_now(v),
    "run.cancel": lambda w, v: w.run.cancel(force=v),
    "run.delete": lambda w, v: w.run.delete(server=v, force="x"),
    "run.to_jsonl": lambda w, v: w.run.to_jsonl(v),
    "run.plot": lambda w, v: w.run.plot(v),
    "runs": lambda w, v: pandas_batch.runs(v),
    "load": lambda w, v: pandas_batch.load(v),
    "load(store)": lambda w, v: pandas_batch.load("done", store=v),
    "load(client)": lambda w, v: pandas_batch.load("done", client=v).retry_failed(rows=[0], max_tokens=9),
    "frame": lambda w, v: pandas_batch.frame(v).preview("review", client=w.sdk),
    "recover": lambda w, v: pandas_batch.recover(v, prompt_col="review", **w.given),
    "recover(prompt_col)": lambda w, v: pandas_batch.recover(FRAME, prompt_col=v, **w.given),
    "compare_runs(a)": lambda w, v: pandas_batch.compare_runs(v, w.run),
    "compare_runs(metric)": lambda w, v: pandas_batch.compare_runs(w.run, w.run, v),
    "compare_runs(max_cost_ratio)": lambda w, v: pandas_batch.compare_runs(w.run, w.run, None, v),
    "update_prices": lambda w, v: pandas_batch.update_prices(v),
    "upload_files": lambda w, v: pandas_batch.upload_files(w.sdk, v),
    "upload_files(client)": lambda w, v: pandas_batch.upload_files(v, ["/nowhere/at/all"]),
    "df.attach": lambda w, v: FRAME.claude_batch.attach(v, client=w.sdk),
    "df.merge": lambda w, v: FRAME.claude_batch.merge(v, client=w.sdk),
    "df.merge(partial)": lambda w, v: FRAME.claude_batch.merge(w.run, partial=v),
    "df.preview": lambda w, v: FRAME.claude_batch.preview("review", v, client=w.sdk) if v is not True else None,
    "df.trial": lambda w, v: FRAME.claude_batch.trial("review", v, max_cost_usd=0, **w.given),
    "df.estimate": lambda w, v: FRAME.claude_batch.estimate(v, client=w.sdk),
    "series.preview": lambda w, v: FRAME["review"].claude_batch.preview(v, client=w.sdk),
    "BatchClient": lambda w, v: BatchClient(v, client=w.sdk),
    "BatchClient(system)": lambda w, v: BatchClient(system=v, client=w.sdk).submit(w.requests),
    "BatchClient(max_tokens)": lambda w, v: BatchClient(max_tokens=v, client=w.sdk).submit(w.requests),
    "BatchClient(output_schema)": lambda w, v: BatchClient(output_schema=v, client=w.sdk),
    "BatchClient(api_key)": lambda w, v: BatchClient(api_key=v),
    "BatchClient(client)": lambda w, v: BatchClient(client=v),
    "BatchClient(lost_answer_grace)": lambda w, v: BatchClient(client=w.sdk, lost_answer_grace=v),
    "client.submit": lambda w, v: w.client.submit(v),
    "client.submit(a prompt)": lambda w, v: w.client.submit([BatchRequest("a", v)]),
    "client.submit(an id)": lambda w, v: w.client.submit([BatchRequest(v, "x")]),
    "client.submit(params)": lambda w, v: w.client.submit([BatchRequest("a", "x", params=v)]),
    "client.status": lambda w, v: w.client.status(v),
    "client.results": lambda w, v: w.client.results(v),
    "client.iter_results": lambda w, v: list(w.client.iter_results(v)),
    "client.wait": lambda w, v: w.client.wait(v, 0.01),
    "client.wait(poll_interval)": lambda w, v: w.client.wait(w.batch, poll_interval=v),
    "client.wait(timeout)": lambda w, v: w.client.wait(w.batch, 0.01, v if v is not True else "x"),
    "client.cancel": lambda w, v: w.client.cancel(v),
    "client.list": lambda w, v: w.client.list(v),
    "client.delete": lambda w, v: w.client.delete(v),
    "async client.status": lambda w, v: asyncio.run(w.asynchronous().status(v)),
    "run_prompts": lambda w, v: pandas_batch.run_prompts(v, client=w.sdk, timeout="x"),
    "run_prompts(timeout)": lambda w, v: pandas_batch.run_prompts(["a"], client=w.sdk, poll_interval=0.01, timeout=v),
    "arun_prompts": lambda w, v: asyncio.run(pandas_batch.arun_prompts(v, client=w.sdk, timeout="x")),
    "to_api_request(prompt)": lambda _, v: BatchRequest("a", v).to_api_request(),
    "to_api_request(system)": lambda _, v: BatchRequest("a", "x", system=v).to_api_request(),
    "to_api_request(params)": lambda _, v: BatchRequest("a", "x", params=v).to_api_request(),
    "Prompt": lambda _, v: Prompt(role=v).render(),
}
"""Every public call, with one argument that a mistake may stand for; another wrong one where it would cost time."""


def answer_of(call: Callable[[], object]) -> PandasBatchError | None:
    try:
        call()
    except PandasBatchError as error:
        return error
    return None


@pytest.mark.filterwarnings("ignore:Run run_:UserWarning")  # rows of the simulator fail, and a run says so
@pytest.mark.parametrize("name", CALLS)
def test_no_mistake_is_answered_with_a_raw_error(
    name: str, world: _World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands where something else is meant: it works, or the error has all of its three parts."""
    monkeypatch.chdir(tmp_path)
    for title, value in WRONG.items():
        said = answer_of(partial(CALLS[name], world, value))
        assert said is None or (said.state and said.hint), f"{name} <- {title}: {said}"
