"""Preflight: what would make every row of a batch fail is found before the first POST, and nothing else stops it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import pandas as pd
import pytest

from pandas_batch import simulator
from pandas_batch.errors import InputError
from pandas_batch.estimates import counting
from pandas_batch.estimates import preflight as room
from pandas_batch.estimates.preflight import MAX_SHAPES, PreflightWarning, preflight
from pandas_batch.requests.options import parse_options
from pandas_batch.requests.plan import plan_requests
from pandas_batch.wire.wire import Wire

from .conftest import FakeClock

FRAME = pd.DataFrame({"text": [f"review {i}" for i in range(40)]})


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    counting.forget()
    yield
    counting.forget()


def check(
    api: simulator.Simulator, frame: pd.DataFrame = FRAME, *, clock: FakeClock | None = None, **options: Any
) -> None:
    wire = Wire(api.client(max_retries=0))
    parsed = parse_options(options, prompt_col="text")
    plan = plan_requests(frame, parsed, base_url=wire.base_url, api_version=wire.api_version)
    preflight(plan, parsed, wire, clock=clock or FakeClock())


# -------------------------------------------------------------------- what stops


def test_an_ordinary_call_passes_with_two_questions(api: simulator.Simulator) -> None:
    """One model and one set of options are two free questions, and nothing else is heard by the server."""
    check(api, system="Be brief.")
    assert [request.endpoint for request in api.requests] == ["model", "count_tokens"]
    assert api.billed_usd == 0


def test_an_unknown_model_stops_with_the_closest_ones(api: simulator.Simulator) -> None:
    """A misspelt model is named, with those that the key may use instead."""
    with pytest.raises(InputError) as raised:
        check(api, model="claude-haiku-4.5")
    assert str(raised.value) == (
        "There is no model 'claude-haiku-4.5'.\n"
        "  Nothing was sent, nothing was billed.\n"
        "    model='claude-haiku-4-5-20251001'  # or 'claude-haiku-5-5', 'claude-opus-4-5-20251101'"
    )


def test_a_model_unlike_any_other_stops_without_a_guess(api: simulator.Simulator) -> None:
    """Where no model is close, the list is named instead."""
    with pytest.raises(InputError) as raised:
        check(api, model="gpt-9")
    assert raised.value.hint == "client.models.list() tells which models your key may use"


def test_an_unknown_model_is_found_by_the_count_too(api: simulator.Simulator) -> None:
    """A gateway without the models endpoint still tells of a wrong model, when it counts."""
    api.faults.add(simulator.ErrorAnswer("model", 404, times=None, message="Not found"))
    with pytest.raises(InputError) as raised:
        check(api, model="claude-haiku-4.5")
    assert raised.value.what == "There is no model 'claude-haiku-4.5'."


def test_a_retired_model_stops_with_its_date(api: simulator.Simulator) -> None:
    """A model that is gone is named with the day it went."""
    with pytest.raises(InputError) as raised:
        check(api, model="claude-mythos-preview")
    assert raised.value.what == "model='claude-mythos-preview' was retired on 2026-06-30."
    assert raised.value.hint.startswith("model='claude-mythos-5")


def test_max_tokens_over_the_limit_stops_with_the_limit(api: simulator.Simulator) -> None:
    """The value, the limit and the number of rows are told; the limit can be pasted."""
    with pytest.raises(InputError) as raised:
        check(api, max_tokens=100_000)
    assert str(raised.value) == (
        "max_tokens=100000 is above the limit of claude-haiku-4-5-20251001, 64,000 (in 40 rows).\n"
        "  Nothing was sent, nothing was billed.\n"
        "    max_tokens=64000"
    )


def test_one_row_over_the_limit_is_enough(api: simulator.Simulator) -> None:
    """Per-row values are all looked at, each against the limit of its own model."""
    with pytest.raises(InputError) as raised:
        check(api, max_tokens=lambda df: pd.Series([16] * 39 + [70_000], index=df.index))
    assert "max_tokens=70000" in raised.value.what
    assert "(in 1 rows)" in raised.value.what


def test_the_long_output_beta_lifts_the_limit(api: simulator.Simulator) -> None:
    """With the beta header for 300,000 output tokens in batches the model's usual limit does not count."""
    check(api, model="claude-sonnet-5-5", max_tokens=200_000, betas=["output-300k-2026-03-24"])
    with pytest.raises(InputError) as raised:
        check(api, model="claude-sonnet-5-5", max_tokens=400_000, betas=["output-300k-2026-03-24"])
    assert raised.value.hint == "max_tokens=300000"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_stops_with_the_server_s_words(api: simulator.Simulator, status: int) -> None:
    """A 4xx that speaks of the request passes through as the SDK's error, with a note on the money."""
    api.faults.add(simulator.ErrorAnswer("count_tokens", status, message="messages.0: not like this"))
    with pytest.raises(anthropic.APIStatusError, match="not like this") as raised:
        check(api)
    assert raised.value.status_code == status
    assert raised.value.__notes__ == [
        "The server refused the request of row 0 (counted from 0) when it was asked to count it. "
        "Nothing was sent, nothing was billed.\n    preflight=False sends without this check"
    ]


