"""Lost create answers: looked for, proved, and never paid twice."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import anthropic
import pandas as pd
import pytest
from gateway import Answer, Gateway, is_list, with_items
from rowlab import ask, until_batches
from step_lab import place_at
from store_lab import CREATED_AT, add_run

from pandas_batch import BatchClient, BatchRequest, WaitTimeout, simulator
from pandas_batch.display.account import text_account
from pandas_batch.engine import reconciling
from pandas_batch.errors import UnreadableAnswerError
from pandas_batch.simulator.faults import BadResults, ErrorAnswer, ListLag, LostAnswer, Outage, RowFault
from pandas_batch.wire.flows import Reply

_AT = datetime(2026, 11, 1, tzinfo=UTC)

HOWS = ("reset", "close", "cut", "html", "empty_object", "bad_json", "redirect_302", "redirect_307")
ERRORS = (408, 409, 500, 502, 503, 504, 529)
FRAME = pd.DataFrame({"prompt": ["a", "b", "c"]})


def mine(api: simulator.Simulator) -> list[object]:
    """Return the batches on the server that are not somebody else's."""
    return [
        batch for batch in api.batches if any(line.startswith(b'{"custom_id":"pb1_') for line in batch.result_lines())
    ]


def assert_paid_once(api: simulator.Simulator, out: pd.DataFrame) -> None:
    """Every row is answered with its own prompt, by one batch."""
    assert out["status"].tolist() == ["succeeded"] * 3
    assert [text.removeprefix("> ") if isinstance(text, str) else text for text in out["output"]] == out[
        "prompt"
    ].tolist()
    assert len(mine(api)) == 1


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("how", HOWS)
def test_lost_answer_is_paid_once(api, clock, how, committed):
    """However the answer to a create is lost, and whether or not the batch exists: one batch is paid."""
    api.faults.add(LostAnswer(how, committed=committed))
    assert_paid_once(api, ask(FRAME, api, clock).result())


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("status", ERRORS)
def test_ambiguous_error_is_paid_once(api, clock, status, committed):
    """A server error on a create says nothing about the batch, so it is looked for."""
    api.faults.add(ErrorAnswer("create", status, committed=committed))
    assert_paid_once(api, ask(FRAME, api, clock).result())


def test_decoys_are_never_adopted(api, clock):
    """Batches of the same size from others, before and after the POST, are looked at and left alone."""
    for _ in range(3):
        api.add_decoy(3)
    clock.advance(5)
    api.faults.add(LostAnswer("reset", committed=True))
    run = ask(FRAME, api, clock)
    for _ in range(3):
        api.add_decoy(3)
    assert_paid_once(api, run.result())
    assert run.batches[0].batch_id == mine(api)[0].id


def test_decoys_do_not_stand_in_for_a_batch_that_never_was(api, clock):
    """Where only strangers show up, the batch is posted again, once they are disproved and the grace is over."""
    api.faults.add(LostAnswer("reset", committed=False))
    run = ask(FRAME, api, clock)
    api.add_decoy(3)
    assert_paid_once(api, run.result())


def test_late_commit_within_the_grace_is_found(api, clock):
    """A server that commits minutes after the connection died is waited for."""
    api.faults.add(LostAnswer("reset", committed=True, late_s=400.0))
    assert_paid_once(api, ask(FRAME, api, clock, lost_answer_grace=600).result())


def test_lagging_list_is_waited_for(api, clock):
    """A batch that the list shows only later is found all the same."""
    api.faults.add(ListLag(seconds=300.0))
    api.faults.add(LostAnswer("close", committed=True))
    assert_paid_once(api, ask(FRAME, api, clock).result())


def test_outage_after_the_loss_is_waited_out(api, clock):
    """While the list cannot be read nothing is posted again, however long that lasts."""
    api.faults.add(LostAnswer("reset", committed=True))
    api.faults.add(Outage(from_s=clock.time_s() + 1, until_s=clock.time_s() + 7200, how=503))
    assert_paid_once(api, ask(FRAME, api, clock).result())


