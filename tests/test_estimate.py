"""An estimate: what a call would cost, told before anything is sent, held against what the simulator bills."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pandas_batch
from pandas_batch import simulator
from pandas_batch.errors import BudgetError
from pandas_batch.estimates import counting
from pandas_batch.estimates.bounds import minimum_cached_tokens
from pandas_batch.estimates.estimate import Estimate, check_budget, estimate_requests
from pandas_batch.estimates.experience import Experience
from pandas_batch.estimates.forecast import N_COUNTED, Traits, forecast
from pandas_batch.estimates.summing import OFFLINE_BASIS
from pandas_batch.estimates.tables import html_table
from pandas_batch.requests.options import parse_options
from pandas_batch.requests.plan import RequestPlan, plan_requests
from pandas_batch.simulator.models import find_model
from pandas_batch.simulator.tokens import count_input_tokens
from pandas_batch.wire.wire import Body, Wire

from .conftest import FakeClock

AT = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
TEXT = (
    "the review says that delivery was late and refund 12,345 of 2026-11-23 never came großartig schön 评论 很好 "
    "отзыв 😀 https://example.org/a?b=c {'x': [1, 2]} internationalization\n"
)
WORDS = TEXT.split(" ")
WEB_SEARCH = [{"type": "web_search_20250305", "name": "web_search"}]
OWN_TOOL = [{"name": "look", "input_schema": {"type": "object"}}]


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    counting.forget()
    yield
    counting.forget()


@pytest.fixture(scope="module")
def server() -> Iterator[simulator.Simulator]:
    """One server for the properties that ask many times."""
    with simulator.serve(clock=FakeClock().time_s) as running:
        yield running


def texts(n: int, seed: int = 0, longest: int = 300) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, int(rng.integers(1, longest)))) + f" {i}" for i in range(n)]


def wire_to(api: simulator.Simulator) -> Wire:
    if api not in _WIRES:
        _WIRES[api] = Wire(api.client())
    return _WIRES[api]


_WIRES: WeakKeyDictionary[simulator.Simulator, Wire] = WeakKeyDictionary()


def plan_of(frame: pd.DataFrame, wire: Wire, **options: Any) -> tuple[RequestPlan, Any]:
    prompt_col = None if "prompt" in options else options.pop("prompt_col", "text")
    parsed = parse_options(options, prompt_col=prompt_col)
    return plan_requests(frame, parsed, base_url=wire.base_url, api_version=wire.api_version), parsed


def estimate(
    frame: pd.DataFrame,
    api: simulator.Simulator,
    *,
    offline: bool = False,
    times: int = 1,
    reused: int = 0,
    experience: Experience | None = None,
    **options: Any,
) -> Estimate:
    wire = wire_to(api)
    plan, parsed = plan_of(frame, wire, **options)
    positions = np.repeat(np.flatnonzero(plan.sendable), times)
    return estimate_requests(
        plan,
        positions,
        options=parsed,
        n_reused=reused,
        n_batches=1,
        n_bytes=int(plan.text_bytes.sum()),
        wire=None if offline else wire,
        at=AT,
        experience=experience,
    )


def run(frame: pd.DataFrame, api: simulator.Simulator, clock: FakeClock, **options: Any) -> list[simulator.Bill]:
    """Send every row in one batch, and return what the simulator bills for it by its own price list."""
    wire = wire_to(api)
    plan, _ = plan_of(frame, wire, **options)
    bodies = [body for part in plan.encode(np.flatnonzero(plan.sendable)) for body in part]
    lines = [b'{"custom_id":"r%d","params":%b}' % (i, body) for i, body in enumerate(bodies)]
    created = wire.create(Body.from_chunks([b'{"requests":[', b",".join(lines), b"]}"]))
    assert created.outcome == "created"
    clock.advance(3600)
    return api.billed


def billed_input(bills: list[simulator.Bill]) -> int:
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(bill.usage.get(name, 0) for bill in bills for name in names)


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def true_tokens(plan: RequestPlan) -> int:
    import msgspec

    total = 0
    for part in plan.encode(np.flatnonzero(plan.sendable)):
        for body in part:
            params = msgspec.json.decode(body)
            model = find_model(params["model"])
            assert model is not None
            total += count_input_tokens(params, model)
    return total


# -------------------------------------------------------------------- against the bill


def test_estimate_of_a_rich_frame_is_near_its_bill(api: simulator.Simulator, clock: FakeClock) -> None:
    """A template over three columns, an image column and a schema: tokens within 20 %, the bill between the bounds."""
    rng = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "title": texts(1000, 1, 12),
            "body": texts(1000, 2, 200),
            "stars": rng.integers(1, 6, 1000),
            "photo": [None if i % 3 else png(100 + i % 700, 200) for i in range(1000)],
        }
    )
    options = {
        "prompt": "Review: {title} ({stars} stars)\n{body}",
        "system": "Judge the review.",
        "images_col": "photo",
        "output_schema": dict.fromkeys(("a", "b", "c", "d", "e", "f"), str),
        "max_tokens": 400,
    }
    told = estimate(frame, api, **options)
    bills = run(frame, api, clock, **options)
    assert len(bills) == 1000
    assert told.input_tokens == pytest.approx(billed_input(bills), rel=0.2)
    assert told.input_tokens_high is not None
    assert told.input_tokens_low <= billed_input(bills) <= told.input_tokens_high
    assert told.cost_usd_min is not None
    assert told.cost_usd_max is not None
    assert told.cost_usd_min <= float(sum(bill.cost_usd for bill in bills)) <= told.cost_usd_max


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"])
def test_every_model_is_billed_between_the_bounds(api: simulator.Simulator, clock: FakeClock, model: str) -> None:
    """Whatever the model's tokenizer and prices, its bill lies between the bounds, and without batching it doubles."""
    frame = pd.DataFrame({"text": texts(60)})
    told = estimate(frame, api, model=model, max_tokens=4000)
    bill = float(sum(bill.cost_usd for bill in run(frame, api, clock, model=model, max_tokens=4000)))
    assert told.cost_usd_min is not None
    assert told.cost_usd_max is not None
    assert told.cost_usd_min <= bill <= told.cost_usd_max
    assert told.cost_usd_standard == pytest.approx(2 * told.cost_usd_max)


