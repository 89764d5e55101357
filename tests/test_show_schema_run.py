"""The whole way in one line: a thousand messy rows to typed columns, the price told before, the bill exact after."""

from __future__ import annotations

import struct
import zlib
from datetime import date
from typing import Any, Literal

import numpy as np
import pandas as pd
import pydantic
import pytest

from pandas_batch import simulator

N_ROWS = 1_000
TITLES = ["Kettle", "Lampe à poser", "椅子", "Radio “Retro”", "Desk {oak}", "Vase & stand"]
SAID = [
    "It boils fast and I love it",
    "cassé après un jour",
    "座り心地がいい",
    "Meh",
    "Größer als gedacht 🙂",
    "too heavy",
]


class Item(pydantic.BaseModel):
    """What is asked of each row: six fields, of six kinds."""

    mood: Literal["positive", "negative", "mixed"]
    score: float
    stars: int
    urgent: bool
    bought_on: date
    topics: list[str]


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Texts of all lengths and scripts, missing values, repeated labels, images of all sizes or none."""
    rng = np.random.default_rng(11)
    folder = tmp_path_factory.mktemp("photos")
    photos: list[Any] = []
    for i, (width, height) in enumerate(rng.integers(40, 1600, (12, 2)).tolist()):
        path = folder / f"{i}.png"
        path.write_bytes(png(width, height))
        photos.append([str(path), path, path.read_bytes(), [path, png(64, 64)]][i % 4])
    photos += [None, []]
    body = [". ".join(rng.choice(SAID, int(rng.integers(1, 40)))) for _ in range(N_ROWS)]
    made = pd.DataFrame(
        {
            "title": rng.choice(TITLES, N_ROWS),
            "price": rng.gamma(2.0, 40.0, N_ROWS).round(2),
            "body": pd.array([text if i % 50 else None for i, text in enumerate(body)], dtype="string"),
        },
        index=pd.Index([f"r{i % 700}" for i in range(N_ROWS)], name="id"),
    )
    made["photo"] = pd.Series([photos[i % len(photos)] for i in range(N_ROWS)], index=made.index, dtype=object)
    return made


def test_a_thousand_rows_from_messy_columns_to_typed_ones(frame: pd.DataFrame, quick_looks: None) -> None:
    """Template over three columns, image column, schema of six fields: typed, estimated, billed as was promised."""
    with simulator.serve(seconds_per_batch=0) as api:
        api.faults.add(simulator.RowFault("invalid_json", share=0.02))
        api.faults.add(simulator.RowFault("overloaded", share=0.02))
        asked: dict[str, Any] = {
            "prompt": "Judge this item.\n\n{title} for ${price:.2f}\n{body}",
            "images_col": "photo",
            "output_schema": Item,
            "max_tokens": 256,
            "client": api.client(),
        }
        told = frame.claude_batch.estimate(**asked)
        out = frame.claude_batch.submit(**asked, progress="off")
        bills = api.billed

    assert {name: str(out[name].dtype) for name in Item.model_fields} == {
        "mood": "category",
        "score": "Float64",
        "stars": "Int64",
        "urgent": "boolean",
        "bought_on": "datetime64[us]",
        "topics": "object",
    }
    pd.testing.assert_frame_equal(out[frame.columns], frame)
    counts = out["status"].value_counts()
    assert set(counts.index) == {"succeeded", "skipped", "invalid", "errored"}
    assert counts["skipped"] == int(frame["body"].isna().sum()) == 20
    fine = out[out["status"] == "succeeded"]
    assert fine[["mood", "score", "stars", "urgent", "bought_on"]].notna().all(axis=None)
    assert fine["topics"].map(type).eq(list).all()
    rest = out[out["status"] != "succeeded"]
    assert rest[["mood", "score", "stars", "urgent", "bought_on", "topics"]].isna().all(axis=None)
    assert (out.loc[out["status"].isin(["invalid", "errored"]), "error"]).notna().all()

    usage = [bill.usage for bill in bills]
    n_input = sum(one["input_tokens"] for one in usage)
    assert told.requests == len(bills) + counts["errored"]
    # Rows that errored are not billed; each of the others is.
    n_input_if_all = n_input * told.requests / len(bills)
    assert told.input_tokens == pytest.approx(n_input_if_all, rel=0.2)
    assert told.input_tokens == pytest.approx(n_input, rel=0.2)
    billed = float(sum(bill.cost_usd for bill in bills))
    assert told.cost_usd_min is not None
    assert told.cost_usd_max is not None
    assert told.cost_usd_min * len(bills) / told.requests <= billed <= told.cost_usd_max
    assert float(out["cost_usd"].sum()) == pytest.approx(billed, abs=1e-9)
    assert int(out["input_tokens"].sum()) == n_input