def test_two_lost_batches_of_one_size_find_their_own(api, clock):
    """Lost batches of the same size are told apart by the nonce in their results."""
    api.faults.add(LostAnswer("reset", committed=True, times=2))
    first = ask(FRAME, api, clock)
    second = ask(pd.DataFrame({"prompt": ["x", "y", "z"]}), api, clock)
    assert first.result()["output"].tolist() != second.result()["output"].tolist()
    assert second.result()["status"].tolist() == ["succeeded"] * 3
    assert len(mine(api)) == 2
    assert first.batches[0].batch_id != second.batches[0].batch_id


def test_listless_gateway_uses_the_servers_clock(api, clock):
    """Where the newest batch cannot be had before the POST, the server's own time marks what is newer."""
    api.add_decoy(3, at=clock.time_s() - 86400)
    api.faults.add(ErrorAnswer("list", 500, times=4))
    api.faults.add(LostAnswer("reset", committed=True))
    assert_paid_once(api, ask(FRAME, api, clock).result())


def test_unproved_batch_is_canceled_only_by_force(clock):
    """A batch that is only believed to be ours is left alone unless the user forces it."""
    with simulator.serve(clock=clock.time_s, seconds_per_batch=6 * 3600) as api:
        api.faults.add(LostAnswer("reset", committed=True))
        run = ask(FRAME, api, clock)
        while not any(batch.candidate_id is not None for batch in run.store.batches.of_run(run.id)):
            time.sleep(0.002)
        assert "was left alone" in run.cancel()
        assert api.calls("cancel") == 0
        run.cancel(force=True)
        assert api.calls("cancel") == 1
        assert set(run.result()["status"]) <= {"succeeded", "canceled"}
        assert len(api.batches) == 1


def test_broken_proof_is_fetched_again(api, clock):
    """Results that come broken prove nothing either way; they are read again."""
    api.faults.add(LostAnswer("reset", committed=True))
    api.faults.add(BadResults("junk", n_rows=1, times=1))
    assert_paid_once(api, ask(FRAME, api, clock).result())


PAGES = {
    "a page": ("<html>stopped by a filter</html>", "text/html"),
    "nothing": ("", "text/plain"),
    "JSON of another kind": ('{"error":"blocked"}', "application/json"),
    "another API's error": ('{"error":{"type":"auth","message":"no"}}', "application/json"),
}


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 429])
@pytest.mark.parametrize("page", PAGES)
def test_a_refusal_that_is_not_the_apis_is_doubted(api, clock, page, status, committed):
    """Only the API's own error object says that no batch was made: after any other 4xx it is looked for."""
    body, content_type = PAGES[page]
    api.faults.add(ErrorAnswer("create", status, committed=committed, body=body, content_type=content_type))
    out = ask(FRAME, api, clock).result()
    assert out["status"].eq("succeeded").all()
    assert len(api.billed) == 3
    assert len(mine(api)) == (2 if status == 413 and not committed else 1)


def test_what_answers_every_create_in_the_apis_place_is_named(api, clock):
    """After three such answers the run is blocked and quotes what answered; the next call looks before it posts."""
    api.faults.add(ErrorAnswer("create", 403, times=3, body="<html>Company filter</html>", content_type="text/html"))
    run = ask(FRAME, api, clock)
    with pytest.raises(UnreadableAnswerError, match="Company filter"):
        run.result()
    assert (run.status, api.calls("create")) == ("blocked", 3)
    assert "Company filter" in text_account(run.snapshot())
    assert_paid_once(api, ask(FRAME, api, clock).result())


@pytest.mark.parametrize("left_out", ["request_counts", "created_at", "processing_status", "expires_at"])
@pytest.mark.parametrize("as_null", [True, False])
def test_a_listed_batch_that_says_little_is_asked_for_itself(api, clock, left_out, as_null):
    """A gateway's list may leave out anything but the id: a batch of unknown size may be ours."""

    def edit(item):
        item.pop(left_out)
        if as_null:
            item[left_out] = None

    def change(method, path, answer):
        return with_items(answer, edit) if is_list(method, path) else None

    api.faults.add(LostAnswer("reset"))
    with Gateway(api, change=change) as gate:
        assert_paid_once(api, ask(FRAME, api, clock, client=gate.client()).result())


