"""What is shown at the keyboard: signatures, docstrings and names, all from one table that the rest is held to."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pandas as pd
import pytest

import pandas_batch
from pandas_batch.accessor import ClaudeBatchFrame, ClaudeBatchSeries
from pandas_batch.call_options import CALL_OPTIONS, CallOptions
from pandas_batch.errors import InputError
from pandas_batch.requests import parameters
from pandas_batch.requests.options import Options

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
OPTIONS = (REFERENCE / "options.md").read_text(encoding="utf-8")
RUN = (REFERENCE / "run.md").read_text(encoding="utf-8")
CALLS = ("submit", "asubmit", "start", "trial", "preview", "estimate")
OF_CALLS = {f.name: f.default for f in dataclasses.fields(Options)}
for name in ("params", "prompt_col", "budget_from_environment"):
    del OF_CALLS[name]
BY_ENVIRONMENT = ("model", "max_tokens", "extra_params")


def test_the_table_names_every_option_and_every_parameter() -> None:
    """Options of a call and the SDK's own Messages parameters, no more and no less, each with a type and a line."""
    hints = parameters.parameter_hints(False).keys() | parameters.parameter_hints(True).keys()
    refused = {*parameters.SAMPLING, *parameters._NOT_IN_BATCHES, *parameters._HEADERS}
    assert CALL_OPTIONS.keys() == OF_CALLS.keys() | (hints - refused)
    assert CallOptions.__annotations__.keys() == CALL_OPTIONS.keys()
    assert all(option.line and not option.line.endswith(".") for option in CALL_OPTIONS.values())


@pytest.mark.parametrize("name", OF_CALLS)
def test_the_defaults_are_those_of_the_options(name: str) -> None:
    """What a signature shows is what is done; of a default that the environment may change the line tells it."""
    if name in BY_ENVIRONMENT:
        assert CALL_OPTIONS[name].default is None
        assert name == "extra_params" or CALL_OPTIONS[name].line.startswith(str(OF_CALLS[name]))
    else:
        assert CALL_OPTIONS[name].default == OF_CALLS[name]


def test_the_sections_are_those_of_the_page() -> None:
    """Each option stands in the table of `docs/reference/options.md`, in the section that the docstring gives it."""
    section, found = "", {}
    for line in OPTIONS.splitlines():
        if head := re.match(r"\| \*\*(.+)\*\* \| \| \|$", line):
            section = head[1]
        elif section and line.startswith("| `"):
            for name in re.findall(r"`(\w+)`", line.split("|")[1]):
                found.setdefault(name, section)
    assert {name: CALL_OPTIONS[name].section for name in OF_CALLS} == {name: found[name] for name in OF_CALLS}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [ClaudeBatchFrame, ClaudeBatchSeries])
def test_signature_and_docstring_show_every_option(kind: type, call: str) -> None:
    """`inspect.signature` of a bound call has each option with default and type; the docstring of a frame's too."""
    frame = pd.DataFrame({"p": ["a"]})
    bound = getattr(frame.claude_batch if kind is ClaudeBatchFrame else frame["p"].claude_batch, call)
    signature = inspect.signature(bound)
    assert list(signature.parameters)[-len(CALL_OPTIONS) :] == list(CALL_OPTIONS)
    for name, option in CALL_OPTIONS.items():
        assert signature.parameters[name].default == option.default
        assert isinstance(signature.parameters[name].annotation, str)
    if kind is ClaudeBatchFrame:
        assert all(
            f"{name}={option.default!r}: {option.line}." in bound.__doc__ for name, option in CALL_OPTIONS.items()
        )


def test_names_are_those_that_are_public() -> None:
    """`dir()` of the package, of an accessor and of a run hold what is documented, and nothing else."""
    assert dir(pandas_batch) == sorted([*pandas_batch.__all__, "__version__"])
    frame = pd.DataFrame({"p": ["a"]})
    assert dir(frame.claude_batch) == sorted([*CALLS, "attach", "merge"])
    assert dir(frame["p"].claude_batch) == dir(frame.claude_batch)
    text = repr(frame.claude_batch)
    assert all(re.search(rf"^  \.{name} +\w", text, re.MULTILINE) for name in dir(frame.claude_batch))
    assert isinstance(pandas_batch.frame(frame), ClaudeBatchFrame)


def test_names_of_a_run_are_those_of_the_page(api, clock) -> None:
    """Completion on a run offers what `docs/reference/run.md` describes."""
    from rowlab import ask

    run = ask(pd.DataFrame({"prompt": []}, dtype=str), api, clock)
    shown = set(re.findall(r"run\.(\w+)", RUN))
    assert set(dir(run)) - {"to_arrow"} <= shown
    assert {"result", "wait", "counts", "id", "retry_failed", "check"} <= set(dir(run))
    assert not [name for name in dir(run) if not hasattr(run, name)]


def test_ipython_shows_the_message_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three lines where IPython shows an error; all of it where the environment asks for that."""
    with pytest.raises(InputError) as caught:
        pd.DataFrame({"p": ["a"]}).claude_batch.preview("p", max_tokens=0)
    assert caught.value._render_traceback_() == f"InputError: {caught.value}".splitlines()
    caught.value.add_note("a note")
    assert caught.value._render_traceback_()[-1] == "a note"
    monkeypatch.setenv("PANDAS_BATCH_TRACEBACK", "full")
    assert any("Traceback" in line for line in caught.value._render_traceback_())