def test_long_prompts_are_bounded_by_their_own_tier(api: simulator.Simulator, clock: FakeClock) -> None:
    """A price that steps up with the length of a prompt is in the bound of prompts near the step."""
    frame = pd.DataFrame({"text": [("word " * 61_500) + str(i) for i in range(30)] + texts(10)})
    options: dict[str, Any] = {"model": "claude-haiku-5-5", "max_tokens": 16}
    told = estimate(frame, api, **options)
    bills = run(frame, api, clock, **options)
    assert told.cost_usd_max is not None
    assert float(sum(bill.cost_usd for bill in bills)) <= told.cost_usd_max


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), noise=st.floats(0.0, 0.1))
def test_any_tokenizer_lies_within_the_error_bar(seed: int, noise: float) -> None:
    """For tokenizers of any density, and texts that scatter around it, the sum lies within the error bar."""
    rng = np.random.default_rng(seed)
    traits, density = some_traits(rng, 400)
    tokens = np.maximum(traits.matrix() @ density * np.exp(rng.normal(0, noise, 400)), 1).round()
    told = forecast(traits, np.arange(400), np.ones(400), lambda at: {place: int(tokens[place]) for place in at})
    assert told.n_counted == N_COUNTED
    assert told.low.sum() <= tokens.sum() <= told.high.sum()


def some_traits(rng: np.random.Generator, n: int, size: float = 600) -> tuple[Traits, np.ndarray]:
    """Return traits of requests of mixed scripts, and the coefficients of a tokenizer."""
    nothing = np.zeros(n)
    text = [rng.lognormal(np.log(size), 0.8, n).round() * share for share in (0.8, 0.15, 0.3)]
    density = np.array([8, rng.uniform(0.18, 0.4), rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.9), 0, 0, 0, 0])
    return Traits(*text, nothing, nothing, nothing, nothing), density


def test_a_long_prompt_is_bounded_by_itself() -> None:
    """Where prices step with the length of a prompt, the bound of a long one covers its own scatter."""
    rng = np.random.default_rng(3)
    for size, covered in ((600, False), (400_000, True)):
        traits, density = some_traits(rng, 400, size)
        tokens = (traits.matrix() @ density * np.exp(rng.normal(0, 0.15, 400))).round()
        told = forecast(
            traits, np.arange(400), np.ones(400), lambda at, n=tokens: {place: int(n[place]) for place in at}
        )
        assert bool(np.mean(tokens <= told.high) > 0.98) is covered


def test_us_inference_is_in_the_bound(api: simulator.Simulator) -> None:
    """Processing in the US costs a tenth more, and the bound says so."""
    frame = pd.DataFrame({"text": texts(30)})
    plain = estimate(frame, api, model="claude-opus-5-5")
    in_us = estimate(frame, api, model="claude-opus-5-5", inference_geo="us")
    assert plain.cost_usd_max is not None
    assert in_us.cost_usd_max == pytest.approx(1.1 * plain.cost_usd_max, rel=1e-3)


ANY_TEXT = st.one_of(
    st.text(min_size=1, max_size=400),
    st.text("0123456789+-*/=(){}[]<>.,;:", min_size=1, max_size=400),
    st.text("abcdefgh ", min_size=1, max_size=3000),
    st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), min_size=1, max_size=400),
    st.text(st.characters(min_codepoint=0x1F300, max_codepoint=0x1FAFF), min_size=1, max_size=200),
).filter(lambda text: bool(text.strip()) and text.isprintable())


