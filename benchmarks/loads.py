"""What is asked and answered in the measurements: ``med`` has texts of about 1 KB, ``short`` of 200 and 20 bytes."""

from __future__ import annotations

import random

import pandas as pd

MODEL = "claude-haiku-4-5-20251001"
MAX_TOKENS = 1024
N_TEXTS = 500

_TEXT = "the quick réponse über naïve 日本 data frame answers batch price señor every"
_WORDS = _TEXT.split()


def text(rng: random.Random, n_bytes: int) -> str:
    """Return a text: 86% of them are not ASCII, a third holds an emoji, half line feeds and quotes."""
    made, n = [], 0
    while n < n_bytes:
        made.append(rng.choice(_WORDS))
        n += len(made[-1].encode()) + 1
    whole = " ".join(made)
    if rng.random() < 0.14:
        whole = whole.encode("ascii", "ignore").decode()
    if rng.random() < 0.3:
        whole = whole[: n_bytes // 2] + "🎉" + whole[n_bytes // 2 :]
    if rng.random() < 0.5:
        whole = whole[:20] + "\n\n" + whole[20:60] + '"quoted"\n' + whole[60:]
    return whole


def frame(load: str, n_rows: int) -> pd.DataFrame:
    """Return a frame of `n_rows` different prompts."""
    rng = random.Random(1)
    texts = [text(rng, 980 if load == "med" else 180) for _ in range(N_TEXTS)]
    prompts = [f"Review {i}{_fate(i)}: {texts[i % N_TEXTS]}" for i in range(n_rows)]
    return pd.DataFrame({"prompt": pd.Series(prompts, dtype="str")})


FAILS, EXPIRES = " (fails)", " (expires)"
"""In a prompt: what becomes of its row, whoever asks. One row in a hundred is errored, one in two hundred expired."""


def _fate(i: int) -> str:
    return FAILS if i % 100 == 7 else EXPIRES if i % 200 == 11 else ""


def answers(load: str) -> list[str]:
    """Return what the server chooses its answers from."""
    rng = random.Random(2)
    if load == "short":
        return ["positive, more or so"]
    return [text(rng, 980) for _ in range(N_TEXTS)]
