"""Structured answers: what the user asks for, as the API takes it, and answers as typed columns."""

from __future__ import annotations


class OutputSchema:
    """The shape of an answer."""