@pytest.mark.parametrize("offline", [False, True])
# A law holds on a busy machine too.
@settings(max_examples=40)
@given(
    prompts=st.one_of(st.lists(ANY_TEXT, min_size=1, max_size=20), st.lists(ANY_TEXT, min_size=30, max_size=60)),
    system=st.one_of(st.none(), ANY_TEXT),
    model=st.sampled_from(["claude-haiku-4-5", "claude-opus-5-5"]),
)
def test_upper_bound_is_an_upper_bound(
    server: simulator.Simulator, offline: bool, prompts: list[str], system: str | None, model: str
) -> None:
    """For any texts the server's own count of all requests lies within the error bar, counted or guessed."""
    frame = pd.DataFrame({"text": prompts})
    plan, _ = plan_of(frame, wire_to(server), system=system, model=model)
    told = estimate(frame, server, offline=offline, system=system, model=model)
    assert told.input_tokens_high is not None
    assert told.input_tokens_low <= true_tokens(plan) <= told.input_tokens_high


# -------------------------------------------------------------------- how it is known


def test_nothing_is_spent(api: simulator.Simulator) -> None:
    """An estimate asks for token counts and for nothing else."""
    estimate(pd.DataFrame({"text": texts(50)}), api, system="Be brief.")
    assert {request.endpoint for request in api.requests} == {"count_tokens"}
    assert api.billed_usd == 0


def test_number_of_counts_is_bounded_and_remembered(api: simulator.Simulator) -> None:
    """A thousand rows take twenty counts, and the same estimate again takes none."""
    frame = pd.DataFrame({"text": texts(1000, longest=40)})
    told = estimate(frame, api)
    assert api.calls("count_tokens") == N_COUNTED
    assert told.basis == "counted on 20 of 1,000 requests, the others by their bytes"
    again = estimate(frame, api)
    assert api.calls("count_tokens") == N_COUNTED
    assert again == told


def test_few_requests_are_all_counted(api: simulator.Simulator) -> None:
    """Where every request is counted the estimate is the server's own figure."""
    frame = pd.DataFrame({"text": texts(12)})
    told = estimate(frame, api)
    plan, _ = plan_of(frame, wire_to(api))
    assert told.input_tokens == true_tokens(plan)
    assert told.basis == "counted on all 12 requests"


def test_offline_the_heuristic_is_stated(api: simulator.Simulator) -> None:
    """Without a server nothing is asked, and the basis says what was guessed."""
    told = estimate(pd.DataFrame({"text": texts(50)}), api, offline=True)
    assert not api.requests
    assert told.basis == OFFLINE_BASIS
    assert OFFLINE_BASIS in repr(told)


@pytest.mark.parametrize("status", [404, 429, 500, 529])
def test_estimate_does_without_the_endpoint(api: simulator.Simulator, status: int) -> None:
    """Where counting is absent, limited or down, the estimate is made without it, says so, and stops asking."""
    api.faults.add(simulator.ErrorAnswer("count_tokens", status, times=None))
    told = estimate(pd.DataFrame({"text": texts(50)}), api, system="Be brief.")
    assert told.basis == OFFLINE_BASIS
    assert told.notes == (f"Counting tokens failed (HTTP {status}), so the estimate is wider than it could be.",)
    assert api.calls("count_tokens") <= 8
    assert told.cost_usd_max is not None


def test_refused_requests_do_not_stop_an_estimate(api: simulator.Simulator) -> None:
    """A request that the server will not count is left out of the sample: finding it is the preflight's task."""
    api.faults.add(simulator.ErrorAnswer("count_tokens", 400, times=5))
    told = estimate(pd.DataFrame({"text": texts(200)}), api)
    assert told.basis.startswith("counted on 15 of 200")
    assert not told.notes


def test_a_server_that_counts_nothing_is_remarked(api: simulator.Simulator) -> None:
    """Where every count is refused the estimate is offline, and says who will know why."""
    api.faults.add(simulator.ErrorAnswer("count_tokens", 400, times=None))
    told = estimate(pd.DataFrame({"text": texts(50)}), api)
    assert told.basis == OFFLINE_BASIS
    assert told.notes == ("The server refused to count these requests (HTTP 400); the preflight will say why.",)


