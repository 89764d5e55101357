"""The list of runs: what could not be read once is read again."""

from __future__ import annotations

import pandas as pd
from rowlab import ask

import pandas_batch
from pandas_batch.run import library
from pandas_batch.run.run import Run


def test_a_run_that_could_not_be_read_is_read_again(api, clock, monkeypatch):
    """A failure of the disk leaves a line without figures; the next look has them."""
    run = ask(pd.DataFrame({"prompt": ["a", None]}), api, clock).wait()
    with monkeypatch.context() as patched:
        patched.setattr(library.Run, "of", classmethod(lambda cls, *_: (_ for _ in ()).throw(OSError("gone"))))
        listed = pandas_batch.runs(run.store.path)
        assert listed[["answered", "failed", "cost_usd", "paid_usd"]].isna().all(axis=None)
        assert listed["rows"].tolist() == [2]
    assert library.Run is Run
    listed = pandas_batch.runs(run.store.path)
    assert listed["answered"].tolist() == [1]
    assert listed["paid_usd"].tolist() == [run.paid_usd]
