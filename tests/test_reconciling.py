"""Lost create answers: looked for, proved, and never paid twice."""

from __future__ import annotations

import time

import pandas as pd
import pytest
from rowlab import ask

from pandas_batch import simulator
from pandas_batch.simulator.faults import BadResults, ErrorAnswer, ListLag, LostAnswer, Outage

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
        while not any(batch.candidate_id is not None for batch in run.store.batches_of_run(run.id)):
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