def test_little_is_uploaded_for_the_sake_of_counting(api: simulator.Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large requests are counted until enough bytes were sent, the smallest first, and at least one."""
    monkeypatch.setattr("pandas_batch.estimates.counting._MAX_UPLOADED_BYTES", 50_000)
    frame = pd.DataFrame({"text": ["word " * 2_000 * (i + 1) for i in range(20)]})
    told = estimate(frame, api)
    assert sum(request.n_bytes for request in api.requests) <= 50_000
    assert told.basis.startswith("counted on 2 of 20")
    assert told.input_tokens == pytest.approx(true_tokens(plan_of(frame, wire_to(api))[0]), rel=0.05)


def test_every_model_is_counted_with_its_own_tokenizer(api: simulator.Simulator) -> None:
    """Per-row models are forecast one by one, and their bills are added up."""
    both = pd.DataFrame({"text": texts(80), "model": ["claude-haiku-4-5", "claude-opus-5-5"] * 40})
    told = estimate(both, api, model=lambda df: df["model"])
    parts = [estimate(part, api, model=model) for model, part in both.groupby("model")]
    assert set(told.models) == {"claude-haiku-4-5", "claude-opus-5-5"}
    assert told.cost_usd_max == pytest.approx(sum(part.cost_usd_max or 0 for part in parts), rel=0.1)
    plan, _ = plan_of(both, wire_to(api), model=lambda df: df["model"])
    assert told.input_tokens == pytest.approx(true_tokens(plan), rel=0.05)


def test_several_answers_per_row_are_paid_each(api: simulator.Simulator) -> None:
    """A row that is sent three times costs three times as much."""
    frame = pd.DataFrame({"text": texts(30)})
    once, thrice = estimate(frame, api), estimate(frame, api, times=3)
    assert thrice.requests == 3 * once.requests
    assert once.cost_usd_max is not None
    assert thrice.cost_usd_max == pytest.approx(3 * once.cost_usd_max)


def test_large_frames_are_sampled_twice(api: simulator.Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not every request is looked at, the others are imputed, and the bounds still hold."""
    monkeypatch.setattr("pandas_batch.estimates.estimate._MAX_SEEN", 100)
    frame = pd.DataFrame({"text": texts(3000, longest=60)})
    told = estimate(frame, api)
    plan, _ = plan_of(frame, wire_to(api))
    assert told.input_tokens == pytest.approx(true_tokens(plan), rel=0.1)
    assert told.input_tokens_high is not None
    assert told.input_tokens_low <= true_tokens(plan) <= told.input_tokens_high


def test_an_empty_frame_costs_nothing(api: simulator.Simulator) -> None:
    """No request, no tokens, no money, and no question to the server."""
    told = estimate(pd.DataFrame({"text": pd.Series([None, " "], dtype=object)}), api)
    assert (told.rows, told.requests, told.input_tokens, told.cost_usd_max) == (2, 0, 0, 0.0)
    assert not api.requests
    assert "no request" in repr(told)


# -------------------------------------------------------------------- what cannot be known


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"images_col": "picture"}, "URL or file id"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "server tools"),
        ({"tools": lambda df: pd.Series([WEB_SEARCH if i == 9 else OWN_TOOL for i in df.index])}, "server tools"),
        ({"extra_params": {"tools": [{"type": "from_next_year_20270101", "name": "x"}]}}, "server tools"),
        ({"extra_params": {"container": {"skills": []}}}, "container="),
        ({"betas": ["context-management-2025-06-27"], "context_management": {"edits": []}}, "context_management="),
        ({"extra_params": {"context_management": {"edits": []}}}, "context_management="),
        ({"extra_params": {"mcp_servers": [{"type": "url", "url": "https://example.org", "name": "x"}]}}, "mcp_serv"),
        ({"extra_params": {"from_next_year": 1}}, "from_next_year="),
        ({"betas": ["compact-2026-01-12"]}, "compact-2026-01-12"),
        ({"betas": ["from-next-year-2027-01-01"]}, "from-next-year-2027-01-01"),
    ],
)
def test_unbounded_input_has_no_upper_bound(api: simulator.Simulator, options: dict[str, Any], why: str) -> None:
    """Input that the server fetches by itself has no bound: there is no upper figure, and the reason is told."""
    frame = pd.DataFrame({"text": texts(10), "picture": "https://example.org/cat.png"})
    told = estimate(frame, api, **options)
    assert told.input_tokens_high is None
    assert told.cost_usd_max is None
    assert told.cost_usd_standard is None
    assert told.cost_usd_min is not None
    assert any(why in reason for reason in told.unbounded)


def test_parameters_that_add_nothing_are_bounded(api: simulator.Simulator) -> None:
    """Tools that the caller answers, betas of longer answers and old parameters leave the bound as it is."""
    told = estimate(
        pd.DataFrame({"text": texts(10)}),
        api,
        tools=[*OWN_TOOL, {"type": "bash_20250124", "name": "bash"}],
        betas=["output-300k-2026-03-24"],
        extra_params={"temperature": 0.5, "mcp_servers": [], "container": None},
    )
    assert told.unbounded == ()
    assert told.cost_usd_max is not None


LONG = "Follow the rules carefully please. " * 600
MARKS = st.sampled_from([None, {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}])
SYSTEMS = st.sampled_from([None, "Brief.", LONG, "Other. " + LONG, "Third. " + LONG, "Fourth. " + LONG, "5. " + LONG])


def a_tool(mark: Any, text: str = LONG) -> list[dict[str, Any]]:
    tool = {"name": "look", "description": text, "input_schema": {"type": "object"}}
    return [tool if mark is None else {**tool, "cache_control": mark}]


def a_prompt(mark: Any, n: int) -> list[dict[str, Any]]:
    block = {"type": "text", "text": f"{n}. {LONG}"}
    return [block if mark is None else {**block, "cache_control": mark}, {"type": "text", "text": "And?"}]


def valid(marks: list[Any]) -> bool:
    """Whether marks in this order are what the API takes: none of an hour after one of five minutes."""
    lives = [mark.get("ttl", "5m") for mark in marks if mark]
    return lives == sorted(lives)


