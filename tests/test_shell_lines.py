"""Lines of Python as those of a shell."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandas_batch.shell import _warnings_in_words, main
from pandas_batch.shell_lines import in_shell


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ('pandas_batch.load("run_1").retry_failed()   # x', "pandas-batch retry run_1   # x"),
        ('pandas_batch.load("run_1").retry_failed(max_cost_usd=1.30)', "pandas-batch retry run_1 --max-cost-usd 1.30"),
        ('pandas_batch.load("run_1").delete(server=True)', "pandas-batch delete --server run_1"),
        ('pandas_batch.load("run_1", store="a b").wait()', "pandas-batch watch run_1 --store 'a b'"),
        ('pandas_batch.load("run_1").wait().delete()', "pandas-batch delete run_1"),
        ('run = pandas_batch.load("my run"); run.result()', "pandas-batch collect 'my run'"),
        ('pandas_batch.load("run_1").cancel()', "pandas-batch cancel run_1"),
        ('pandas_batch.load("run_1").failed   # says why', "pandas-batch show run_1   # says why"),
        ("pandas_batch.runs() lists those it holds.", "pandas-batch runs lists those it holds."),
        ("prompt_col='a review'", "--prompt-col 'a review'"),
        ("max_cost_usd=5.00   # refuses what could cost more", "--max-cost-usd 5.00   # refuses what could cost more"),
        ("did you mean max_tokens=?", "did you mean --max-tokens?"),
        ('output_schema=["a"]', 'output_schema=["a"]'),
        ("name=...", "--name ..."),
    ],
)
def test_what_has_a_form_in_the_shell_has_that(python: str, shell: str) -> None:
    """A command for each call of a run, a flag for each option; the rest is left as it is."""
    assert in_shell(python) == shell


@pytest.mark.parametrize(
    "text",
    [
        "Set ANTHROPIC_API_KEY.",
        # No command does what these do, and the command without it does something else.
        'pandas_batch.load("run_1").retry_failed(errors="all")',
        'pandas_batch.load("run_1").finish_now(max_cost_usd=1.5)',
        'pandas_batch.load("run_1").result(partial=True)',
        'pandas_batch.load("run_1").delete(force=True)',
        'pandas_batch.load("run_1").wait().to_jsonl("a.jsonl")',
        'pandas_batch.load("run_1", client=...)   # one with that base_url',
        'df.claude_batch.submit("review", max_cost_usd=5, model="x")',
        # What people call their things.
        "file_name='a' my_store=5 'name=3' x.model='a'",
        "name='a\nb' name='a\\' max_tokens=1.2.3 pandas_batch.load(\"it's\")",
    ],
)
def test_what_has_no_form_in_the_shell_stays(text: str) -> None:
    """A line that does something else than was meant is worse than one of another language."""
    assert in_shell(text) == text


@given(st.text("=.'\"\\\n0name( "), st.sampled_from(["name=", "pandas_batch.load(", "store='", ""]))
def test_any_text_is_told(text: str, begun: str) -> None:
    """What is told is told, whatever stands in it."""
    in_shell(begun + text)


def test_errors_of_a_command_name_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever works in a shell is not told to type Python."""
    assert main(["show", "nothing"]) == 1
    told = capsys.readouterr().err
    assert "pandas_batch.load(" not in told
    assert "pandas_batch.runs(" not in told


@pytest.mark.parametrize("form", [["--store", "other"], ["--store=other"]])
def test_the_next_command_looks_into_the_same_store(
    form: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that is typed as it is told finds what the first one found, after an error as after a warning."""
    monkeypatch.chdir(tmp_path)
    assert main(["show", "nothing", *form]) == 1
    assert "--store" in capsys.readouterr().err
    with _warnings_in_words("other"):
        warnings.warn('pandas_batch.load("r").retry_failed()', UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "pandas-batch retry r --store other\n"
