"""Damaged stores: answers are made anew from the raw results, or the damage is told; nobody pays twice for it."""

from __future__ import annotations

import errno
import os
import random
import shutil
import warnings
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from rowlab import ask

import pandas_batch
from pandas_batch.engine import rebuilding
from pandas_batch.errors import PandasBatchError, StoreError
from pandas_batch.store import Store, batch_files, tables
from pandas_batch.store import store as store_room
from pandas_batch.store.spools import compress_file, open_compressed

FRAME = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(6)]})
N_CORRUPTED = int(os.environ.get("PANDAS_BATCH_CORRUPTED", "1000"))


@pytest.fixture
def home(api, clock, tmp_path) -> Path:
    """Return a store with one finished run, closed."""
    folder = tmp_path / "whole"
    run = ask(FRAME, api, clock, store=str(folder))
    run.result()
    assert run.engine.join(20)
    store_room._instances.pop(folder)._opened.database.close()
    return folder


def opened(folder: Path, api, clock) -> pd.DataFrame:
    """Return what the same line gives over the store in `folder`."""
    for room in (rebuilding, tables):  # as in another process
        room._is_whole.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = ask(FRAME, api, clock, store=str(folder))
            out = run.result()
            if run.engine is not None:
                assert run.engine.join(20)
            return out
    finally:
        store = store_room._instances.pop(folder, None)
        if store is not None:
            store._opened.database.close()


def damaged(data: bytes, how: str) -> bytes | None:
    middle = len(data) // 2
    return {
        "lost": None,
        "cut": data[:middle],
        "empty": b"",
        "zeros": bytes(len(data)),
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
    }[how]


@pytest.mark.parametrize("how", ["lost", "cut", "empty", "zeros", "flipped"])
@pytest.mark.parametrize("name", ["answers.arrow", "answers.arrow.crc32"])
def test_damaged_answers_are_made_anew(home, api, clock, name, how):
    """Whatever happens to the decoded answers, they come again from the raw results, and are whole on disk then."""
    (file,) = home.glob(f"batches/*/{name}")
    content = damaged(file.read_bytes(), how)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    for _ in range(2):
        out = opened(home, api, clock)
        assert all(prompt in text for prompt, text in zip(out["prompt"], out["output"], strict=True))
    assert file.exists()
    assert api.calls("create") == 1


def test_damage_of_answers_and_raw_results_is_told(home, api, clock):
    """Where nothing is left to make them from, a StoreError names the file and the way on; nothing is asked again."""
    for file in [*home.glob("batches/*/answers.arrow"), *home.glob("batches/*/results*")]:
        file.write_bytes(b"nonsense")
    with pytest.raises(StoreError, match="recover"):
        opened(home, api, clock)
    assert api.calls("create") == 1


@pytest.mark.parametrize("damage", ["another answer", "checksum lost", "both lost", "unreadable"])
@pytest.mark.parametrize("compacted", [False, True])
def test_raw_results_that_are_not_as_they_came_are_fetched_again(home, api, clock, damage, compacted):
    """Valid JSON that says something else is never believed: the damage is told, and the next line fetches them."""
    (folder,) = home.glob("batches/*")
    (packed,) = folder.glob("results.jsonl.zst")
    with open_compressed(packed) as file:
        raw = file.read()
    packed.unlink()
    plain = folder / "results.jsonl"
    if damage != "both lost":
        plain.write_bytes(
            {"another answer": raw.replace(b"prompt 3", b"prompt 7"), "unreadable": b"junk\n"}.get(damage, raw)
        )
        if compacted:
            compress_file(plain, packed)
    if damage == "checksum lost":
        (folder / "results.jsonl.crc32").unlink()
    (folder / "answers.arrow").unlink()
    with pytest.raises(StoreError, match="fetches them again") as told:
        opened(home, api, clock)
    assert "answers.arrow" in str(told.value)
    n_before = api.calls("results")
    for _ in range(2):
        out = opened(home, api, clock)
        assert all(prompt in text for prompt, text in zip(out["prompt"], out["output"], strict=True))
        assert api.calls("results") == n_before + 1
    assert api.calls("create") == 1


def test_damaged_answers_that_came_one_by_one(api, clock, tmp_path):
    """They are made anew from what came; where that is damaged too it is told, and nothing is asked or paid again."""
    folder = tmp_path / "trial"
    options = {"client": api.client(), "progress": "off", "store": str(folder)}
    FRAME.claude_batch.trial("prompt", n=3, **options)
    (batch,) = Store.open(folder).batches.where(state="collected")
    asked = api.calls("messages")

    def read() -> pa.Table:
        rebuilding._is_whole.cache_clear()
        return rebuilding.answers_of(Store.open(folder), batch)

    whole = read()
    answers = folder / "batches" / str(batch.key) / "answers.arrow"
    answers.unlink()
    assert read().equals(whole)
    for file in [answers, *answers.parent.glob("results*")]:
        file.write_bytes(b"junk")
    with pytest.raises(StoreError, match="one by one"):
        read()
    assert Store.open(folder).batches.get(batch.key).state == "collected"
    assert api.calls("messages") == asked


