"""Write the golden store of the current format: ``python tests/golden/make_store.py``, once per released format."""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
import store_lab

from pandas_batch.store import Store


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "store")
        run = store_lab.add_run(
            store,
            "golden-1",
            n=6,
            n_batches=2,
            nonces=("golden0", "golden1"),
            name="golden",
            options={"max_tokens": 16},
            index=pd.MultiIndex.from_product([["a", "b"], [1.5, None, 3]], names=["x", None]),
        )
        done, waiting = run.batch_keys
        store_lab.bind(store, done, "msgbatch_1")
        store_lab.collect(store, done, np.array([True, False, True]), b'{"custom_id":"x"}\n' * 3)
        store.batches.compact(done)
        store.batches.transition(waiting, expect=["intent"], to="unknown", tried_ids=("msgbatch_9",), doubt="lost")
        store._opened.database.close()
        target = Path(__file__).parent / f"store_v{store.schema_version}.tar.gz"
        with tarfile.open(target, "w:gz") as tar:
            tar.add(store.path, "store")


if __name__ == "__main__":
    main()
