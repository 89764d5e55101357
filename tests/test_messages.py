"""Every message of a wrong call, kept in messages.txt so that a change of wording is a reviewable diff.

A section of the file belongs to a module ``messages_<section>.py`` beside this one, whose ``cases()`` returns
what to call by the title of its case. ``PANDAS_BATCH_WRITE_MESSAGES=1 pytest tests/test_messages.py`` writes the
file anew.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pandas_batch.errors import PandasBatchError

HERE = Path(__file__).parent
SNAPSHOT = HERE / "messages.txt"
SECTIONS = sorted(HERE.glob("messages_*.py"))


def section_of(path: Path) -> str:
    return path.stem.removeprefix("messages_")


def module_of(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"pandas_batch_{path.stem}", path)
    if spec is None or spec.loader is None:
        pytest.fail(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def message_of(call: Callable[[], object]) -> str:
    """Return the message of what `call` raises."""
    try:
        call()
    except PandasBatchError as error:
        kinds = [
            cls.__name__ for cls in type(error).__mro__ if cls in (KeyError, TypeError, TimeoutError, RuntimeError)
        ]
        return f"{type(error).__name__}{'(' + ', '.join(kinds) + ')' if kinds else ''}\n{error}"
    return "NOTHING WAS RAISED"


def read_snapshot() -> dict[str, dict[str, str]]:
    """Return the messages of the file: section to title to message."""
    sections: dict[str, dict[str, str]] = {}
    if not SNAPSHOT.exists():
        return sections
    for part in SNAPSHOT.read_text(encoding="utf-8").split("\n# ")[1:]:
        section, _, rest = part.partition("\n")
        cases = (case.partition("\n") for case in rest.split("\n## ")[1:])
        sections[section] = {title: message.strip("\n") for title, _, message in cases}
    return sections


def write_snapshot(sections: dict[str, dict[str, str]]) -> None:
    lines = ["What a wrong call says, case by case. Written by tests/test_messages.py; read the diff.\n"]
    for section, cases in sorted(sections.items()):
        lines.append(f"\n# {section}\n")
        lines += [f"\n## {title}\n{message}\n" for title, message in cases.items()]
    SNAPSHOT.write_text("".join(lines), encoding="utf-8")


@pytest.mark.parametrize("path", SECTIONS, ids=section_of)
def test_the_messages_are_those_that_were_reviewed(path: Path) -> None:
    """A message changes only together with its snapshot."""
    made = {title: message_of(call) for title, call in module_of(path).cases().items()}
    sections = read_snapshot()
    if os.environ.get("PANDAS_BATCH_WRITE_MESSAGES"):
        write_snapshot({**sections, section_of(path): made})
        return
    assert made == sections.get(section_of(path))


@pytest.mark.parametrize("path", SECTIONS, ids=section_of)
def test_every_wrong_call_is_refused_and_no_message_quotes_a_prompt(path: Path) -> None:
    """Nothing wrong passes in silence; a message says what happened to the money and never repeats a prompt."""
    module = module_of(path)
    for title, call in module.cases().items():
        message = message_of(call)
        assert message != "NOTHING WAS RAISED", title
        assert module.SECRET not in message, title
        assert len(message.splitlines()) >= 3, f"{title}: no word on what was sent and billed"
