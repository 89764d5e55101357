"""The line to type next, as it is typed in a shell: errors of the package tell it in Python."""

from __future__ import annotations

import ast
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
_LOADED = re.compile(r"(?:run = )?pandas_batch\.load\(['\"]([^'\"]+)['\"][^)]*\)(?:; run)?((?:\.\w+(?:\([^()]*\))?)*)")
_COMMANDS = {"retry_failed": "retry", "delete": "delete", "cancel": "cancel", "result": "collect", "wait": "watch"}
_OPTION = re.compile(rf"({'|'.join(_OPTIONS)})=('[^']*'|\"[^\"]*\"|[0-9.]+)(?=$|\s|[,?])")


def in_shell(text: str) -> str:
    r"""
    Return lines of Python as those of the shell that do the same; what has no other form there stays.

    Examples
    --------
    >>> in_shell('pandas_batch.load("run_1").wait().retry_failed()   # when it has ended')
    'pandas-batch retry run_1   # when it has ended'
    >>> in_shell("prompt_col='review'"), in_shell("did you mean model=?")
    ('--prompt-col review', 'did you mean --model?')
    """
    text = _LOADED.sub(_command, text)
    text = re.sub(r"pandas_batch\.runs\(\)", f"{_PROG} runs", text)
    text = re.sub(r"(?:pandas_batch\.recover|df\.claude_batch\.recover)\([^()]*\)", f"{_PROG} recover FILE", text)
    text = _OPTION.sub(_option, text)
    return re.sub(rf"\b({'|'.join(_OPTIONS)})=\?", lambda found: f"{_flag(found[1])}?", text)


def _command(found: re.Match[str]) -> str:
    calls = re.findall(r"\.(\w+)", re.sub(r"\([^()]*\)", "", found[2]))
    command = next((_COMMANDS[call] for call in reversed(calls) if call in _COMMANDS), "show")
    return f"{_PROG} {command} {shlex.quote(found[1])}"


def _option(found: re.Match[str]) -> str:
    return f"{_flag(found[1])} {shlex.quote(str(ast.literal_eval(found[2])))}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
