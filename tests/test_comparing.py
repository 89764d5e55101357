"""compare_runs: the gate that fails a CI job when a run costs more, or answers worse, than the one before."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pandas_batch
from pandas_batch import simulator
from pandas_batch.errors import FrameMismatchError, InputError, PandasBatchError, WorseRunError
from pandas_batch.run.comparing import compare_runs
from pandas_batch.run.comparison import Comparison

LABELS = ["pos", "neg", "mixed", "pos"]
STATUSES = ("succeeded", "errored", "expired", "canceled", "skipped", "missing", "invalid", "unsent")


@dataclass
class FinishedRun:
    """What a comparison reads of a run, made by hand where a case is hard to bring about."""

    frame: pd.DataFrame
    cost_usd: float | None = 0.01
    id: str = "run_1"
    name: str | None = None
    options: Any = field(default=None)

    def result(self) -> pd.DataFrame:
        return self.frame

    def cost_of_rows(self, positions: np.ndarray) -> float | None:
        return None if self.cost_usd is None else self.cost_usd * len(positions) / len(self.frame)


def frame_of(
    outputs: list[Any], statuses: list[str] | None = None, index: Any = None, prefix: str = ""
) -> pd.DataFrame:
    statuses = statuses or ["succeeded"] * len(outputs)
    asked = [status == "succeeded" for status in statuses]
    frame = pd.DataFrame(
        {
            "output": pd.array([o if ok else None for o, ok in zip(outputs, asked, strict=True)], dtype="string"),
            "status": pd.array(statuses, dtype="string"),
            "tokens": pd.array([12 if ok else None for ok in asked], dtype="Int64"),
            "output_tokens": pd.array([2 if ok else None for ok in asked], dtype="Int64"),
            "cost_usd": pd.array([0.001 if ok else 0.0 for ok in asked], dtype="Float64"),
        },
        index=index,
    )
    return frame.add_prefix(prefix)


def accuracy(frame: pd.DataFrame) -> float:
    return float((frame["output"] == LABELS[: len(frame)]).mean())


@pytest.mark.parametrize("odd", [None, 3, 1.5, pd.Series([1]), object(), ["run_1"], pd.DataFrame()])
def test_what_is_no_run_is_told(odd: object) -> None:
    """Whatever stands where a run belongs is named by its kind and its place, and the next line is there."""
    run = FinishedRun(pd.DataFrame())
    for name, pair in (("a", (odd, run)), ("b", (run, odd))):
        with pytest.raises(InputError, match=f"^{name} of compare_runs") as told:
            compare_runs(*pair)
        assert "pandas_batch.runs()" in str(told.value)


# -------------------------------------------------------------------- real runs


def test_two_runs_of_the_simulator() -> None:
    """A longer prompt costs more and answers alike: with a cost ratio the second run is worse, without it is not."""
    frame = pd.DataFrame({"text": [f"review {i}" for i in range(8)], "label": ["review 1"] * 8})
    with simulator.serve(seconds_per_batch=0.01) as api:
        options: dict[str, Any] = {"client": api.client(), "progress": "off", "poll_interval": 0.01, "timeout": 60}
        base = frame.claude_batch.start("text", name="base", **options)
        longer = frame.claude_batch.start("text", name="longer", prefix="x_", system="At length. " * 50, **options)
        told = compare_runs(base, longer, metric=lambda df: (df["output"] == df["label"]).mean(), max_cost_ratio=1.5)
        assert api.calls("create") == 2
    assert (told.n_paired, told.n_both_succeeded, told.n_agree, told.agreement) == (8, 8, 8, 1.0)
    assert told.metric_change == 0
    assert told.cost_ratio is not None
    assert told.cost_ratio > 1.5
    assert told.a.cost_usd == base.cost_usd
    assert not told.ok
    with pytest.raises(WorseRunError, match="longer is worse than base: an answered row costs"):
        told.raise_if_worse()
    assert compare_runs(base, longer).ok
    by_name = pandas_batch.compare_runs("base", "longer", max_cost_ratio=1.5)
    assert by_name.reasons == told.reasons


# -------------------------------------------------------------------- quality


def test_equal_runs_are_no_worse() -> None:
    """A run compared with itself agrees everywhere and fails nothing."""
    run = FinishedRun(frame_of(LABELS))
    told = compare_runs(run, run, metric=accuracy, max_cost_ratio=1.0)
    assert told.ok
    assert told.agreement == 1.0
    assert told.cost_ratio == 1.0
    assert told.differing.empty
    told.raise_if_worse()


def test_a_lower_metric_is_worse() -> None:
    """A metric that fell is a reason, with both values; one that rose is none."""
    good, bad = FinishedRun(frame_of(LABELS)), FinishedRun(frame_of(["pos", "neg", "neg", "neg"]), id="run_2")
    told = compare_runs(good, bad, metric=accuracy)
    assert told.reasons == ("the metric fell from 1 to 0.5 (max_metric_drop=0)",)
    assert told.metric_change == -0.5
    assert compare_runs(bad, good, metric=accuracy).ok
    assert compare_runs(good, bad, metric=accuracy, max_metric_drop=0.5).ok
    assert not compare_runs(good, bad, metric=accuracy, max_metric_drop=0.49).ok


def test_a_metric_that_is_nan_is_worse() -> None:
    """A gate that cannot measure does not let anything through."""
    run = FinishedRun(frame_of(LABELS))
    assert compare_runs(run, run, metric=lambda _: math.nan).reasons == ("the metric is NaN",)


def test_more_failures_are_worse() -> None:
    """Every status that is no answer counts; rows without a prompt do not."""
    fine = FinishedRun(frame_of(["x"] * 8))
    mixed = FinishedRun(frame_of(["x"] * 8, list(STATUSES)))
    told = compare_runs(fine, mixed)
    assert told.reasons == ("5 rows failed, 0 before (max_more_failures=0)",)
    assert (told.a.n_failed, told.b.n_failed, told.b.n_succeeded) == (0, 5, 1)
    assert compare_runs(mixed, fine).ok
    assert compare_runs(fine, mixed, max_more_failures=5).ok
    assert not compare_runs(fine, mixed, max_more_failures=4).ok


def test_a_row_that_could_not_be_sent_has_failed() -> None:
    """A skipped row with a reason is a failure, one without a prompt is not."""
    frame = frame_of(["x", "x"], ["skipped", "skipped"])
    frame["error"] = pd.array(["unsendable: too large", None], dtype="string")
    assert compare_runs(FinishedRun(frame), FinishedRun(frame)).a.n_failed == 1


def test_differing_rows_are_shown_under_their_labels() -> None:
    """Rows that both answered and that differ come with both answers; failed rows are no disagreement."""
    a = FinishedRun(frame_of(["p", "n", "p", "n"], index=list("wxyz")))
    b = FinishedRun(frame_of(["p", "p", "n", "n"], ["succeeded", "succeeded", "errored", "succeeded"], list("wxyz")))
    told = compare_runs(a, b)
    assert told.differing.index.tolist() == ["x"]
    assert told.differing.iloc[0].tolist() == ["n", "p"]
    assert (told.n_both_succeeded, told.n_agree) == (3, 2)


def test_lists_of_samples_are_compared_whole() -> None:
    """With several answers per row a row agrees where all of them do, and failed where one of them did."""
    a = pd.DataFrame({"output": [["x", "y"], ["x", pd.NA]], "status": [["succeeded"] * 2, ["succeeded", "expired"]]})
    b = pd.DataFrame({"output": [["x", "z"], ["x", "y"]], "status": [["succeeded"] * 2] * 2})
    told = compare_runs(FinishedRun(a), FinishedRun(b))
    assert (told.n_both_succeeded, told.n_agree, told.a.n_failed, told.b.n_failed) == (1, 0, 1, 0)


# -------------------------------------------------------------------- cost


def test_cost_is_compared_per_answered_row() -> None:
    """Twice the rows at twice the cost is the same price."""
    half, whole = FinishedRun(frame_of(LABELS[:2]), 0.01), FinishedRun(frame_of(LABELS), 0.02)
    assert compare_runs(half, whole, max_cost_ratio=1.0).ok


def test_an_unknown_cost_fails_the_cost_gate() -> None:
    """Without a price no ratio can be kept; without a ratio it does not matter."""
    known, unknown = FinishedRun(frame_of(LABELS)), FinishedRun(frame_of(LABELS), None)
    told = compare_runs(known, unknown, max_cost_ratio=2.0)
    assert told.reasons == ("the cost per answered row is unknown, so max_cost_ratio cannot be kept",)
    assert "unknown" in str(told)
    assert compare_runs(known, unknown).ok


@given(a=st.floats(0, 1e4), b=st.floats(0, 1e4), ratio=st.floats(0.01, 10))
def test_the_cost_gate_keeps_its_ratio(a: float, b: float, ratio: float) -> None:
    """For any two costs the gate opens exactly where the second is within the ratio of the first."""
    told = compare_runs(FinishedRun(frame_of(LABELS), a), FinishedRun(frame_of(LABELS), b), max_cost_ratio=ratio)
    if b > a * ratio * (1 + 1e-6) and not (a == 0 and b == 0):
        assert not told.ok
    elif b < a * ratio * (1 - 1e-6):
        assert told.ok


def test_a_run_for_nothing_and_one_that_costs() -> None:
    """From nothing to something is more than any ratio; from nothing to nothing is none."""
    free, paid = FinishedRun(frame_of(LABELS), 0.0), FinishedRun(frame_of(LABELS), 0.01)
    assert not compare_runs(free, paid, max_cost_ratio=100).ok
    assert compare_runs(free, free, max_cost_ratio=1).ok


# -------------------------------------------------------------------- pairing


def test_rows_are_paired_by_position_where_labels_repeat() -> None:
    """The same frame twice pairs row by row, whatever its labels."""
    index = [1, 1, np.nan, 2]
    a, b = FinishedRun(frame_of(LABELS, index=index)), FinishedRun(frame_of(LABELS[::-1], index=index))
    told = compare_runs(a, b)
    assert (told.n_paired, told.n_agree) == (4, 2)


@given(order=st.permutations(range(6)), kept=st.integers(1, 6))
def test_rows_are_paired_by_label_in_any_order(order: list[int], kept: int) -> None:
    """A shuffled part of the rows finds its partners by label, and agrees with itself."""
    frame = frame_of([f"answer {i}" for i in range(6)])
    told = compare_runs(FinishedRun(frame), FinishedRun(frame.iloc[order[:kept]]))
    assert (told.n_paired, told.n_agree) == (kept, kept)


def test_rows_that_cannot_be_paired_are_refused() -> None:
    """Differing labels that repeat, or have nothing in common, are an error that says so."""
    a = FinishedRun(frame_of(LABELS, index=[1, 1, 2, 3]))
    with pytest.raises(FrameMismatchError, match="cannot be paired"):
        compare_runs(a, FinishedRun(frame_of(LABELS, index=[1, 2, 3, 4])))
    with pytest.raises(FrameMismatchError, match="no row label in common"):
        compare_runs(FinishedRun(frame_of(LABELS)), FinishedRun(frame_of(LABELS, index=list("abcd"))))


def test_a_metric_sees_plain_column_names() -> None:
    """Runs with different prefixes are measured by one function."""
    a, b = FinishedRun(frame_of(LABELS)), FinishedRun(frame_of(LABELS, prefix="new_").assign(output="older"))
    told = compare_runs(a, b, metric=accuracy)
    assert told.metric_change == 0
    assert told.agreement == 1.0


# -------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    "options",
    [
        {"max_cost_ratio": 0},
        {"max_cost_ratio": -1.0},
        {"max_cost_ratio": "2"},
        {"max_cost_ratio": math.nan},
        {"max_cost_ratio": True},
        {"max_metric_drop": -0.1},
        {"max_more_failures": -1},
        {"metric": "output"},
        {"metric": lambda df: df["output"]},
        {"metric": lambda df: None},
        {"metric": lambda df: pd.NA},
        {"metric": lambda df: True},
    ],
)
def test_wrong_values_are_named(options: dict[str, Any]) -> None:
    """Every wrong value is an InputError with a line to type instead."""
    run = FinishedRun(frame_of(LABELS))
    with pytest.raises(InputError) as raised:
        compare_runs(run, run, **options)
    assert next(iter(options)) in raised.value.what
    assert raised.value.hint.startswith("compare_runs(")


def test_a_result_without_the_columns_is_refused() -> None:
    """A frame without a run's columns cannot be compared, and the hint says how to get them."""
    with pytest.raises(InputError, match="has no columns output, status"):
        compare_runs(FinishedRun(pd.DataFrame({"x": [1]})), FinishedRun(frame_of(["x"])))


