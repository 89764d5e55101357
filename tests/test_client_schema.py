"""``output_schema=`` of the client layer: every answer is read as what was asked for, or says why it cannot be."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pandas as pd
import pytest
from pydantic import BaseModel, field_validator

from pandas_batch import AsyncBatchClient, BatchClient, BatchRequest, arun_prompts, run_prompts, simulator
from pandas_batch.errors import InputError
from pandas_batch.simulator.faults import RowFault


@pytest.fixture(autouse=True)
def no_waiting(quick_looks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches end at once, by the clock on the wall."""
    monkeypatch.setitem(simulator.Simulator.__init__.__kwdefaults__, "seconds_per_batch", 0.0)


class Verdict(BaseModel):
    verdict: Literal["good", "bad"]
    points: int = 3


SCHEMAS: dict[str, tuple[Any, str, Any]] = {
    "class": (Verdict, '{"verdict": "good", "points": 5}', Verdict(verdict="good", points=5)),
    "names": ({"score": float}, '{"score": 0.5}', {"score": 0.5}),
    "labels": (["yes", "no"], '{"label": "no"}', "no"),
    "json": (
        {
            "type": "object",
            "properties": {"n": {"type": "integer"}},
            "required": ["n"],
            "additionalProperties": False,
        },
        '{"n": 7}',
        {"n": 7},
    ),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_answers_are_read_as_what_was_asked_for(name: str) -> None:
    """Every kind of schema gives its own kind of value, whichever way the results are fetched."""
    schema, answer, value = SCHEMAS[name]
    asked = []

    def answered(params: dict[str, Any]) -> str:
        asked.append(params["output_config"]["format"])
        return answer

    with (
        simulator.serve(answer=answered) as api,
        BatchClient(client=api.client(), output_schema=schema) as client,
    ):
        requests = [BatchRequest("a", "?"), BatchRequest("b", "?", params={"output_config": {"effort": "low"}})]
        ran = client.run(requests, poll_interval=0.01)
        job = client.submit(requests)
        waited = client.wait(job, poll_interval=0.01)
        for results in (ran, waited, client.results(job), list(client.iter_results(job))):
            assert [(result.status, result.parsed) for result in results] == [("succeeded", value)] * 2
        plain = run_prompts(["?"], client=api.client(), output_schema=schema, poll_interval=0.01)
        of_async = asyncio.run(arun_prompts(["?"], client=api.client(), output_schema=schema, poll_interval=0.01))
        assert plain[0].parsed == of_async[0].parsed == value
        assert asked[0]["type"] == "json_schema"
        assert len({str(one) for one in asked}) == 1


@pytest.mark.parametrize("outcome", ["invalid_json", "truncated", "refused", "paused", "no_text", "errored"])
def test_what_does_not_fit_is_invalid_and_says_why(outcome: str) -> None:
    """An answer that is none, or cut, is kept as text, parsed is None, and no answer is quoted in the error."""
    with simulator.serve(answer='{"score": 0.5, "secret-word": 1}') as api:
        api.faults.add(RowFault(outcome, share=1.0))
        (result,) = run_prompts(["?"], client=api.client(), output_schema={"score": float}, poll_interval=0.01)
    expected = "errored" if outcome == "errored" else "invalid" if outcome != "paused" else result.status
    assert result.status == expected
    assert (result.parsed is None) == (result.status != "succeeded")
    assert result.error is None or "secret-word" not in result.error
    if result.status == "invalid":
        assert result.error is not None
        assert result.error.startswith("invalid: ")
        assert result.message is not None


def test_a_schema_of_a_call_comes_before_that_of_the_client() -> None:
    """What a call asks for holds for that call; the async client takes the same."""
    with simulator.serve(answer='{"label": "no"}') as api:
        client = BatchClient(client=api.client(), output_schema=["yes", "maybe"])
        (result,) = client.run([BatchRequest("a", "?")], output_schema=["yes", "no"], poll_interval=0.01)
        assert result.parsed == "no"
        (result,) = client.run([BatchRequest("a", "?")], poll_interval=0.01)
        assert (result.status, result.parsed) == ("invalid", None)

        async def main() -> Any:
            client = AsyncBatchClient(client=api.async_client(), output_schema=["yes", "no"])
            job = await client.submit([BatchRequest("a", "?")])
            return await client.wait(job, poll_interval=0.01)

        assert asyncio.run(main())[0].parsed == "no"


def test_a_schema_that_is_none_is_refused_before_anything_is_sent() -> None:
    """What is no schema, or clashes with a format of the request's own, is told at once."""
    with simulator.serve() as api, BatchClient(client=api.client()) as client:
        for wrong in ({}, [], ["yes", "yes"], 7, "label"):
            with pytest.raises(InputError):
                client.run([BatchRequest("a", "?")], output_schema=wrong)
            with pytest.raises(InputError):
                BatchClient(client=api.client(), output_schema=wrong)
        own = {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}
        with pytest.raises(InputError, match="both say"):
            client.run([BatchRequest("a", "?", params=own)], output_schema=["yes", "no"])
        assert api.batches == []


class Picky(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def _divide(cls, n: int) -> int:
        return 10 // n


def test_a_validator_that_raises_anything_spoils_its_own_row_alone() -> None:
    """What a class of the user's raises makes that row invalid: the answers are paid, and nothing of them is lost."""
    with simulator.serve(answer=lambda params: json.dumps({"n": int(params["messages"][0]["content"])})) as api:
        results = run_prompts(["5", "0", "2"], client=api.client(), output_schema=Picky, poll_interval=0.01)
        assert [result.status for result in results] == ["succeeded", "invalid", "succeeded"]
        assert results[0].to_dict()["parsed"] == {"n": 2}
        assert json.dumps(results[0].to_dict())
        frame = pd.DataFrame({"prompt": ["5", "0", "2"]})
        out = frame.claude_batch.submit("prompt", output_schema=Picky, client=api.client(), progress="off")
        assert out["status"].tolist() == ["succeeded", "invalid", "succeeded"]