def test_a_malformed_request_is_found(api: simulator.Simulator) -> None:
    """What the server would tell only after the batch has ended is told at once: here a thinking budget."""
    with pytest.raises(anthropic.BadRequestError, match="thinking"):
        check(
            api,
            system="Be brief.",
            model="claude-opus-5-5",
            max_tokens=4096,
            thinking={"type": "enabled", "budget_tokens": 2048},
        )


def test_a_wrong_key_stops(api: simulator.Simulator) -> None:
    """Refused credentials pass through with a note."""
    wire = Wire(api.client(api_key="invalid"))
    parsed = parse_options({}, prompt_col="text")
    plan = plan_requests(FRAME, parsed, base_url=wire.base_url, api_version=wire.api_version)
    with pytest.raises(anthropic.AuthenticationError) as raised:
        preflight(plan, parsed, wire)
    assert "Nothing was sent" in raised.value.__notes__[0]
    assert "invalid" not in "".join(raised.value.__notes__)


# -------------------------------------------------------------------- what only warns


@pytest.mark.parametrize("status", [402, 403, 404, 429, 500, 529])
@pytest.mark.parametrize("endpoint", ["model", "count_tokens"])
def test_an_endpoint_that_fails_is_one_warning(api: simulator.Simulator, endpoint: str, status: int) -> None:
    """Absent, limited, forbidden or down: the run goes on, with one warning that names the user's own line."""
    api.faults.add(simulator.ErrorAnswer(endpoint, status, times=None, message="Not found"))
    with pytest.warns(PreflightWarning) as caught:
        check(api)
    assert len(caught) == 1
    assert f"HTTP {status}" in str(caught[0].message)
    assert "preflight=False" in str(caught[0].message)
    assert Path(caught[0].filename) == Path(__file__)


def test_everything_absent_is_still_one_warning(api: simulator.Simulator) -> None:
    """A gateway that has neither endpoint warns once."""
    api.faults.add(simulator.ErrorAnswer("*", 404, times=None, message="Not found"))
    with pytest.warns(PreflightWarning) as caught:
        check(api)
    assert len(caught) == 1


@pytest.mark.parametrize("how", ["reset", "html", "empty_object", "bad_json", "redirect_302"])
def test_nonsense_in_the_server_s_place_is_one_warning(api: simulator.Simulator, how: Any) -> None:
    """A portal, a proxy or a dead connection stops nothing."""
    api.faults.add(simulator.LostAnswer(how, endpoint="*", times=None))
    with pytest.warns(PreflightWarning) as caught:
        check(api)
    assert len(caught) == 1