def test_an_entry_without_an_id_stops_every_second_post(api, clock):
    """What stands unreadable in the list may be our batch: nothing is posted as long as it is there."""
    api.faults.add(LostAnswer("reset"))
    is_broken = True

    def change(method, path, answer):
        if is_list(method, path) and is_broken and "limit=1&" not in path + "&":
            return with_items(answer, lambda item: {"type": "message_batch"})
        return None

    with Gateway(api, change=change) as gate:
        run = ask(FRAME, api, clock, client=gate.client())
        with pytest.raises(UnreadableAnswerError, match="not the API answered"):
            run.wait(timeout=4000)
        assert (run.status, api.calls("create")) == ("blocked", 1)
        is_broken = False
        assert_paid_once(api, run.result())


def _page_of(answer, edit):
    """Return a list whose page went through `edit`."""
    page = json.loads(answer.body)
    edit(page)
    return Answer(answer.status, json.dumps(page).encode(), {"content-type": "application/json"})


@pytest.mark.parametrize("layer", ["accessor", "client"])
def test_an_entry_without_an_id_hides_a_batch_beside_one_that_has_one(api, clock, layer):
    """What is unreadable may be ours also where an older batch is listed as it should be: nothing is posted again."""
    api.add_decoy(3)
    clock.advance(1)
    api.faults.add(LostAnswer("reset"))
    is_broken = True

    def edit(page):
        page["data"] = [item if item["id"] == decoy else {"type": "message_batch"} for item in page["data"]]

    def change(method, path, answer):
        return _page_of(answer, edit) if is_list(method, path) and is_broken else None

    decoy = api.batches[0].id
    with Gateway(api, change=change) as gate:
        if layer == "client":
            with pytest.raises(WaitTimeout):
                BatchClient(client=gate.client(), clock=clock).run([BatchRequest("a", "x")], timeout=4000)
            assert api.calls("create") == 1
            return
        run = ask(FRAME, api, clock, client=gate.client())
        with pytest.raises(UnreadableAnswerError, match="without an id"):
            run.wait(timeout=4000)
        assert api.calls("create") == 1
        is_broken = False
        assert_paid_once(api, run.result())


def _half_counts(page):
    for item in page["data"]:
        del item["request_counts"]["errored"]


def _unknown_word(page):
    for item in page["data"]:
        item["processing_status"] = "finalizing"


ODD_LISTS = {
    "oldest first": lambda page: page["data"].reverse(),
    "an entry without an id before ours": lambda page: page["data"].insert(0, {"type": "message_batch"}),
    "half of the counts": _half_counts,
    "a word for the state that the API has not": _unknown_word,
}


@pytest.mark.parametrize("layer", ["accessor", "client"])
@pytest.mark.parametrize("odd", ODD_LISTS)
def test_a_list_in_another_order_or_half_told_hides_no_batch(api, clock, odd, layer):
    """However a gateway orders and shortens the list, a lost batch that stands in it is found, and paid once."""
    for _ in range(2):
        api.add_decoy(3)
        clock.advance(10)
    api.faults.add(LostAnswer("reset"))
    api.faults.add(RowFault("errored", where=lambda params: "b" in str(params["messages"])))

    def change(method, path, answer):
        return _page_of(answer, ODD_LISTS[odd]) if is_list(method, path) and "limit=1&" not in f"{path}&" else None

    with Gateway(api, change=change) as gate:
        if layer == "client":
            requests = [BatchRequest(name, name) for name in "abc"]
            results = BatchClient(client=gate.client(), clock=clock).run(requests)
            assert [result.ok for result in results] == [True, False, True]
        else:
            out = ask(FRAME, api, clock, client=gate.client()).result()
            assert out["status"].tolist() == ["succeeded", "errored", "succeeded"]
    assert api.calls("create") == 1


def test_an_error_says_of_which_batches_it_is_not_known_whether_they_are_billed(api, clock):
    """Where a lost create cannot be looked for, the note of the error does not count its batch as not made."""
    api.faults.add(LostAnswer("reset"))
    api.faults.add(ErrorAnswer("list", 404, times=None, skip=1))
    with pytest.raises(anthropic.NotFoundError) as told:
        ask(FRAME, api, clock).result()
    notes = " ".join(told.value.__notes__)
    assert "listing batches failed. It is not posted again" in notes
    assert "of 1 it is not known whether the server has it and bills it" in notes


