"""custom_ids carry batch, position, fingerprint and draw there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandas_batch.custom_ids import custom_ids, new_nonce, parse_custom_id, prefix_of


def test_every_id_of_a_batch_begins_with_its_prefix() -> None:
    """The prefix is unique to the batch, and no two batches have the same."""
    nonces = {new_nonce() for _ in range(1_000)}
    assert len(nonces) == 1_000
    for nonce in sorted(nonces)[:20]:
        (made,) = custom_ids(nonce, np.zeros((1, 16), np.uint8), np.zeros(1))
        assert made.startswith(prefix_of(nonce))


@given(
    st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=30),
    st.integers(0, 99_000),
    st.integers(0, 0xFFFF),
)
def test_custom_ids_carry_position_fingerprint_and_draw(fingerprints: list[bytes], start: int, draw: int) -> None:
    """What goes into a custom_id comes out of it, in 47 characters that the API takes."""
    rows = np.frombuffer(b"".join(fingerprints), np.uint8).reshape(-1, 16)
    ids = custom_ids("abcdef012345", rows, np.full(len(rows), draw), start)
    for offset, (made, fingerprint) in enumerate(zip(ids, fingerprints, strict=True)):
        text = made.decode("ascii")
        assert len(text) == 47
        parsed = parse_custom_id(text)
        assert parsed is not None
        assert (parsed.nonce, parsed.position, parsed.fingerprint, parsed.draw) == (
            "abcdef012345",
            start + offset,
            fingerprint,
            draw,
        )


@pytest.mark.parametrize(
    "text", ["", "task-001", "pb1_ABCDEF012345_00000_" + "A" * 24, "pb1_abcdef012345_0000_" + "A" * 25]
)
def test_foreign_custom_ids_are_not_ours(text: str) -> None:
    """An id of another program is recognised as such."""
    assert parse_custom_id(text) is None


def test_custom_ids_have_room_for_a_whole_batch_and_no_more() -> None:
    """Position 99,999 is the last of a batch; one more is refused rather than cut."""
    one = np.zeros((1, 16), np.uint8)
    assert custom_ids("a" * 12, one, np.zeros(1), 99_999)[0].startswith(b"pb1_aaaaaaaaaaaa_99999_")
    with pytest.raises(ValueError, match="five digits"):
        custom_ids("a" * 12, one, np.zeros(1), 100_000)
    with pytest.raises(ValueError, match="nonce"):
        custom_ids("not a nonce", one, np.zeros(1))
    assert custom_ids("a" * 12, one[:0], np.zeros(0)).tolist() == []
