"""A store whose database is older than its folders: nothing is paid twice, and after recover() work goes on."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rowlab import ask

import pandas_batch
from pandas_batch import failpoints, simulator
from pandas_batch.errors import FrameMismatchError, RunNotFoundError, StoreError
from pandas_batch.store import Store
from pandas_batch.store import store as store_room
from pandas_batch.store.segments import write_segment
from pandas_batch.store.unrecorded import Unread, Unrecorded, read_unrecorded

FRAME = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(6)]})
OTHER = pd.DataFrame({"prompt": [f"other {i}" for i in range(4)]})
NEW = pd.DataFrame({"prompt": ["new 0", "new 1"]})
AT = datetime(2026, 11, 1, tzinfo=UTC)


class Killed(BaseException):
    """The process is dead."""


def run_all(frames: list[pd.DataFrame], api, clock, folder: Path) -> None:
    for frame in frames:
        run = ask(frame, api, clock, store=str(folder))
        run.result()
        assert run.engine is None or run.engine.join(20)


def close(folder: Path) -> None:
    store = store_room._instances.pop(folder, None)
    if store is not None:
        store._opened.database.close()


def forgetful(whole: Path, copied: Path) -> Path:
    """Return a copy of a store without the log of its database, as a tool that knows no WAL makes it."""
    shutil.copytree(whole, copied, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    close(whole)
    return copied


def recover(frame: pd.DataFrame, api, clock, folder: Path) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"client": api.client(), "progress": "off", "store": str(folder), "preflight": False}
        return pandas_batch.recover(frame, prompt_col="prompt", clock=clock, **options)


def test_after_recover_other_lines_work(api, clock, tmp_path):
    """Batches that came home are known again: the same line is free, another is sent, in this process and the next."""
    run_all([FRAME], api, clock, tmp_path / "whole")
    folder = forgetful(tmp_path / "whole", tmp_path / "copied")
    with pytest.raises(StoreError, match=r"recover\(df"):
        ask(NEW, api, clock, store=str(folder))
    assert recover(FRAME, api, clock, folder)["status"].eq("succeeded").all()
    run_all([FRAME], api, clock, folder)
    assert api.calls("create") == 1
    run_all([NEW], api, clock, folder)
    close(folder)
    run_all([OTHER, FRAME], api, clock, folder)
    assert api.calls("create") == 3
    assert Store.open(folder)._opened.unrecorded == []
    assert len({bill.custom_id[23:] for bill in api.billed}) == len(api.billed)


def test_a_line_that_was_not_recovered_yet_is_refused_alone(api, clock, tmp_path):
    """After one recover, only rows that another lost batch holds are refused, until that is recovered too."""
    run_all([FRAME, OTHER], api, clock, tmp_path / "whole")
    folder = forgetful(tmp_path / "whole", tmp_path / "copied")
    recover(FRAME, api, clock, folder)
    run_all([NEW], api, clock, folder)
    for _ in range(2):
        with pytest.raises(StoreError, match="posted before") as refused:
            ask(OTHER.iloc[:1], api, clock, store=str(folder))
        assert "reuse=False" in str(refused.value)
        close(folder)
    assert recover(OTHER, api, clock, folder)["status"].eq("succeeded").all()
    run_all([OTHER, OTHER.iloc[:1]], api, clock, folder)
    assert api.calls("create") == 3


def test_another_process_that_recovered_is_noticed(api, clock, tmp_path):
    """A store that was opened before the recovery looks again before it refuses."""
    run_all([FRAME], api, clock, tmp_path / "whole")
    folder = forgetful(tmp_path / "whole", tmp_path / "copied")
    opened_before = Store.open(folder)
    assert opened_before._opened.unrecorded
    store_room._instances.pop(folder)
    recover(FRAME, api, clock, folder)
    close(folder)
    store_room._instances[folder] = opened_before
    run_all([NEW], api, clock, folder)
    assert api.calls("create") == 2


def test_a_lost_batch_that_goes_on_comes_home_later(api, clock, tmp_path):
    """While it has not ended, its rows are refused and others are not; after its end it is brought home."""
    with clock.held():
        run = ask(FRAME, api, clock, store=str(tmp_path / "whole"))
        run.wait_submitted(20)
        folder = forgetful(tmp_path / "whole", tmp_path / "copied")
        with pytest.raises(FrameMismatchError, match="1 batches there have not ended"):
            recover(FRAME, api, clock, folder)
        with pytest.raises(StoreError, match="posted before"):
            ask(FRAME, api, clock, store=str(folder))
    run_all([NEW], api, clock, folder)
    clock.advance(3600)
    assert recover(FRAME, api, clock, folder)["status"].eq("succeeded").all()
    assert api.calls("create") == 2


def never_posted(frame: pd.DataFrame, api, clock, folder: Path, monkeypatch) -> None:
    """Leave a batch that was marked as posted, and whose process died before the first byte of the POST."""

    def die(reached: str) -> None:
        if reached == "posting recorded":
            raise Killed

    monkeypatch.setattr(failpoints, "on_reached", die)
    with pytest.raises(Killed):
        ask(frame, api, clock, store=str(folder)).result()
    monkeypatch.setattr(failpoints, "on_reached", None)


def test_what_the_server_never_got_is_let_go(api, clock, tmp_path, monkeypatch):
    """A lost batch that the whole list lacks long after its POST was never made: the line is sent, and paid once."""
    run_all([FRAME], api, clock, tmp_path / "whole")
    never_posted(OTHER, api, clock, tmp_path / "whole", monkeypatch)
    folder = forgetful(tmp_path / "whole", tmp_path / "copied")
    recover(FRAME, api, clock, folder)
    with pytest.raises(StoreError, match="posted before"):
        ask(OTHER, api, clock, store=str(folder))
    clock.advance(2 * 3600)
    with pytest.raises(FrameMismatchError):
        recover(OTHER, api, clock, folder)
    run_all([OTHER], api, clock, folder)
    assert len(api.billed) == len(FRAME) + len(OTHER)


def test_who_asks_to_pay_anew_may(api, clock, tmp_path, monkeypatch):
    """Rows that nothing can prove are paid for again where the line says so, once recover() has looked."""
    never_posted(OTHER, api, clock, tmp_path / "whole", monkeypatch)
    folder = forgetful(tmp_path / "whole", tmp_path / "copied")
    with pytest.raises(StoreError):
        ask(OTHER, api, clock, store=str(folder), reuse=False)
    with pytest.raises(FrameMismatchError):
        recover(OTHER, api, clock, folder)
    assert ask(OTHER, api, clock, store=str(folder), reuse=False).result()["status"].eq("succeeded").all()


def test_a_list_without_anything_of_this_store_proves_nothing(api, clock, tmp_path):
    """With a key of another workspace nothing is let go, however long ago the batch was posted."""
    run_all([FRAME], api, clock, tmp_path / "whole")
    folder = forgetful(tmp_path / "whole", tmp_path / "copied")
    clock.advance(2 * 3600)
    with simulator.serve(clock=clock.time_s) as elsewhere:
        elsewhere.add_decoy(len(FRAME))
        clock.advance(3600)
        with pytest.raises(FrameMismatchError):
            recover(FRAME, elsewhere, clock, folder)
    (left,) = Store.open(folder).runs.unrecorded_batches()
    assert left.was_looked_for
    assert recover(FRAME, api, clock, folder)["status"].eq("succeeded").all()


@pytest.mark.parametrize("n_left", [0, 2])
def test_the_nonce_is_read_from_whatever_is_left(api, clock, tmp_path, n_left):
    """Of a compacted batch, and of one whose body alone is there, the nonce is known."""
    whole = tmp_path / "whole"
    run_all([FRAME], api, clock, whole)
    (record,) = Store.open(whole).batches.where(state="collected")
    folder = forgetful(whole, tmp_path / "copied")
    (batch_folder,) = (folder / "batches").iterdir()
    if n_left:
        for file in batch_folder.glob("results*"):
            file.unlink()
        (batch_folder / "spool.json").write_bytes(
            b'{"requests":[{"custom_id":"pb1_abcdefghij01_00000_' + b"A" * 24 + b'"'
        )
    (batch,) = Store.open(folder).runs.unrecorded_batches()
    assert batch.nonce == ("abcdefghij01" if n_left else record.nonce)
    for file in [*batch_folder.glob("results*"), *batch_folder.glob("spool*")]:
        file.write_bytes(b"junk")
    (batch,) = read_unrecorded([batch_folder])
    assert batch.nonce is None
    assert list(read_unrecorded([folder / "batches" / "99"])) == []


@pytest.fixture
def lost(tmp_path) -> Unrecorded:
    """Return a lost batch of three requests, posted at `AT` and a minute later."""
    write_segment(tmp_path / "requests.seg", np.eye(3, 16, dtype=np.uint8), np.zeros(3, dtype=np.uint16))
    return Unrecorded(tmp_path, "abcdefghij01", (AT, AT + timedelta(minutes=1)), was_looked_for=True)


@pytest.mark.parametrize(
    ("changes", "unread", "after_s", "nowhere"),
    [
        ({}, [], 3660, True),
        ({}, [], 3659, False),
        ({"nonce": None}, [], 9000, False),
        ({"posted": ()}, [], 9000, False),
        ({}, [Unread(AT, 3)], 9000, False),
        ({}, [Unread(AT, None)], 9000, False),
        ({}, [Unread(None, 3)], 9000, False),
        ({}, [Unread(None, 4), Unread(AT - timedelta(days=1, seconds=1), 3)], 9000, True),
        ({}, [Unread(AT - timedelta(days=1), 3)], 9000, False),
    ],
)
def test_only_proof_lets_a_lost_batch_go(lost, changes, unread, after_s, nowhere):
    """It is nowhere when its nonce and times are known, an hour has passed, and no unread batch may be it."""
    assert replace(lost, **changes).is_nowhere(unread, AT + timedelta(seconds=after_s)) is nowhere


def test_results_on_disk_prove_that_it_was_made(lost):
    """A batch whose results are here was made, whatever a list says."""
    (lost.folder / "results.part").touch()
    assert not lost.is_nowhere([], AT + timedelta(days=3))


def test_requests_that_cannot_be_read_may_be_any(lost):
    """A damaged segment holds whatever is asked, and proves nothing."""
    asked, draws = np.full((1, 16), 7, dtype=np.uint8), np.zeros(1, dtype=np.uint16)
    assert not lost.holds_one_of(asked, draws)
    assert lost.holds_one_of(np.eye(1, 16, dtype=np.uint8), draws)
    (lost.folder / "requests.seg").write_bytes(b"junk")
    assert lost.holds_one_of(asked, draws)
    assert not lost.is_nowhere([], AT + timedelta(days=3))


def test_a_database_that_has_forgotten_does_not_read_as_nothing_was_sent(api, clock, tmp_path):
    """Looking at a store without its log says that batches are missing in it, and a run is not told to be unbilled."""
    run_all([FRAME], api, clock, tmp_path / "whole")
    copied = forgetful(tmp_path / "whole", tmp_path / "copied")
    with pytest.warns(UserWarning, match=r"knows nothing of batches that were posted .*(?s:.)*recover\("):
        assert pandas_batch.runs(str(copied)).empty
    with pytest.raises(RunNotFoundError, match="may be paid for already") as told:
        pandas_batch.load("gone", store=str(copied))
    assert "nothing was billed" not in str(told.value)
    recover(FRAME, api, clock, copied)
    assert len(pandas_batch.runs(str(copied))) == 1