def test_a_metric_that_reads_a_column_that_is_not_there_is_told_which() -> None:
    """A run that was loaded by its name has the added columns alone; any other KeyError of a metric is its own."""
    run = FinishedRun(frame_of(LABELS))
    with pytest.raises(InputError, match="has no column 'truth', which metric reads") as caught:
        compare_runs(run, run, metric=lambda df: float((df["output"] == df["truth"]).mean()))
    assert "attach(" in caught.value.hint
    with pytest.raises(KeyError) as own:
        compare_runs(run, run, metric=lambda df: {"output": 1.0}[5])  # type: ignore[index]  # on purpose
    assert not isinstance(own.value, PandasBatchError)


def test_the_error_of_a_gate_is_an_assertion() -> None:
    """A CI job sees a failed assertion, and code can catch the package's own base class."""
    told = compare_runs(FinishedRun(frame_of(LABELS)), FinishedRun(frame_of(LABELS, ["errored"] * 4)))
    with pytest.raises(AssertionError):
        told.raise_if_worse()
    with pytest.raises(PandasBatchError):
        told.raise_if_worse()


# -------------------------------------------------------------------- how it is shown


def comparison(name: str = "new") -> Comparison:
    return compare_runs(
        FinishedRun(frame_of(LABELS), name="base"),
        FinishedRun(frame_of(["pos", "neg", "neg", "pos"]), 0.02, name=name),
        metric=accuracy,
        max_cost_ratio=1.1,
    )


