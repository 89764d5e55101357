"""The table of stop reasons: what is cut is warned about, explained and asked again, and nothing else is."""

from __future__ import annotations

import warnings

import pandas as pd
import pytest
from rowlab import ask

from pandas_batch import simulator
from pandas_batch.stop_reasons import FREE_IF_EMPTY, PAUSED, STOP_REASONS, WHY_MISFIT, StopReason


@pytest.mark.parametrize("reason", STOP_REASONS, ids=lambda reason: reason.name)
def test_what_is_cut_is_said_and_asked_again(clock, reason: StopReason):
    """A stop reason of a cut answer has words for rows and for a schema, and its rows are asked again on demand."""
    assert bool(reason.of_rows) == bool(reason.of_answer) == reason.is_cut
    content = [{"type": "text", "text": "hm"}]
    answers = [simulator.Reply(content=content, stop_reason=reason.name), simulator.Reply("whole")]
    with simulator.serve(answer=lambda params: answers.pop(0) if answers else "whole", clock=clock.time_s) as api:
        run = ask(pd.DataFrame({"prompt": ["a", "b"]}), api, clock, max_tokens=8)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run.result()
            again = run.retry_failed(errors="all")
        told = [str(one.message) for one in caught]
        cut = [text for text in told if reason.of_rows and reason.of_rows in text]
        assert len(cut) == reason.is_cut
        assert all(reason.advice in text for text in cut)
        assert ["max_tokens=32" in text for text in cut] == [reason.needs_room] * len(cut)
        # What has paused goes on; everything else begins anew.
        again_texts = {"hmwhole", "whole"} if reason.name == PAUSED else {"whole"} if reason.is_cut else {"hm", "whole"}
        assert (again.id != run.id) == reason.is_cut
        assert set(again.result()["output"]) == again_texts


def test_the_words_for_a_schema_and_the_bill_follow_the_table() -> None:
    """Each cut reason explains a misfit; a refusal without content is the one that costs nothing."""
    assert set(WHY_MISFIT) == {reason.name for reason in STOP_REASONS if reason.is_cut}
    assert FREE_IF_EMPTY == ("refusal",)
