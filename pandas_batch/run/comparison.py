"""The outcome of a comparison of two runs: its records, how it is shown, and the line that fails a CI job."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from pandas_batch.amounts import number, percent, usd
from pandas_batch.errors import WorseRunError
from pandas_batch.estimates.tables import html_table, text_table

if TYPE_CHECKING:
    from pandas_batch.estimates.tables import Row

COMPARING_SPENDS_NOTHING = "Comparing spends nothing; both runs are as they were."


@dataclass(frozen=True, kw_only=True)
class Side:
    """
    One of the two runs of a comparison.

    Attributes
    ----------
    label
        Name or id of the run.
    n_rows
        Rows of the run; everything else is about those that both runs hold.
    n_succeeded, n_failed
        Rows with an answer, and those that were asked and have none.
    cost_usd, cost_usd_per_row
        What the answers cost, in all and per answered row; None where unknown.
    tokens
        Sum over the answered rows; None where the run has no such column.
    metric
        Value of the metric, or None without one.
    """

    label: str
    n_rows: int
    n_succeeded: int
    n_failed: int
    cost_usd: float | None
    tokens: int | None
    metric: float | None = None

    @property
    def cost_usd_per_row(self) -> float | None:
        """Return what an answered row cost; None where nothing was answered or the cost is unknown."""
        return None if self.cost_usd is None or not self.n_succeeded else self.cost_usd / self.n_succeeded


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """
    Run `b` against run `a`, row by row. Made by `compare_runs`.

    Attributes
    ----------
    a, b
        The two `Side` records; `a` is the baseline.
    n_paired
        Rows that both runs hold.
    n_both_succeeded, n_agree
        Of those: rows that both answered, and rows with the same answer.
    differing
        Frame of the rows with different answers: ``output_a``, ``output_b``.
    reasons
        In what `b` is worse, one sentence each; empty where it is not.
    """

    a: Side
    b: Side
    n_paired: int
    n_both_succeeded: int
    n_agree: int
    differing: pd.DataFrame = field(repr=False)
    reasons: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether `b` is no worse than `a`."""
        return not self.reasons

    @property
    def agreement(self) -> float | None:
        """Share of rows answered by both that got the same answer; None where there is no such row."""
        return self.n_agree / self.n_both_succeeded if self.n_both_succeeded else None

    @property
    def cost_ratio(self) -> float | None:
        """Cost per answered row of `b` over that of `a`; None where either is unknown."""
        return ratio_of(self.a.cost_usd_per_row, self.b.cost_usd_per_row)

    @property
    def metric_change(self) -> float | None:
        """Metric of `b` minus that of `a`; None without a metric."""
        return None if self.a.metric is None or self.b.metric is None else self.b.metric - self.a.metric

    def raise_if_worse(self) -> None:
        """
        Raise where `b` is worse than `a`: the last line of a CI job.

        Raises
        ------
        WorseRunError
            An `AssertionError`; its message holds every reason and the table.
        """
        if self.reasons:
            raise WorseRunError(
                f"{self.b.label} is worse than {self.a.label}: {'; '.join(self.reasons)}.",
                COMPARING_SPENDS_NOTHING,
                str(self),
            )

    def to_frame(self) -> pd.DataFrame:
        """Return the two sides as columns ``a`` and ``b``, one measure per row."""
        names = ("label", "n_rows", "n_succeeded", "n_failed", "cost_usd", "cost_usd_per_row", "tokens", "metric")
        return pd.DataFrame(
            {side: [getattr(getattr(self, side), name) for name in names] for side in ("a", "b")},
            index=pd.Index(names, name="measure"),
            dtype=object,
        )

    def _rows(self) -> list[Row]:
        a, b = self.a, self.b
        rows: list[Row] = [
            ("rows", f"{number(a.n_rows)} → {number(b.n_rows)}", f"{number(self.n_paired)} paired"),
            ("answered", f"{number(a.n_succeeded)} → {number(b.n_succeeded)}"),
            ("failed", f"{number(a.n_failed)} → {number(b.n_failed)}"),
            (
                "same answer",
                percent(self.agreement) if self.n_both_succeeded else "no row",
                f"of {number(self.n_both_succeeded)} rows that both answered",
            ),
            ("tokens", f"{number(a.tokens)} → {number(b.tokens)}"),
            ("cost", f"{usd(a.cost_usd)} → {usd(b.cost_usd)}"),
            (
                "cost per answered row",
                f"{usd(a.cost_usd_per_row)} → {usd(b.cost_usd_per_row)}",
                "" if self.cost_ratio is None else f"× {self.cost_ratio:.2f}",
            ),
        ]
        if a.metric is not None and b.metric is not None:
            rows.append(("metric", f"{a.metric:.4g} → {b.metric:.4g}", f"{b.metric - a.metric:+.4g}"))
        return rows

    def _title(self) -> str:
        return f"{self.a.label} → {self.b.label}: {'no worse' if self.ok else 'worse'}"

    def __str__(self) -> str:
        return text_table(self._title(), self._rows(), [f"worse: {reason}" for reason in self.reasons])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(self._title(), self._rows(), [f"worse: {reason}" for reason in self.reasons])


def ratio_of(a: float | None, b: float | None) -> float | None:
    """
    Return `b` over `a`, neither of them negative; None where either is unknown.

    Examples
    --------
    >>> ratio_of(2.0, 3.0), ratio_of(0.0, 0.0), ratio_of(0.0, 1.0), ratio_of(None, 1.0)
    (1.5, 1.0, inf, None)
    """
    if a is None or b is None:
        return None
    return b / a if a > 0 else (1.0 if b == 0 else math.inf)
