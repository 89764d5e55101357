"""The panel writes what has changed and nothing else, and its buttons do what they say."""

from __future__ import annotations

import threading
from typing import Any

import comm
import pytest
from comm.base_comm import BaseComm

from pandas_batch.display import clicks
from pandas_batch.display.display import Actions, FinishOffer
from pandas_batch.display.panel import CONFIRM_S, OFFER_S, Panel

from .run_statuses import ATTACKS, run_status, with_everywhere
from .test_account import assert_only_ours


class CountedComm(BaseComm):
    """A comm that keeps what would have gone to the browser."""

    sent: list[dict[str, Any]]
    n_opened = 0

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any) -> None:
        if msg_type == "comm_msg":
            CountedComm.sent.append(data)
        elif msg_type == "comm_open":
            CountedComm.n_opened += 1


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every message that a widget sends, in order."""
    CountedComm.sent = []
    monkeypatch.setattr(comm, "create_comm", CountedComm)
    return CountedComm.sent


class Hands:
    """What the buttons have done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.actions = Actions(lambda: self.done.append("cancel"), lambda: self.done.append("check"))


class Seconds:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def panel(hands: Hands, seconds: Seconds) -> Panel:
    panel = Panel(hands.actions, monotonic_s=seconds)
    panel.update(run_status(1))
    return panel


def buttons(panel: Panel) -> list[Any]:
    return [panel._cancel, panel._check]


def names(panel: Panel) -> list[str]:
    """Return the names of the buttons that can be seen."""
    if panel._buttons.layout.display == "none":
        return []
    return [b.description for b in panel._buttons.children if b.layout.display != "none"]


def html_of(panel: Panel) -> str:
    return "".join(widget.value for widget in panel._html.values())


def test_a_panel_is_few_messages(sent: list[dict[str, Any]]) -> None:
    """Forty panels at once are drawn whole: Jupyter drops what comes faster than 3,000 messages in three seconds."""
    CountedComm.n_opened = 0
    Panel(Hands().actions).update(run_status(1))
    assert 20 < CountedComm.n_opened + len(sent) < 65


def test_the_buttons_have_their_names_and_no_icons(panel: Panel) -> None:
    """An icon would become part of a button's accessible name."""
    assert names(panel) == ["Check now", "Cancel"]
    assert [b.icon for b in buttons(panel)] == ["", ""]


def test_a_cancel_takes_two_clicks(panel: Panel, hands: Hands) -> None:
    """The first click asks, the second cancels, and then the button can do no more."""
    buttons(panel)[0].click()
    assert names(panel)[-1] == "Confirm cancel"
    assert hands.done == []
    buttons(panel)[0].click()
    assert names(panel)[-1] == "Canceling…"
    assert buttons(panel)[0].disabled
    buttons(panel)[0].click()
    assert hands.done == ["cancel"]


