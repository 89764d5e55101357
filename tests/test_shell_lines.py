"""Lines of Python as those of a shell."""

from __future__ import annotations

import pytest

from pandas_batch.shell import main
from pandas_batch.shell_lines import in_shell


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ('pandas_batch.load("run_1").retry_failed(errors="all")   # x', "pandas-batch retry run_1   # x"),
        ('pandas_batch.load("run_1").wait().delete()', "pandas-batch delete run_1"),
        ('run = pandas_batch.load("my run"); run.result()', "pandas-batch collect 'my run'"),
        ('pandas_batch.load("run_1").cancel()', "pandas-batch cancel run_1"),
        ('pandas_batch.load("run_1").failed   # says why', "pandas-batch show run_1   # says why"),
        ("pandas_batch.runs() lists those it holds.", "pandas-batch runs lists those it holds."),
        ("prompt_col='a review'", "--prompt-col 'a review'"),
        ("max_cost_usd=5.00   # refuses what could cost more", "--max-cost-usd 5.0   # refuses what could cost more"),
        ("did you mean max_tokens=?", "did you mean --max-tokens?"),
        ('output_schema=["a"]', 'output_schema=["a"]'),
        ("Set ANTHROPIC_API_KEY.", "Set ANTHROPIC_API_KEY."),
    ],
)
def test_what_has_a_form_in_the_shell_has_that(python: str, shell: str) -> None:
    """A command for each call of a run, a flag for each option; the rest is left as it is."""
    assert in_shell(python) == shell


def test_errors_of_a_command_name_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever works in a shell is not told to type Python."""
    assert main(["show", "nothing"]) == 1
    told = capsys.readouterr().err
    assert "pandas_batch.load(" not in told
    assert "pandas_batch.runs(" not in told
