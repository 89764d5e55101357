"""The style sheet of the panel, as an element that travels with the HTML."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files


@cache
def style_element(*, live: bool = False) -> str:
    """
    Return the style sheet in a ``<style>`` element, without comments and line breaks.

    The rules stand between the marks of an HTML comment, which CSS passes over: what drops the element and not its
    text, as GitHub does with Markdown, then shows no rules.

    Parameters
    ----------
    live
        With the rules that only a panel of widgets needs: every account in a notebook carries its style sheet.

    Examples
    --------
    >>> style_element()[:16], style_element()[-12:]
    ('<style><!--.pdb{', '}--></style>')
    """
    css = files("pandas_batch.display").joinpath("panel.css").read_text(encoding="utf-8")
    if not live:
        css = re.sub(r"/\* live \*/.*?/\* account \*/", "", css, flags=re.DOTALL)
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    css = re.sub(r"\s+", " ", css)
    css = re.sub(r" ?([{};,>!]|(?<=[a-z]):(?= )) ?", r"\1", css).replace(";}", "}").strip()
    return f"<style><!--{css}--></style>"