class PricingHands(Hands):
    """Hands that can finish a run now: they keep what is to be told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Any = None
        self.offers: list[FinishOffer] = []
        self.actions = Actions(self.actions.cancel, self.actions.check_now, self._price, self._finish)

    def _price(self, told: Any) -> None:
        self.done.append("price")
        self.told = told

    def _finish(self, offer: FinishOffer, told: Any) -> None:
        self.offers.append(offer)
        self.told = told


OFFER = FinishOffer("At most 12 rows are asked: at most $0.42.", price="$0.42", max_cost_usd=0.42)


@pytest.fixture
def pricing() -> PricingHands:
    return PricingHands()


@pytest.fixture
def finishable(pricing: PricingHands, seconds: Seconds) -> Panel:
    panel = Panel(pricing.actions, monotonic_s=seconds)
    panel.update(run_status(1))
    return panel


def test_finishing_now_shows_its_price_before_it_can_be_confirmed(finishable: Panel, pricing: PricingHands) -> None:
    """The first click asks for the price, the second, on a button that names it, finishes within just that."""
    panel = finishable
    assert names(panel) == ["Check now", "Finish now", "Cancel"]
    panel._finish.click()
    panel._finish.click()
    assert (pricing.done, pricing.offers, panel._finish.disabled) == (["price"], [], True)
    pricing.told(OFFER)
    assert names(panel)[1] == "Confirm: at most $0.42"
    assert OFFER.words in html_of(panel)
    panel._finish.click()
    panel._finish.click()
    assert pricing.offers == [OFFER]
    assert (names(panel)[1], panel._finish.disabled) == ("Finishing…", True)
    assert OFFER.words not in html_of(panel)


def test_a_price_that_nobody_confirms_is_forgotten(finishable: Panel, pricing: PricingHands, seconds: Seconds) -> None:
    """After its time the button asks for the price again, which may be another one by then."""
    finishable._finish.click()
    pricing.told(OFFER)
    assert finishable.due_in_s() == pytest.approx(OFFER_S)
    seconds.now += OFFER_S
    finishable.tick()
    assert names(finishable)[1] == "Finish now"
    assert OFFER.words not in html_of(finishable)
    finishable._finish.click()
    assert (pricing.done, pricing.offers) == (["price", "price"], [])


def test_what_cannot_be_confirmed_by_a_button_is_a_line_to_type(finishable: Panel, pricing: PricingHands) -> None:
    """Without a bound, or above the budget, the panel shows why and the line, escaped, and asks nothing."""
    finishable._finish.click()
    pricing.told(FinishOffer("No <b>bound</b>.", 'load("<x>").finish_now()'))
    assert names(finishable)[1] == "Finish now"
    assert "No &lt;b&gt;bound&lt;/b&gt;." in html_of(finishable)
    assert "<code>load(&quot;&lt;x&gt;&quot;).finish_now()</code>" in html_of(finishable)
    finishable._finish.click()
    assert (pricing.done, pricing.offers) == (["price", "price"], [])


def test_a_finish_that_failed_says_why_and_can_be_asked_for_again(finishable: Panel, pricing: PricingHands) -> None:
    """What came of it stands in the panel, and the button is back."""
    finishable._finish.click()
    pricing.told(OFFER)
    finishable._finish.click()
    pricing.told(FinishOffer("The key was refused.", "run.finish_now()"))
    assert "The key was refused." in html_of(finishable)
    assert names(finishable)[1] == "Finish now"


@pytest.mark.parametrize("state", ["blocked", "canceling", "preparing", "collected"])
def test_there_is_no_finish_where_it_would_do_nothing(pricing: PricingHands, seconds: Seconds, state: str) -> None:
    """A run that is canceled, stopped, over or not made yet is not finished by a click."""
    panel = Panel(pricing.actions, monotonic_s=seconds)
    panel.update(run_status(1, state, can_cancel=state == "blocked"))
    assert not {"Finish now", "Finishing…"} & set(names(panel))


def test_a_finish_from_a_cell_shows_in_the_panel(finishable: Panel) -> None:
    """``run.finish_now()`` in a cell changes the panel as its own button does."""
    finishable.update(run_status(1, is_finishing=True))
    assert names(finishable)[1] == "Finishing…"


def test_an_unconfirmed_cancel_is_forgotten(panel: Panel, hands: Hands, seconds: Seconds) -> None:
    """After six seconds the button is what it was, and the next click asks again."""
    buttons(panel)[0].click()
    assert panel.due_in_s() == pytest.approx(CONFIRM_S)
    seconds.now += CONFIRM_S
    panel.tick()
    assert names(panel)[-1] == "Cancel"
    buttons(panel)[0].click()
    assert hands.done == []


def test_check_now_asks_once_until_the_poll(panel: Panel, hands: Hands, seconds: Seconds) -> None:
    """The button rests until the next poll, or five seconds."""
    check = buttons(panel)[1]
    check.click()
    assert hands.done == ["check"]
    assert check.disabled
    panel.update(run_status(1, seconds=263))
    assert not check.disabled
    check.click()
    seconds.now += 5.1
    panel.tick()
    assert not check.disabled


@pytest.mark.parametrize("state", ["collected", "blocked"])
def test_a_run_that_is_over_has_no_buttons(panel: Panel, state: str) -> None:
    """A button that could do nothing is not shown."""
    panel.close(run_status(3, state))
    assert names(panel) == []


def test_a_run_that_cannot_be_canceled_has_no_cancel(panel: Panel) -> None:
    """What is not driven from here cannot be canceled by a click here."""
    panel.update(run_status(1, can_cancel=False))
    assert names(panel) == ["Check now"]


def test_a_cancel_from_elsewhere_shows(panel: Panel) -> None:
    """``run.cancel()`` in a cell changes the panel as its own button does."""
    panel.update(run_status(1, "canceling"))
    assert names(panel)[-1] == "Canceling…"


def test_without_actions_there_are_no_buttons() -> None:
    """A panel that only shows has no dead buttons."""
    panel = Panel()
    panel.update(run_status(1))
    assert names(panel) == []


def test_the_same_status_again_sends_nothing(sent: list[Any], hands: Hands) -> None:
    """An unchanged text is not a message."""
    panel = Panel(hands.actions)
    panel.update(run_status(1))
    n_sent = len(sent)
    assert n_sent > 0
    for _ in range(10):
        panel.update(run_status(1))
    assert len(sent) == n_sent


def test_a_second_later_one_widget_is_written(sent: list[Any], hands: Hands) -> None:
    """The clock moves in a widget of its own, so that nothing animated starts anew."""
    panel = Panel(hands.actions)
    panel.update(run_status(0, seconds=20, last_poll_at=None))
    sent.clear()
    panel.update(run_status(0, seconds=21, last_poll_at=None))
    states = [message["state"] for message in sent if message["method"] == "update"]
    assert len(states) == 1
    assert set(states[0]) == {"value"}
    assert "elapsed 21 s" in states[0]["value"]
    assert "pdb-bar" not in states[0]["value"]


def test_with_the_clock_alone_the_rest_waits(panel: Panel) -> None:
    """A drawing of the clock leaves a change of the batches for the next whole drawing."""
    before = html_of(panel)
    panel.update(run_status(2, seconds=262), clock_only=True)
    assert html_of(panel) == before
    panel.update(run_status(2, seconds=262))
    assert "798" in html_of(panel)


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_panel_shows_attacks_as_text(attack: str) -> None:
    """No widget is given an element or an attribute that is not ours, the note on blocked clicks included."""
    for state in (1, 3):
        panel = Panel(Hands().actions, blocking=True)
        panel.update(with_everywhere(attack, state))
        for widget in panel._html.values():
            assert_only_ours(widget.value)


def test_the_live_view_leaves_the_words_to_the_account(panel: Panel) -> None:
    """A front end without widgets shows nothing for the panel: what there is to read follows it."""
    bundle = panel._repr_mimebundle_(include=["text/plain"])
    assert bundle.keys() >= {"application/vnd.jupyter.widget-view+json"}
    assert bundle["text/plain"] == bundle["text/html"] == ""


class TestWhileACellBlocks:
    """What the panel does while the main thread is blocked."""

    def test_a_kernel_without_subshells_gets_words(self, hands: Hands, seconds: Seconds) -> None:
        """Where no click can arrive there is no button but the line to type."""
        panel = Panel(hands.actions, blocking=True, monotonic_s=seconds)
        panel.update(run_status(1))
        assert names(panel) == []
        assert "stop the cell (■)" in html_of(panel)
        assert "run.cancel()" in html_of(panel)

    def test_after_an_interrupt_the_buttons_are_back(self, hands: Hands, seconds: Seconds) -> None:
        """When the main thread is free again clicks arrive, and the words go."""
        panel = Panel(hands.actions, blocking=True, monotonic_s=seconds)
        panel.update(run_status(1))
        panel.set_blocking(False)
        assert names(panel) == ["Check now", "Cancel"]
        assert "stop the cell" not in html_of(panel)

    @pytest.fixture
    def panel_with_subshells(self, hands: Hands, seconds: Seconds, monkeypatch: pytest.MonkeyPatch) -> Panel:
        monkeypatch.setattr("pandas_batch.display.panel.may_have_subshells", lambda: True)
        panel = Panel(hands.actions, blocking=True, monotonic_s=seconds)
        panel.update(run_status(1))
        return panel

    def test_where_clicks_may_arrive_it_asks(self, panel_with_subshells: Panel, seconds: Seconds) -> None:
        """The buttons stay when the browser's message comes in beside the main thread."""
        panel = panel_with_subshells
        assert names(panel) == ["Check now", "Cancel"]
        seconds.now += 1.1
        panel.tick()
        asked = panel.box.children[-1]
        assert isinstance(asked, clicks.LiveButton)
        browser = threading.Thread(target=asked.set_state, args=({"_view_count": 1},))
        browser.start()
        browser.join()
        seconds.now += 60
        panel.tick()
        assert names(panel) == ["Check now", "Cancel"]
        assert "stop the cell" not in html_of(panel)

    def test_a_message_on_the_main_thread_proves_nothing(self, panel_with_subshells: Panel, seconds: Seconds) -> None:
        """What the main thread reads came when it was free."""
        panel = panel_with_subshells
        seconds.now += 1.1
        panel.tick()
        panel.box.children[-1].set_state({"_view_count": 1})
        seconds.now += 3
        panel.tick()
        assert names(panel) == []
        assert "stop the cell" in html_of(panel)

    def test_a_run_that_is_over_says_nothing_of_clicks(self, hands: Hands, seconds: Seconds) -> None:
        """There is nothing left to cancel, so there is nothing to say about it."""
        panel = Panel(hands.actions, blocking=True, monotonic_s=seconds)
        panel.update(run_status(3))
        assert "stop the cell" not in html_of(panel)


def test_a_button_without_a_kernel_is_like_any_other(sent: list[Any]) -> None:
    """Outside of ipykernel the button takes the comm that its environment gives."""
    button = clicks.LiveButton(description="x")
    assert isinstance(button.comm, CountedComm)
    button.description = "y"
    assert sent[-1]["state"] == {"description": "y"}