@st.composite
def calls(draw: st.DrawFn) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Draw a frame and options, what is per row and what is marked for the cache drawn with them."""
    n = draw(st.integers(2, 9))
    cache_system = draw(st.booleans())
    of_tools = [draw(MARKS) for _ in range(n)] if draw(st.booleans()) else [draw(MARKS)] * n
    if cache_system:
        of_tools = [None if mark is None else {"type": "ephemeral", "ttl": "1h"} for mark in of_tools]
    of_prompts = [draw(MARKS) for _ in range(n)] if draw(st.booleans()) else [draw(MARKS)] * n
    is_own_tool = draw(st.booleans())
    is_ordered = [
        valid([tool, {"ttl": "1h"} if cache_system else None, own])
        for tool, own in zip(of_tools, of_prompts, strict=True)
    ]
    of_prompts = [own if ordered else None for own, ordered in zip(of_prompts, is_ordered, strict=True)]
    frame = pd.DataFrame({"text": pd.Series([a_prompt(mark, i) for i, mark in enumerate(of_prompts)], dtype=object)})

    def per_row(values: list[Any]) -> Any:
        return lambda df: pd.Series(values, index=df.index, dtype=object)

    systems = [draw(SYSTEMS) for _ in range(n)] if draw(st.booleans()) else [draw(SYSTEMS)] * n
    options = {
        "system": per_row(systems),
        "tools": per_row([a_tool(mark, f"{i if is_own_tool else 0}. {LONG}") for i, mark in enumerate(of_tools)]),
        "max_tokens": per_row([draw(st.integers(1, 40)) for _ in range(n)]),
        "model": draw(st.sampled_from(["claude-haiku-4-5", "claude-opus-5-5", "claude-haiku-5-5"])),
        "cache_system": cache_system,
    }
    return frame, options


@settings(max_examples=25)
@given(call=calls())
@example(
    call=(
        pd.DataFrame({"text": [f"{i}?" for i in range(6)]}),
        {
            "tools": lambda df: df["text"].map(lambda text: a_tool({"type": "ephemeral", "ttl": "1h"}, text + LONG)),
            "model": "claude-haiku-4-5",
            "max_tokens": 5,
        },
    )
)
def test_no_bill_is_above_its_bound(call: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    """Whatever is given per row and wherever the user's own cache marks stand, the bill stays below the bound."""
    frame, options = call
    clock = FakeClock()
    with simulator.serve(clock=clock.time_s) as api:
        told = [estimate(frame, api, offline=offline, **options).cost_usd_max for offline in (False, True)]
        bill = float(sum(bill.cost_usd for bill in run(frame, api, clock, **options)))
    for most in told:
        assert most is not None
        assert bill <= most


@settings(max_examples=12, deadline=None)
@given(
    limits=st.lists(st.integers(1, 500), min_size=4, max_size=4),
    more=st.lists(st.integers(0, 500), min_size=4, max_size=4),
    cache_system=st.booleans(),
)
def test_larger_max_tokens_never_make_the_bound_smaller(
    server: simulator.Simulator, limits: list[int], more: list[int], cache_system: bool
) -> None:
    """Every row may be answered at greater length, and the bound says so, however many limits there are."""
    frame = pd.DataFrame({"text": texts(60)})
    several = (limits * 15, [a + b for a, b in zip(limits, more, strict=True)] * 15, [max(limits) + max(more)] * 60)
    told = [
        estimate(frame, server, system=LONG, cache_system=cache_system, max_tokens=pd.Series(of_rows)).cost_usd_max
        for of_rows in several
    ]
    assert None not in told
    assert told == sorted(told)


PDF = b"%PDF-1.4\n" + b"x" * 90_000


def test_pdf_documents_are_bounded_once_counted(api: simulator.Simulator, clock: FakeClock) -> None:
    """The pages of a PDF are not known here, but the server counts them; offline there is no bound."""
    frame = pd.DataFrame({"text": texts(30), "paper": [PDF * (1 + i % 3) for i in range(30)]})
    options: dict[str, Any] = {"documents_col": "paper", "max_tokens": 64}
    offline = estimate(frame, api, offline=True, **options)
    assert offline.cost_usd_max is None
    assert offline.unbounded == ("the pages of PDF documents were not counted",)
    told = estimate(frame, api, **options)
    tokens = billed_input(run(frame, api, clock, **options))
    assert told.unbounded == ()
    assert told.input_tokens == pytest.approx(tokens, rel=0.2)
    assert told.input_tokens_high is not None
    assert told.input_tokens_low <= tokens <= told.input_tokens_high


def test_images_offline_are_bounded_by_their_size(api: simulator.Simulator) -> None:
    """The tokens of an image follow from its pixels, so that a bound needs no server."""
    frame = pd.DataFrame({"text": ["x"] * 30, "photo": [png(50 + 40 * i, 900) for i in range(30)]})
    told = estimate(frame, api, offline=True, images_col="photo")
    plan, _ = plan_of(frame, wire_to(api), images_col="photo")
    assert told.input_tokens_high is not None
    assert told.input_tokens_low <= true_tokens(plan) <= told.input_tokens_high


