"""A run shows itself everywhere: in a terminal, in a log, and as HTML in every front end that takes HTML."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser

import pandas as pd
import pytest
from warm_python import command as warm

from pandas_batch import simulator

SCRIPT = """
import logging, os, pandas as pd, pandas_batch
logging.basicConfig(level=logging.INFO, format="LOG %(name)s %(message)s", filename=os.devnull)
df = pd.DataFrame({"review": ["private words", "fails", "more private words"]})
out = df.claude_batch.submit("review", name="reviews")
print(out["status"].tolist())
"""


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def server() -> Iterator[simulator.Simulator]:
    """Run a server by the clock on the wall, for programs of their own; its batches take no time."""
    with simulator.serve(seconds_per_batch=0) as running:
        yield running


def environment(server: simulator.Simulator) -> dict[str, str]:
    """Return what lets a program of its own find the server."""
    return os.environ | {"ANTHROPIC_BASE_URL": server.base_url, "ANTHROPIC_API_KEY": "simulator", "COLUMNS": "140"}


def test_a_run_is_html_that_needs_no_script(server: simulator.Simulator) -> None:
    """VS Code, Colab and marimo take the HTML of a run: it runs nothing, loads nothing, and holds no prompt."""
    server.faults.add(simulator.RowFault("errored", marker="fails"))
    frame = pd.DataFrame({"review": ["private words", "fails"]})
    run = frame.claude_batch.start("review", client=server.client(), name="reviews", progress="off")
    run.wait()
    bundle = run._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    elements = _Elements()
    elements.feed(bundle["text/html"])
    assert not {tag for tag, _ in elements.found} & {"script", "link", "img", "iframe", "object", "embed"}
    for _, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
    assert not re.search(r"url\(|@import", bundle["text/html"])
    # Outside of JupyterLab its colors are unknown: each has a color to fall back on.
    assert not re.search(r"var\(--(?:jp|vscode)-[\w-]+\)", bundle["text/html"])
    for text in bundle.values():
        assert "reviews" in text
        assert "private words" not in text


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are not on this machine")
@pytest.mark.parametrize("n_columns", [140, 0])
def test_a_terminal_gets_a_bar(server: simulator.Simulator, n_columns: int) -> None:
    """In a terminal a run is one bar on stderr that ends full, with rows, failures and cost behind it; also in one
    that does not say how wide it is."""
    import pty
    import termios

    server.faults.add(simulator.RowFault("errored", marker="fails"))
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40 if n_columns else 0, n_columns))
    program = subprocess.Popen(
        warm("-c", SCRIPT), stdout=subprocess.PIPE, stderr=theirs, env=environment(server), text=True
    )
    os.close(theirs)
    told = bytearray()
    try:
        while block := os.read(ours, 4096):
            told += block
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(ours)
    out, _ = program.communicate(timeout=30)
    assert out == "['succeeded', 'errored', 'succeeded']\n"
    assert re.search(r"reviews: 1/1 batches \|.*collected, 2/3 rows, 1 failed, \$", told.decode()), told.decode()
    assert "worth asking again: no: change the prompt" in told.decode()
    assert b"private words" not in told


def test_where_there_is_no_terminal_there_is_a_log(server: simulator.Simulator) -> None:
    """In CI a run writes a line per change of state to stderr, with the account last, and prints nothing."""
    done = subprocess.run(
        warm("-c", SCRIPT), capture_output=True, text=True, env=environment(server), timeout=60, check=True
    )
    lines = [line for line in done.stderr.splitlines() if "(reviews): " in line]
    assert 1 <= len(lines) <= 6
    assert re.search(r"\(reviews\): finished, 3 of 3 rows answered, 1 of 1 batches ended, \$", lines[-1])
    assert done.stdout == "['succeeded', 'succeeded', 'succeeded']\n"
    assert "private words" not in done.stderr
