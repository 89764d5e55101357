"""The raw lines of a run in a file: whole, or not there."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from rowlab import all_outcomes, ask, plan_outcomes

from pandas_batch.errors import InputError


def test_every_line_is_written_once_under_a_name_of_any_length(api, clock, tmp_path):
    """The file holds what the server sent, a line for each request; beside it nothing is left."""
    plan_outcomes(api)
    run = ask(all_outcomes(), api, clock).wait()
    path = run.to_jsonl(tmp_path / ("x" * 249 + ".jsonl"))
    ids = [json.loads(line)["custom_id"] for line in path.read_bytes().splitlines()]
    n_requests = sum(sum(batch.request_counts.values()) for batch in run.batches)
    assert len(ids) == len(set(ids)) == n_requests > 5
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_an_error_in_words(api, clock, tmp_path):
    """A name that the system does not take leaves nothing behind, and the run as it was."""
    run = ask(pd.DataFrame({"prompt": ["a"]}), api, clock).wait()
    with pytest.raises(InputError, match="cannot be written: ") as raised:
        run.to_jsonl(tmp_path / ("x" * 300))
    assert 'to_jsonl("results.jsonl")' in raised.value.hint
    assert list(tmp_path.iterdir()) == []