def test_a_prompt_cannot_pass_for_a_tool(api: simulator.Simulator) -> None:
    """Text that looks like JSON of the API stays text."""
    trap = '","type":"url"}{"mcp_servers":[{"cache_control":{"type":"image"}}] "type":"web_search_20250305"'
    told = estimate(pd.DataFrame({"text": [trap] * 3}), api)
    assert told.unbounded == ()
    assert told.basis == "counted on all 3 requests"
    assert told.cost_usd_max is not None


def test_unknown_prices_are_named_and_can_be_given(api: simulator.Simulator) -> None:
    """Without a price there is no amount, never 0; with `prices=` there is."""
    frame = pd.DataFrame({"text": texts(10)})
    told = estimate(frame, api, model="my-model", offline=True)
    assert told.unpriced == ("my-model",)
    assert (told.cost_usd_min, told.cost_usd_max, told.cost_usd_standard) == (None, None, None)
    priced = estimate(frame, api, model="my-model", offline=True, prices={"my-model": (2.0, 10.0)}, max_tokens=1000)
    assert priced.cost_usd_max == pytest.approx(((priced.input_tokens_high or 0) * 1.0 + 10_000 * 5.0) / 1e6, rel=1e-3)


# -------------------------------------------------------------------- the prompt cache


LONG = "Judge by these rules. " * 1200


@pytest.mark.parametrize("cache_system", [False, True])
def test_cache_lines_are_shown_with_and_without(api: simulator.Simulator, cache_system: bool) -> None:
    """A long system prompt gets its bill with and without the cache, whichever was asked for."""
    told = estimate(pd.DataFrame({"text": texts(100)}), api, system=LONG, cache_system=cache_system)
    (cache,) = told.cache
    assert cache.prefix_tokens == pytest.approx(len(LONG) / 4, rel=0.02)
    assert cache.warning is None
    assert cache.cost_usd_min is not None
    assert cache.cost_usd_min_without is not None
    assert cache.cost_usd_min < cache.cost_usd_min_without
    assert (cache.cost_usd_max or 0) > (cache.cost_usd_max_without or 0)
    shown = (cache.cost_usd_min, cache.cost_usd_max)
    if not cache_system:
        shown = (cache.cost_usd_min_without, cache.cost_usd_max_without)
    assert (told.cost_usd_min, told.cost_usd_max) == pytest.approx(shown)
    assert "with cache" in repr(told)
    assert "without cache" in repr(told)


def test_the_lines_of_a_cache_name_their_model_where_there_are_several(api: simulator.Simulator) -> None:
    """A call to one model has lines that need no name; with two models each says whose prefix it is."""
    one = estimate(pd.DataFrame({"text": texts(4)}), api, system=LONG, offline=True)
    assert "with cache (" not in repr(one)
    frame = pd.DataFrame({"text": texts(4), "model": ["claude-haiku-4-5", "claude-opus-5-5"] * 2})
    both = repr(estimate(frame, api, system=LONG, model=lambda df: df["model"], offline=True))
    for model in ("claude-haiku-4-5", "claude-opus-5-5"):
        assert f"with cache ({model})" in both
        assert f"without cache ({model})" in both


def test_answers_as_long_as_earlier_ones_are_billed_as_expected(api: simulator.Simulator, clock: FakeClock) -> None:
    """With what earlier answers used, the bill that is expected is near the one that comes."""
    frame = pd.DataFrame({"text": texts(100)})
    bills = run(frame, api, clock)
    mean = float(np.mean([bill.usage["output_tokens"] for bill in bills]))
    told = estimate(frame, api, experience=Experience(n_answers=100, output_tokens=mean, web_searches=0.0))
    assert told.cost_usd_expected == pytest.approx(float(sum(bill.cost_usd for bill in bills)), rel=0.05)


def test_bill_with_a_cache_lies_between_the_bounds(api: simulator.Simulator, clock: FakeClock) -> None:
    """What the simulator bills for writes and reads lies between the bounds with the cache."""
    frame = pd.DataFrame({"text": texts(100)})
    told = estimate(frame, api, system=LONG, cache_system=True, max_tokens=2000)
    bills = run(frame, api, clock, system=LONG, cache_system=True, max_tokens=2000)
    assert any(bill.usage["cache_read_input_tokens"] for bill in bills)
    assert told.cost_usd_min is not None
    assert told.cost_usd_max is not None
    assert told.cost_usd_min <= float(sum(bill.cost_usd for bill in bills)) <= told.cost_usd_max
    assert told.input_tokens == pytest.approx(billed_input(bills), rel=0.05)


def test_marks_of_the_user_are_in_the_bounds(api: simulator.Simulator, clock: FakeClock) -> None:
    """Cache breakpoints set by hand may write or read all of the input."""
    block = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    frame = pd.DataFrame({"text": texts(40)})
    told = estimate(frame, api, system=[block], max_tokens=2000)
    bill = float(sum(bill.cost_usd for bill in run(frame, api, clock, system=[block], max_tokens=2000)))
    assert told.cost_usd_min is not None
    assert told.cost_usd_max is not None
    assert told.cost_usd_min <= bill <= told.cost_usd_max