def test_an_overloaded_api_is_asked_again_after_a_minute(api, clock):
    """The API's own 529 is no lost answer: the batch is looked for during 60 s, and the words say so."""
    api.faults.add(ErrorAnswer("create", 529))
    started_s = clock.monotonic_s()
    with clock.held():
        run = ask(FRAME, api, clock)
        until_batches(run, "unknown")
        until_message(run, "overloaded")
    assert_paid_once(api, run.result())
    assert clock.monotonic_s() - started_s < 180


def until_message(run, word: str) -> None:
    """Return when the run says `word`; time is real, and short."""
    deadline_s = time.monotonic() + 20
    while word not in run.snapshot().message:
        assert time.monotonic() < deadline_s, run.snapshot().message
        time.sleep(0.002)


def test_a_list_that_is_forbidden_hinders_nothing_that_is_not_lost(api, clock):
    """A key that may create and not list goes on; where an answer is lost, the error names the listing."""
    api.faults.add(ErrorAnswer("list", 403, times=None))
    assert_paid_once(api, ask(FRAME, api, clock).result())
    api.faults.add(LostAnswer("reset"))
    with pytest.raises(anthropic.PermissionDeniedError) as told:
        ask(FRAME.assign(prompt=["d", "e", "f"]), api, clock).result()
    assert "listing batches was refused" in " ".join(told.value.__notes__)
    assert api.calls("create") == 2


def test_what_another_process_recorded_is_looked_for_before_it_is_posted(api, clock):
    """A copy of the store that was made before the POST, put back: the batch is found, whatever the copy says."""
    run = ask(FRAME, api, clock)
    out = run.result()
    assert run.engine.join(20)
    store, (batch,) = run.store, run.store.batches.of_run(run.id)
    fresh = {"batch_id": None, "proved": False, "attempts": 0, "counts": {}}
    times = ("posted_at", "server_posted_at", "watermark_at", "created_at", "expires_at", "ended_at", "watermark_id")
    store.files.results_path(batch.key).unlink(missing_ok=True)
    store.batches.update(batch.key, state="intent", **fresh, **dict.fromkeys(times))
    store._opened.recorded_here.clear()  # as in a process that opens the copy
    clock.advance(60)
    again = ask(FRAME, api, clock).result()
    assert again["output"].equals(out["output"])
    assert (api.calls("create"), len(api.billed)) == (1, 3)


def test_a_batch_that_was_never_posted_outlives_a_candidate_that_is_not_its_own(api, clock):
    """What another process recorded and did not post is posted once, also where a batch of its size is taken for it."""
    api.faults.add(ErrorAnswer("create", 403))
    run = ask(FRAME, api, clock)
    with pytest.raises(anthropic.PermissionDeniedError):
        run.result()
    store, (batch,) = run.store, run.store.batches.of_run(run.id)
    times = ("posted_at", "server_posted_at", "watermark_at", "watermark_id")
    store.batches.update(batch.key, state="intent", attempts=0, error=None, **dict.fromkeys(times))
    store._opened.recorded_here.clear()  # as in the next process
    clock.advance(60)
    api.add_decoy(3)
    again = ask(FRAME, api, clock).result()
    assert again["status"].tolist() == ["succeeded"] * 3
    assert (api.calls("create"), len(mine(api))) == (2, 1)


def _listed(*created_s: float) -> SimpleNamespace:
    """Return a place whose server lists batches, newest first, each made at a second after `_AT`."""
    batches = [{"id": f"b{at}", "created_at": (_AT + timedelta(seconds=at)).isoformat()} for at in created_s]
    headers = {"date": format_datetime(_AT, usegmt=True)}
    page = Reply(status_code=200, headers=headers, content=json.dumps({"data": batches, "has_more": False}).encode())

    def drive(flow):
        next(flow)
        with pytest.raises(StopIteration) as ended:
            flow.send(page)
        return ended.value.value

    wire = SimpleNamespace(drive=drive)
    return SimpleNamespace(wire=wire, check_workspace=lambda batch, workspace_id: None, store=None)


