"""Whether a run went well enough for a job that nobody watches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_batch.amounts import usd
from pandas_batch.errors import InputError, WorseRunError
from pandas_batch.requests.options import check_option
from pandas_batch.requests.plain_values import shown

if TYPE_CHECKING:
    from .driving import DrivenRun
    from .waiting import Waiter


def check_run(run: DrivenRun, waiter: Waiter, max_failed: float, max_cost_usd: float | None) -> None:
    """
    Wait for a run, and raise where it went worse than it may.

    Raises
    ------
    InputError
        A limit is none.
    WorseRunError
        Too many rows failed, or their answers cost too much or an unknown amount.
    """
    if isinstance(max_failed, bool) or not isinstance(max_failed, int | float) or not 0 <= max_failed <= 1:
        raise InputError(
            f"max_failed is {shown(max_failed)}; it has to be a share of the rows, from 0 to 1.",
            hint="run.check(max_failed=0.02)",
        )
    limit_usd = None if max_cost_usd is None else check_option("max_cost_usd", max_cost_usd)
    waiter.wait(run.options.timeout)
    status = run.snapshot()
    answers = run.answers()
    n_without_prompt = status.counts.get("skipped", 0) - len(answers.reasons())
    n_asked = status.n_rows - n_without_prompt
    kept = f'Every answer that came is kept: pandas_batch.load("{run.id}").result()'
    if status.n_failed > max_failed * n_asked:
        raise WorseRunError(
            f"Of {n_asked:,} rows with a prompt {status.n_failed:,} failed, {status.n_failed / max(n_asked, 1):.1%}; "
            f"at most {max_failed:.1%} may.",
            kept,
            status.retry or f"{run.expression}.failed   # says why",
        )
    if limit_usd is not None and (status.cost_usd is None or status.cost_usd > limit_usd):
        cost = (
            "an unknown amount, as a price is missing or an answer was lost"
            if status.cost_usd is None
            else usd(status.cost_usd)
        )
        raise WorseRunError(
            f"The answers of run {run.id} cost {cost}; at most {usd(limit_usd)} may be spent.",
            kept,
            f"{run.expression}.summary()",
        )