def test_a_full_disk_is_no_damage(home, api, clock, monkeypatch):
    """Where answers cannot be made anew for want of room, they are not fetched again, and come when there is room."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (folder,) = home.glob("batches/*")
    (folder / "answers.arrow").unlink()
    n_before = api.calls("results")
    with monkeypatch.context() as patched:
        patched.setattr(batch_files, "commit_files", full)
        with pytest.raises(StoreError):
            opened(home, api, clock)
    assert opened(home, api, clock)["status"].eq("succeeded").all()
    assert api.calls("results") == n_before


def test_raw_results_that_fit_their_checksum_are_enough(home, api, clock):
    """Compressed or not, whole raw results make the answers anew, without the server."""
    (folder,) = home.glob("batches/*")
    n_before = api.calls("results")
    (folder / "answers.arrow").unlink()
    opened(home, api, clock)
    with open_compressed(folder / "results.jsonl.zst") as file:
        (folder / "results.jsonl").write_bytes(file.read())
    (folder / "results.jsonl.zst").unlink()
    (folder / "answers.arrow").unlink()
    assert opened(home, api, clock)["status"].eq("succeeded").all()
    assert api.calls("results") == n_before


def test_a_database_that_forgot_batches_stops_every_new_one(api, clock, tmp_path):
    """A store copied without its log holds folders of batches that were posted: nothing new is sent from it."""
    whole, copied = tmp_path / "whole", tmp_path / "copied"
    run = ask(FRAME, api, clock, store=str(whole))
    out = run.result()
    assert run.engine.join(20)  # nothing is made small any more
    shutil.copytree(whole, copied, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    with pytest.raises(StoreError, match=r"recover\(df"):
        opened(copied, api, clock)
    with pytest.raises(StoreError, match=r"recover\(df"):
        opened(copied, api, clock)
    assert api.calls("create") == 1
    options = {"client": api.client(), "progress": "off", "store": str(copied)}
    home = pandas_batch.recover(FRAME, prompt_col="prompt", **options)
    assert home["output"].equals(out["output"]) if isinstance(home, pd.DataFrame) else home.result() is not None
    assert api.calls("create") == 1


def corrupt(folder: Path, draw: random.Random) -> str:
    """Damage one file of a store; return what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    file = draw.choice(files)
    how = draw.choice(["lost", "cut", "flipped"])
    data = bytearray(file.read_bytes())
    if how == "lost":
        file.unlink()
    elif how == "cut":
        file.write_bytes(data[: draw.randrange(len(data))])
    else:
        at = draw.randrange(len(data))
        data[at] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
    return f"{how} {file.relative_to(folder)}"


def judge(home: Path, api, clock, tmp_path: Path, seeds: range) -> list[str]:
    """Return what went wrong over corrupted copies of a store."""
    wrong = []
    answers = {bill.custom_id: bill for bill in api.billed}
    for seed in seeds:
        folder = tmp_path / f"copy{seed}"
        shutil.copytree(home, folder)
        done = corrupt(folder, random.Random(seed))
        try:
            out = opened(folder, api, clock)
        except PandasBatchError:
            continue
        except Exception as error:
            wrong.append(f"seed {seed}: {done}: {type(error).__name__}: {error}")
            continue
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        for prompt, text, status in zip(out["prompt"], out["output"], out["status"], strict=True):
            if status == "succeeded" and prompt not in text:
                wrong.append(f"seed {seed}: {done}: {text!r} beside {prompt!r}")
        if len(api.billed) != len(answers):
            wrong.append(f"seed {seed}: {done}: paid again")
            answers = {bill.custom_id: bill for bill in api.billed}
    return wrong


def test_corrupted_copies_in_short(home, api, clock, tmp_path):
    """One file lost, cut or flipped: right answers or words, never a wrong text, a second bill, a raw error."""
    assert judge(home, api, clock, tmp_path, range(25)) == []


@pytest.mark.full
def test_a_thousand_corrupted_copies(home, api, clock, tmp_path):
    """The same over a thousand copies."""
    assert judge(home, api, clock, tmp_path, range(N_CORRUPTED)) == []


def test_contents_are_not_read_from_damaged_raw_results(api, clock) -> None:
    """A column that only the raw results hold is told where they are not as they came, and fetched again."""
    frame = pd.DataFrame({"prompt": ["answer 1", "answer 2"]})
    run = ask(frame, api, clock)
    out = run.result()
    assert run.engine is None or run.engine.join(20)
    store, (batch,) = run.store, run.batch_records()
    with store.files.open_results(batch.key) as raw:
        lines = raw.read()
    for path in (store.path / "batches" / str(batch.key)).glob("results.jsonl*"):
        if not path.name.endswith("crc32"):
            path.unlink()
    store.files.results_path(batch.key).write_bytes(lines.replace(b"answer 2", b"answer 9"))
    again = ask(frame, api, clock)
    with pytest.raises(StoreError, match="raw results of batch"):
        again.result(columns=["output", "content"])
    healed = ask(frame, api, clock).result(columns=["output", "content"])
    assert healed["output"].tolist() == out["output"].tolist()
    assert "answer 2" in healed["content"].iloc[1][0]["text"]
    assert api.calls("create") == 1