@pytest.mark.parametrize(
    ("watermark_id", "watermark_s", "expected"),
    [
        ("b100", 100, ["b900", "b500", "b101"]),
        ("deleted", 100, ["b900", "b500", "b101", "b100"]),
        ("deleted", None, ["b900", "b500", "b101", "b100", "b0"]),
        (None, None, ["b900", "b500"]),
    ],
)
def test_how_far_back_a_lost_batch_is_looked_for(watermark_id, watermark_s, expected):
    """To the watermark, or what is older than it; without one, to five minutes before the POST."""
    watermark_at = None if watermark_s is None else _AT + timedelta(seconds=watermark_s)
    batch = SimpleNamespace(
        run_id="r",
        first_posted_at=None,
        server_posted_at=_AT + timedelta(seconds=800),
        posted_at=_AT + timedelta(seconds=900),
        watermark_id=watermark_id,
        watermark_at=watermark_at,
    )
    newer, server_at, hidden = reconciling.newer_batches(_listed(900, 500, 101, 100, 0), batch)
    assert [listed["id"] for listed in newer] == expected
    assert (server_at, hidden) == (_AT, None)


# ---------------------------------------------------------------- single steps


def lost(place, n_batches: int = 1, **changes):
    """Record a run of batches of two requests whose creates were lost as they began, and return what reads them."""
    nonces = [f"lostbatch{i:03}" for i in range(n_batches)]
    keys = add_run(place.store, "r", n=2 * n_batches, n_batches=n_batches, nonces=nonces).batch_keys
    times = {"posted_at": CREATED_AT, "server_posted_at": CREATED_AT}
    for key in keys:
        place.store.batches.transition(key, expect={"intent"}, to="posting", **times)
        place.store.batches.transition(key, expect={"posting"}, to="unknown", doubt="lost", **changes)
    return lambda: place.store.batches.of_keys(keys)


def test_no_list_but_the_third_without_the_batch_is_believed(api, clock, tmp_path):
    """However long ago it was lost, a batch is posted again only when three looks have found nothing."""
    place = place_at(tmp_path, api, clock, grace_s=0.0)
    batches, reconciler = lost(place), reconciling.Reconciler(place)
    for state in ("unknown", "unknown", "intent"):
        reconciler.step(batches()[0])
        assert batches()[0].state == state
    assert batches()[0].first_posted_at == CREATED_AT


def test_the_grace_begins_when_the_connection_was_lost(api, clock, tmp_path):
    """Ten minutes after that, by the server's clock, and not a second sooner, the batch is posted again."""
    for folder, lost_after_s in (("a", None), ("b", 100.0)):
        place = place_at(tmp_path / folder, api, clock)
        batches = lost(place, lost_after_s=lost_after_s, server_posted_at=clock.now())
        reconciler = reconciling.Reconciler(place)
        clock.advance((lost_after_s or 0) + 599)
        for _ in range(4):
            reconciler.step(batches()[0])
        assert batches()[0].state == "unknown"
        clock.advance(1)
        reconciler.step(batches()[0])
        assert batches()[0].state == "intent"


def test_what_an_overloaded_api_did_not_take_is_looked_for_during_a_minute(api, clock, tmp_path):
    """By its own word it was too busy: after sixty seconds, and not a second sooner, the batch is posted again."""
    place = place_at(tmp_path, api, clock)
    batches, reconciler = lost(place), reconciling.Reconciler(place)
    place.store.batches.update(batches()[0].key, doubt="overloaded")
    clock.advance(59)
    for _ in range(4):
        reconciler.step(batches()[0])
    assert batches()[0].state == "unknown"
    clock.advance(1)
    reconciler.step(batches()[0])
    assert batches()[0].state == "intent"


def test_a_recorded_batch_that_may_be_on_the_server_is_not_posted(api, clock, tmp_path):
    """One that another process recorded is looked for first; where one of its size is found it waits for the proof."""
    place = place_at(tmp_path, api, clock)
    (key,) = add_run(place.store, "r", n=2).batch_keys
    reconciler = reconciling.Reconciler(place)
    assert reconciler.step_before_posting_again(place.store.batches.get(key)) is None
    assert place.store.batches.get(key).state == "intent"
    api.add_decoy(2)
    assert reconciler.step_before_posting_again(place.store.batches.get(key)).due_in_s > 0
    assert place.store.batches.get(key).state == "unknown"


