"""The style sheet of the panel, as an element that travels with the HTML."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files


@cache
def style_element() -> str:
    """
    Return the style sheet in a ``<style>`` element, without comments and line breaks.

    Examples
    --------
    >>> style_element()[:12]
    '<style>.pdb{'
    """
    css = files("pandas_batch.display").joinpath("panel.css").read_text(encoding="utf-8")
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    css = re.sub(r"\s+", " ", css)
    return "<style>" + re.sub(r" ?([{};,>!]|(?<=[a-z]):(?= )) ?", r"\1", css).strip() + "</style>"
