"""Bodies on disk: whatever the requests are, one JSON object on the wire and one request on each line."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pandas_batch.custom_ids import custom_ids
from pandas_batch.engine.spooling import SpoolBody, custom_id_of_line, params_of_line, spool_lines
from pandas_batch.store import Store

ENDS = st.tuples(st.dictionaries(st.sampled_from("ab"), st.text(max_size=5)), st.lists(st.text(max_size=9), max_size=5))


@settings(max_examples=40)
@given(slices=st.lists(ENDS, max_size=4))
def test_a_body_is_its_requests(slices):
    """What is written slice by slice is one JSON object on the wire, and is read back line by line."""
    body = SpoolBody(Store.open().files.new_spool())
    sent: list[tuple[str, dict[str, object]]] = []
    for shared, texts in slices:
        if not texts:
            continue
        ids = custom_ids("abcdefghij01", np.zeros((len(texts), 16), np.uint8), np.zeros(len(texts)), start=len(sent))
        before, after = json.dumps(shared | {"text": ""})[:-2].encode(), b'"}'
        body.write_lines(ids, before, [json.dumps(text)[1:-1].encode() for text in texts], after)
        sent += [(one.decode(), shared | {"text": text}) for one, text in zip(ids.tolist(), texts, strict=True)]
    alone = custom_ids("abcdefghij01", np.zeros((1, 16), np.uint8), np.zeros(1), start=len(sent))[0]
    body.write_line(alone, b'{"model":"m"}')
    sent.append((alone.decode(), {"model": "m"}))
    n_bytes = body.n_bytes
    spool = body.close()
    whole = spool.path.read_bytes()
    assert n_bytes == len(whole)
    requests = json.loads(whole)["requests"]
    assert [(request["custom_id"], request["params"]) for request in requests] == sent
    with spool.path.open("rb") as file:
        read = [(custom_id_of_line(line).decode(), json.loads(params_of_line(line))) for line in spool_lines(file)]
    assert read == sent
    spool.discard()