def test_a_server_that_is_silent_holds_nothing_up(api: simulator.Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions that are never answered are given up within the limit, and warned about."""
    monkeypatch.setattr(room, "LIMIT_S", 0.4)
    api.faults.add(simulator.LostAnswer("stall", endpoint="*", times=None, stall_s=5))
    with pytest.warns(PreflightWarning, match="in time"):
        check(api)


def test_an_unreachable_server_is_one_warning(api: simulator.Simulator) -> None:
    """Without a network the create will tell; the preflight does not."""
    wire = Wire(api.client())
    parsed = parse_options({}, prompt_col="text")
    plan = plan_requests(FRAME, parsed, base_url=wire.base_url, api_version=wire.api_version)
    with api.unreachable(), pytest.warns(PreflightWarning, match="APIConnectionError"):
        preflight(plan, parsed, wire)


@pytest.mark.parametrize(
    ("at", "late"), [(datetime(2026, 11, 10, tzinfo=UTC), False), (datetime(2026, 11, 29, 12, tzinfo=UTC), True)]
)
def test_a_model_about_to_retire_is_remarked(api: simulator.Simulator, at: datetime, late: bool) -> None:
    """A retirement within a month is told, and within a batch's 24 hours what that may mean."""
    with pytest.warns(PreflightWarning) as caught:
        check(api, model="claude-sonnet-4-5", clock=FakeClock(at))
    assert "is to be retired on 2026-11-30" in str(caught[0].message)
    assert ("24 hours" in str(caught[0].message)) is late


def test_a_retirement_far_away_is_not_remarked(api: simulator.Simulator) -> None:
    """A deprecated model months before its end is used in silence."""
    check(api, model="claude-sonnet-4-5", clock=FakeClock(datetime(2026, 7, 1, tzinfo=UTC)))


# -------------------------------------------------------------------- what is not asked


@pytest.mark.parametrize(
    ("frame", "options"),
    [
        (FRAME.assign(photo="https://example.org/cat.png"), {"images_col": "photo"}),
        (FRAME, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ],
)
def test_what_cannot_be_counted_is_not_asked_about(
    api: simulator.Simulator, frame: pd.DataFrame, options: dict[str, Any]
) -> None:
    """Requests that batches take and the counting endpoint refuses stop nothing and warn of nothing."""
    check(api, frame, **options)
    assert not api.calls("count_tokens")


def test_many_shapes_take_a_bounded_number_of_questions(api: simulator.Simulator) -> None:
    """Forty different system prompts are not forty questions."""
    check(api, system=lambda df: "Judge like " + df["text"])
    assert 0 < api.calls("count_tokens") <= MAX_SHAPES


def test_each_model_is_asked_about_once(api: simulator.Simulator) -> None:
    """Per-row models are each looked at, and a wrong one among them is found."""
    check(api, model=lambda df: pd.Series(["claude-haiku-4-5", "claude-opus-5-5"] * 20, index=df.index))
    assert api.calls("model") == 2
    with pytest.raises(InputError, match="claude-opus-9"):
        check(api, model=lambda df: pd.Series(["claude-haiku-4-5", "claude-opus-9"] * 20, index=df.index))


def test_a_frame_without_prompts_asks_nothing(api: simulator.Simulator) -> None:
    """Where nothing would be sent there is nothing to check."""
    check(api, pd.DataFrame({"text": pd.Series([None, "  "], dtype=object)}))
    assert not api.requests


def test_passing_is_silent(api: simulator.Simulator) -> None:
    """A call that is fine warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(api, max_tokens=64_000)


def test_the_warning_of_a_call_names_the_line_of_the_call(api: simulator.Simulator) -> None:
    """However many rooms of this package lie between, the warning points at the line that the user typed."""
    api.faults.add(simulator.ErrorAnswer("model", 500, times=None))
    with pytest.warns(PreflightWarning) as caught:
        FRAME.claude_batch.start("text", client=api.client(), progress="off").cancel()
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]


def test_every_call_asks_for_itself(api: simulator.Simulator) -> None:
    """A model that was retired since the last call of the same client is found before anything is sent."""
    client = api.client()
    FRAME.claude_batch.start("text", client=client, progress="off").cancel()
    FRAME.claude_batch.start("text", client=client, progress="off", system="Be brief.").cancel()
    assert api.calls("model") == 2
