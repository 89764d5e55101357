"""Turns: what needs no network goes one after the other, what waits for its network holds up nobody."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pandas_batch.engine import processor_turn
from pandas_batch.engine.processor_turn import ProcessorTurn

from .conftest import FakeClock

MB = bytes(1 << 20)


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a processor of its own, and all patience: a turn that is never ended is seen, by its test only."""
    monkeypatch.setattr(processor_turn, "_processor", threading.Lock())
    monkeypatch.setattr(processor_turn, "_PATIENCE_S", 3600.0)


@contextmanager
def another(clock: FakeClock) -> Iterator[threading.Event]:
    """Have another thread take its turn; the event says that it has it."""
    has_turn, may_go = threading.Event(), threading.Event()
    ran_out = []

    def work() -> None:
        with ProcessorTurn(clock) as turn:
            turn.take()
            has_turn.set()
            if not may_go.wait(5):
                ran_out.append("nobody came back within five seconds")

    thread = threading.Thread(target=work, daemon=True)  # one that waits for ever does not keep Python from ending
    thread.start()
    try:
        yield has_turn
    finally:
        may_go.set()
        thread.join(10)
    assert not ran_out


def test_a_fast_download_keeps_its_turn_until_it_is_decoded() -> None:
    """Who takes in blocks as fast as they can be had lets nobody else begin before the end of the block."""
    clock, came = FakeClock(), bytearray()
    with ProcessorTurn(clock) as turn:
        turn.paced(came.extend)(MB)
        with another(clock) as has_turn:
            assert not has_turn.wait(0.1)
            turn.take()  # to be decoded, without waiting for itself
            turn.end()
            assert has_turn.wait(10)
    assert came == MB


@pytest.mark.parametrize("block", [MB, b"x"], ids=["at 10 MB/s", "byte by byte"])
def test_a_download_that_turns_slow_gives_its_turn_away(block: bytes) -> None:
    """A network that becomes slower than the processor, be it to a trickle, holds up no other download."""
    clock, came = FakeClock(), bytearray()
    with ProcessorTurn(clock) as turn:
        write = turn.paced(came.extend)
        write(MB)
        clock.advance(0.1)
        write(block)
        with another(clock) as has_turn:
            assert has_turn.wait(10)
    assert came == MB + block


def test_small_results_wait_for_nobody() -> None:
    """What is smaller than a look takes no turn: while another has it, a small download comes home."""
    clock, came = FakeClock(), bytearray()
    with another(clock) as has_turn, ProcessorTurn(clock) as turn:
        assert has_turn.wait(10)
        turn.paced(came.extend)(MB[1:])
    assert came == MB[1:]


def test_a_download_that_stalls_holds_others_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a turn in vain goes on without, to the end of its download, and takes nobody's turn away."""
    monkeypatch.setattr(processor_turn, "_PATIENCE_S", 0.01)
    clock, came = FakeClock(), bytearray()
    with another(clock) as has_turn:
        assert has_turn.wait(10)
        with ProcessorTurn(clock) as turn:
            write = turn.paced(came.extend)
            for _ in range(3):
                write(MB)
            monkeypatch.setattr(processor_turn, "_PATIENCE_S", 3600.0)
            write(MB)
            turn.take()
        assert processor_turn._processor.locked()
    assert came == 4 * MB


def breaks_off(clock: FakeClock) -> None:
    with ProcessorTurn(clock) as turn:
        turn.take()
        raise ValueError("broken")


def test_an_error_ends_the_turn() -> None:
    """A download that breaks off, or answers that cannot be decoded, leave the turn to the next."""
    clock = FakeClock()
    with pytest.raises(ValueError, match="broken"):
        breaks_off(clock)
    with another(clock) as has_turn:
        assert has_turn.wait(10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_turns_of_its_own() -> None:
    """A process that is copied while one of its threads has the turn can still bring answers home."""
    clock = FakeClock()
    with another(clock) as has_turn:
        assert has_turn.wait(10)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            signal.alarm(10)  # who waits for ever is ended, and counts as failed
            ProcessorTurn(clock).take()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