@pytest.mark.parametrize("offline", [False, True])
def test_a_prefix_too_short_to_be_cached_is_warned_about(api: simulator.Simulator, offline: bool) -> None:
    """A short system prompt is never cached: the estimate says so, and that it changes nothing."""
    frame = pd.DataFrame({"text": texts(30)})
    told = estimate(frame, api, system="Be brief.", cache_system=True, offline=offline)
    (cache,) = told.cache
    assert cache.is_too_short
    assert cache.cost_usd_max == cache.cost_usd_max_without
    assert "caches none shorter than 4,096" in repr(told)
    assert "caches none shorter" not in repr(estimate(frame, api, system="Be brief.", offline=offline))


def test_prompts_without_a_system_have_no_cache_lines(api: simulator.Simulator) -> None:
    """Where nothing is shared there is nothing to say of a cache."""
    assert estimate(pd.DataFrame({"text": texts(5)}), api).cache == ()


def test_minimum_of_an_unknown_model_is_not_guessed() -> None:
    """A model without a published minimum has none here; dated names and successors are told apart."""
    assert minimum_cached_tokens("claude-sonnet-5-5") is None
    assert minimum_cached_tokens("gpt-2") is None
    assert minimum_cached_tokens("claude-haiku-4-5-20251001") == 4096
    assert minimum_cached_tokens("claude-opus-4-8") == 1024


# -------------------------------------------------------------------- the budget


def budgeted(**changes: Any) -> Estimate:
    values: dict[str, Any] = {
        "rows": 10,
        "requests": 10,
        "reused": 0,
        "batches": 1,
        "bytes": 1000,
        "input_tokens": 1000,
        "input_tokens_low": 900,
        "input_tokens_high": 1100,
        "output_tokens_max": 10_240,
        "cost_usd_min": 0.001,
        "cost_usd_max": 2.0,
        "cost_usd_standard": 4.0,
        "models": ("claude-haiku-4-5",),
    }
    return Estimate(**(values | changes))


def test_budget_lets_its_own_bound_through() -> None:
    """A bound that equals the budget passes; without a budget everything does."""
    check_budget(budgeted(), 2.0)
    check_budget(budgeted(cost_usd_max=None, unbounded=("URL",)), None)


def test_budget_stops_above_the_upper_bound() -> None:
    """A bound above the budget is refused, with both figures and the way on."""
    with pytest.raises(BudgetError) as raised:
        check_budget(budgeted(), 1.99)
    assert str(raised.value) == (
        "This may cost $2.00, above max_cost_usd=1.99 "
        "(10 requests, 1,000 input tokens, at most 10,240 output tokens).\n"
        "  Nothing was sent, nothing was billed.\n"
        "    max_cost_usd=2.00 lets it through\n"
        "    a lower max_tokens= lowers the bound"
    )


def test_budget_below_the_input_alone_says_so() -> None:
    """Where not even the input is paid for, no max_tokens helps."""
    with pytest.raises(BudgetError) as raised:
        check_budget(budgeted(), 0.0005)
    assert raised.value.hint == (
        "max_cost_usd=2.00 lets it through\n"
        "max_cost_usd=0.0005 does not pay for the input alone ($0.001): send fewer or shorter rows"
    )


def test_budget_stops_at_an_unknown_price() -> None:
    """No price, no promise: the model and `prices=` are named."""
    with pytest.raises(BudgetError) as raised:
        check_budget(budgeted(cost_usd_max=None, cost_usd_min=None, unpriced=("my-model",)), 5)
    assert str(raised.value) == (
        "max_cost_usd=5 cannot be kept: no price is known for my-model.\n"
        "  Nothing was sent, nothing was billed.\n"
        '    prices={"my-model": (input, output)}  # USD per million tokens, without the batch discount\n'
        "    pip install -U genai-prices, or pandas_batch.update_prices()   # a newer list"
    )


def test_budget_stops_at_unbounded_input() -> None:
    """No bound, no promise: the reason is named, and what would have one."""
    with pytest.raises(BudgetError) as raised:
        check_budget(budgeted(cost_usd_max=None, unbounded=("images are given as URL",)), 5)
    assert str(raised.value) == (
        "max_cost_usd=5 cannot be kept: the cost cannot be bounded from here (images are given as URL).\n"
        "  Nothing was sent, nothing was billed.\n"
        "    give images and documents as bytes or paths: those have a bound\n"
        '    max_cost_usd=float("inf")   # sends it without a budget'
    )


