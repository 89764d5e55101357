"""The line to type next, as it is typed in a shell: errors of the package tell it in Python."""

from __future__ import annotations

import re
import shlex

_PROG = "pandas-batch"
_OPTIONS = (
    "prompt_col",
    "prompt",
    "system",
    "model",
    "max_tokens",
    "name",
    "prefix",
    "max_cost_usd",
    "store",
    "timeout",
)
_LOADED = re.compile(
    r"(?:run = )?pandas_batch\.load\((['\"])(?P<run>[^'\"\n]+)\1(?:, store=(['\"])(?P<store>[^'\"\n]+)\3)?\)"
    r"(?:; run)?(?P<calls>(?:\.\w+(?:\([^()\n]*\))?)*)"
)
_RECOVER = re.compile(r"(?:pandas_batch|df\.claude_batch)\.recover\([^()\n]*\)")
_COMMANDS = {
    "": "show",
    ".failed": "show",
    ".summary()": "show",
    ".wait()": "watch",
    ".result()": "collect",
    ".cancel()": "cancel",
    ".delete()": "delete",
    ".delete(server=True)": "delete --server",
    ".retry_failed()": "retry",
}
_BUDGET = re.compile(r"\.retry_failed\(max_cost_usd=([0-9.]+)\)")
_NAMES = "|".join(_OPTIONS)
# A backslash in a text means something else to a shell: such a line stays as it is.
_OPTION = re.compile(
    rf"""(?<![\w.'"-])({_NAMES})=('[^'\\\n]*'|"[^"\\\n]*"|[0-9]+(?:\.[0-9]+)?|\.\.\.)(?=$|\s|[,?])""", re.MULTILINE
)


def in_shell(text: str, store: str | None = None) -> str:
    r"""
    Return lines of Python as those of the shell that do the same; what has no other form there stays.

    Parameters
    ----------
    text
        The lines, and what stands around them.
    store
        What the command that they follow was given as ``--store``, which they need as well.

    Examples
    --------
    >>> in_shell('pandas_batch.load("run_1").wait().retry_failed()   # when it has ended')
    'pandas-batch retry run_1   # when it has ended'
    >>> in_shell("pandas_batch.runs()", "old store")
    "pandas-batch runs --store 'old store'"
    >>> in_shell("prompt_col='review'"), in_shell("did you mean model=?")
    ('--prompt-col review', 'did you mean --model?')
    """
    text = _LOADED.sub(lambda found: _command(found, store), text)
    text = text.replace("pandas_batch.runs()", f"{_PROG} runs{in_store(store)}")
    text = _RECOVER.sub(lambda _: f"{_PROG} recover FILE{in_store(store)}", text)
    text = _OPTION.sub(_option, text)
    return re.sub(rf"(?<![\w.'\"-])({_NAMES})=\?", lambda found: f"{_flag(found[1])}?", text)


def in_store(store: str | None) -> str:
    """Return what a command needs besides where its store is not that of the folder it is typed in."""
    return "" if store is None else f" --store {shlex.quote(store)}"


def _command(found: re.Match[str], store: str | None) -> str:
    calls = found["calls"]
    if calls != ".wait()":
        # Every command that needs an ended run waits for it.
        calls = calls.removeprefix(".wait()")
    named = f"{shlex.quote(found['run'])}{in_store(found['store'] or store)}"
    if (budget := _BUDGET.fullmatch(calls)) is not None:
        return f"{_PROG} retry {named} --max-cost-usd {budget[1]}"
    # A call that no command makes, or one with something that none takes, would be another call without it.
    return f"{_PROG} {_COMMANDS[calls]} {named}" if calls in _COMMANDS else found[0]


def _option(found: re.Match[str]) -> str:
    before = found.string[found.string.rfind("\n", 0, found.start()) + 1 : found.start()]
    if before.count("(") > before.count(")"):
        return found[0]  # an argument of a call
    value = shlex.quote(found[2][1:-1]) if found[2].startswith(("'", '"')) else found[2]
    return f"{_flag(found[1])} {value}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