def test_text_of_a_comparison() -> None:
    """The table as a terminal shows it."""
    assert repr(comparison()) == (
        "base → new: worse\n"
        "  rows                              4 → 4  4 paired\n"
        "  answered                          4 → 4\n"
        "  failed                            0 → 0\n"
        "  same answer                      75.0 %  of 4 rows that both answered\n"
        "  tokens                          48 → 48\n"
        "  cost                      $0.01 → $0.02\n"
        "  cost per answered row  $0.0025 → $0.005  × 2.00\n"
        "  metric                         1 → 0.75  -0.25\n"
        "  worse: an answered row costs $0.005, 2.00 times $0.0025 (max_cost_ratio=1.1)\n"
        "  worse: the metric fell from 1 to 0.75 (max_metric_drop=0)"
    )


def test_html_of_a_comparison_is_escaped() -> None:
    """A run's name is text, also where it looks like markup."""
    shown = comparison("<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_frame_of_a_comparison() -> None:
    """The two sides are columns, ready to be logged."""
    frame = comparison().to_frame()
    assert frame.loc["cost_usd"].tolist() == [0.01, 0.02]
    assert frame.loc["metric"].tolist() == [1.0, 0.75]


def test_a_bound_without_its_measure_is_no_gate() -> None:
    """A drop of a metric that nobody gave is refused, and tokens that a run does not show are not told as none."""
    run = FinishedRun(frame_of(LABELS))
    with pytest.raises(InputError, match="has no metric="):
        compare_runs(run, run, max_metric_drop=0.1)
    without = FinishedRun(frame_of(LABELS).drop(columns="tokens"))
    told = compare_runs(without, without)
    assert told.a.tokens is None
    assert "unknown → unknown" in str(told)