def test_looks_come_ever_more_rarely(api, clock, tmp_path, no_jitter):
    """Where the list lacks the batch the pauses double up to fifteen seconds, where it fails from two seconds on."""
    place = place_at(tmp_path, api, clock)
    batches, reconciler = lost(place), reconciling.Reconciler(place)
    assert [reconciler.step(batches()[0]).due_in_s for _ in range(6)] == [1, 2, 4, 8, 15, 15]
    api.faults.add(ErrorAnswer("list", 503, times=None))
    assert [reconciler.step(batches()[0]).due_in_s for _ in range(3)] == [2, 4, 8]


def test_a_post_that_has_just_begun_was_lost_at_once(api, clock, tmp_path):
    """A batch whose poster died was lost until now; where that cannot be, it may have been under way for an hour."""
    for since_s, lost_after_s in ((0, 0.0), (3599, 3599.0), (3600, 3600.0), (90_000, 3600.0), (-1, 3600.0)):
        place = place_at(tmp_path / str(since_s), api, clock)
        (key,) = add_run(place.store, "r", n=2).batch_keys
        posted_at = clock.now() - timedelta(seconds=since_s)
        place.store.batches.transition(key, expect={"intent"}, to="posting", posted_at=posted_at)
        reconciling.Reconciler(place).step(place.store.batches.get(key))
        batch = place.store.batches.get(key)
        assert (batch.state, batch.doubt, batch.lost_after_s) == ("unknown", "lost", lost_after_s)


def test_one_candidate_is_named_and_of_two_none(clock, tmp_path):
    """Only where a single batch may be the lost one does the run show its id, and its counts."""
    with simulator.serve(clock=clock.time_s, seconds_per_batch=3600) as api:
        place = place_at(tmp_path, api, clock)
        batches, reconciler = lost(place), reconciling.Reconciler(place)
        first = api.add_decoy(2)
        reconciler.step(batches()[0])
        assert batches()[0].candidate_id == first
        place.store.batches.update(batches()[0].key, candidate_id=None)
        api.add_decoy(2)
        reconciler.step(batches()[0])
        assert batches()[0].candidate_id is None


def test_what_proves_to_be_anothers_settles_only_that_one(api, clock, tmp_path):
    """A found batch goes to the one whose custom_ids it bears; the other is looked for as before."""

    def results(batch_id, sink, *, path=None):
        sink(b'{"custom_id":"%s","result":{}}\n' % bytes(place.store.batches.custom_ids_of(mine_key)[0]))

    place = place_at(tmp_path, api, clock, results=results)
    batches = lost(place, n_batches=2)
    mine_key = batches()[0].key
    found = api.add_decoy(2)
    clock.advance(5)  # it has ended then
    step = reconciling.Reconciler(place).step(batches()[1])
    assert step.due_in_s > 0
    assert [(batch.state, batch.batch_id) for batch in batches()] == [("bound", found), ("unknown", None)]


@pytest.mark.parametrize("doubt", ["not_the_api", "too_large"])
@pytest.mark.parametrize("is_canceled", [True, False])
def test_what_is_looked_for_is_told_with_what_was_answered(api, clock, tmp_path, doubt, is_canceled):
    """The words of whatever answered are repeated, where there are any; a canceled batch is not posted again."""
    place = place_at(tmp_path, api, clock)
    batches, reconciler = lost(place), reconciling.Reconciler(place)
    (batch,) = batches()
    for error, said in ((None, ""), ("A portal.", " A portal.")):
        place.store.batches.update(batch.key, doubt=doubt, error=error, cancel_asked=is_canceled)
        words = reconciler.step(batches()[0]).message
        after = "It was canceled, and is not posted again." if is_canceled else "within 600 s, it is posted again."
        assert words.endswith(after)
        assert ("for the batch." if doubt == "not_the_api" else "for it.") + said + " I" in words.replace("  ", " ")