def test_a_budget_of_the_environment_is_named_where_it_decides() -> None:
    """Who never gave a budget learns where it comes from, and what overrides it; an infinite one stops nothing."""
    unbounded = budgeted(cost_usd_max=None, unbounded=("server tools add what they find to the input",))
    for told in (unbounded, budgeted(), budgeted(cost_usd_max=None, unpriced=("my-model",))):
        with pytest.raises(BudgetError) as raised:
            check_budget(told, 0.0005, from_environment=True)
        assert "environment's PANDAS_BATCH_MAX_COST_USD=0.0005" in raised.value.what
        assert 'max_cost_usd=float("inf")' in raised.value.hint
        with pytest.raises(BudgetError) as raised:
            check_budget(told, 0.0005)
        assert "PANDAS_BATCH" not in str(raised.value)
        check_budget(told, float("inf"))


def test_a_run_that_is_answered_already_needs_no_budget() -> None:
    """Where nothing would be sent nothing can be refused, whatever is unknown."""
    check_budget(budgeted(reused=10, cost_usd_max=None, cost_usd_min=None, unpriced=("my-model",)), 0.0)


def test_budget_holds_against_the_bill(api: simulator.Simulator, clock: FakeClock) -> None:
    """Whatever budget lets a frame through is enough for its bill."""
    frame = pd.DataFrame({"text": texts(80)})
    told = estimate(frame, api, max_tokens=4000)
    assert told.cost_usd_max is not None
    with pytest.raises(BudgetError):
        check_budget(told, told.cost_usd_max * 0.999)
    check_budget(told, told.cost_usd_max)
    assert float(sum(bill.cost_usd for bill in run(frame, api, clock, max_tokens=4000))) <= told.cost_usd_max


# -------------------------------------------------------------------- from a frame


def test_a_budget_stops_a_submit_before_anything_is_posted(api: simulator.Simulator) -> None:
    """`max_cost_usd` is a hard stop: the server hears questions and no create, and the store holds no run."""
    frame = pd.DataFrame({"text": texts(40)})
    with pytest.raises(BudgetError, match=r"above max_cost_usd=0\.01"):
        frame.claude_batch.submit("text", client=api.client(), max_cost_usd=0.01, progress="off")
    assert not api.calls("create")
    assert pandas_batch.runs().empty


def test_what_is_answered_already_is_not_estimated_again() -> None:
    """After a run the same frame costs nothing more, and a longer one costs its new rows only."""
    frame = pd.DataFrame({"text": texts(12)})
    with simulator.serve(seconds_per_batch=0.01) as api:
        options: dict[str, Any] = {"client": api.client(), "progress": "off", "poll_interval": 0.01, "timeout": 60}
        first = frame.iloc[:10].claude_batch.estimate("text", **options)
        frame.iloc[:10].claude_batch.submit("text", **options)
        same = frame.iloc[:10].claude_batch.estimate("text", **options)
        longer = frame.claude_batch.estimate("text", **options)
    assert (first.requests, first.reused, first.to_send) == (10, 0, 10)
    assert (same.requests, same.reused, same.cost_usd_max) == (10, 10, 0.0)
    assert (longer.requests, longer.reused, longer.to_send) == (12, 10, 2)


# -------------------------------------------------------------------- how it is shown


def test_an_estimate_shows_no_prompt(api: simulator.Simulator) -> None:
    """Neither text nor HTML holds a word of a prompt."""
    told = estimate(pd.DataFrame({"text": ["a secret word"] * 5}), api, system="another secret", cache_system=True)
    for shown in (repr(told), told._repr_html_(), str(told.to_dict())):
        assert "secret" not in shown


def test_html_is_escaped() -> None:
    """A model's name is text, also where it looks like markup."""
    shown = budgeted(models=("<img src=x onerror=alert(1)>",), unpriced=("<b>",))._repr_html_()
    assert "<img" not in shown
    assert "<b>" not in shown
    assert "&lt;img" in shown


def test_every_cell_is_escaped() -> None:
    """Label, value and remark of a row are text."""
    assert "<i>" not in html_table("<i>", [("<i>", "<i>", "<i>")], ["<i>"])


def test_html_keeps_dollars_from_mathjax() -> None:
    """Two amounts on one line are no formula in a notebook."""
    assert "mathjax_ignore tex2jax_ignore" in budgeted()._repr_html_()


def test_text_of_an_estimate() -> None:
    """The table as a terminal shows it."""
    assert repr(budgeted(reused=3, basis="counted on 7 of 7 requests")) == (
        "Estimate for claude-haiku-4-5\n"
        "  rows                  10\n"
        "  requests              10  3 of them answered already or in flight\n"
        "  batches                1  1.0 kB\n"
        "  input tokens       1,000  900 to 1,100\n"
        "  output tokens     10,240  at most: max_tokens used up\n"
        "  cost at least     $0.001  input only\n"
        "  cost at most       $2.00  every answer as long as max_tokens allows\n"
        "  without batching   $4.00  at most\n"
        "  Input tokens: counted on 7 of 7 requests."
    )


def test_the_bill_is_told_against_the_estimate() -> None:
    """Afterwards one sentence says how the bill came out."""
    assert budgeted().against(1.5, 950) == "billed $1.50 of at most $2.00; input tokens 5.0 % below the estimate"
    assert budgeted().against(2.5) == "billed $2.50, above the estimated bound of $2.00"
    assert budgeted().against(None) == "billed unknown of at most $2.00"
