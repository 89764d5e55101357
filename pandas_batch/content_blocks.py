"""The kinds of content blocks of an answer, and which of them make its text."""

from __future__ import annotations

TEXT_BLOCKS = frozenset({"text"})
"""Blocks whose ``text`` is joined to the output."""
