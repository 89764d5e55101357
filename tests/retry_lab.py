"""Requests of every form that fail at first, so that they can be asked again."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel
from rowlab import ask

from pandas_batch.run.run import Run
from pandas_batch.simulator.faults import RowFault

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001000548"
    "2dcc0000000049454e44ae426082"
)
ZEAL_FIRST = {
    "type": "object",
    "properties": {"zeal": {"type": "string"}, "amount": {"type": "number"}},
    "required": ["zeal", "amount"],
    "additionalProperties": False,
}
TOOL = {"name": "look", "description": "", "input_schema": {"type": "object", "properties": {"z": {}, "a": {}}}}


class Verdict(BaseModel):
    """A schema that is a class."""

    verdict: Literal["good", "bad"]
    points: int = 3


TEXTS = pd.DataFrame({"prompt": ["Lovely.", "It broke.", "zwölf 🎉"]})
CASES: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
    "texts": (TEXTS, {"system": "Be brief."}),
    "template": (TEXTS, {"prompt": "Judge: {prompt}"}),
    "few_shot": (TEXTS, {"few_shot": [("a", "b"), ([{"type": "text", "text": "c"}], "d")]}),
    "blocks": (pd.DataFrame({"prompt": [[{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]]}), {}),
    "messages": (
        pd.DataFrame(
            {"prompt": [[{"role": r, "content": c} for r, c in (("user", "1"), ("assistant", "2"), ("user", "3"))]]}
        ),
        {"few_shot": [("a", "b")]},
    ),
    "one message": (pd.DataFrame({"prompt": [[{"role": "user", "content": "1"}]]}), {}),
    "images": (TEXTS.assign(picture=[PNG, None, [PNG]]), {"images_col": "picture"}),
    "inline image": (
        pd.DataFrame(
            {"prompt": [[{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}]]}
        ),
        {},
    ),
    "documents": (TEXTS.assign(file=[b"some text", None, b"more"]), {"documents_col": "file"}),
    "json schema": (TEXTS, {"output_schema": ZEAL_FIRST}),
    "class": (TEXTS, {"output_schema": Verdict}),
    "types": (TEXTS, {"output_schema": {"zeal": str, "amount": float}, "output_config": {"effort": "low"}}),
    "cache": (TEXTS, {"system": "Be brief.", "cache_system": True}),
    "tools": (TEXTS, {"tools": [TOOL]}),
    "samples": (TEXTS, {"samples": 2}),
    "betas": (TEXTS, {"betas": ["context-1m-2025-08-07"]}),
}


def settled(run: Run) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.result()
    return run


def failed_run(frame: pd.DataFrame, api: Any, clock: Any, **options: Any) -> Run:
    """Return a run of which every row failed."""
    fault = api.faults.add(RowFault("overloaded", share=1.0))
    run = settled(ask(frame, api, clock, **options))
    api.faults.remove(fault)
    # As objects: before pandas 3 texts in Arrow cannot be exploded.
    assert set(run.result()["status"].astype(object).explode()) == {"errored"}
    return run
