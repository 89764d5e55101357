"""The account says the same as HTML and as text, and nothing that stands in it is ever more than text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandas_batch.amounts import duration, usd
from pandas_batch.display import fragments
from pandas_batch.display.account import kept_html, static_html, text_account, text_line
from pandas_batch.display.stylesheet import style_element
from pandas_batch.types import RunStatus

from .run_statuses import ATTACKS, run_status, with_everywhere

OURS = {
    *("a", "b", "code", "details", "div", "q", "span", "style", "summary"),
    *("table", "tbody", "td", "th", "thead", "tr"),
}
OUR_ATTRIBUTES = {
    *("aria-hidden", "aria-label", "aria-live", "aria-valuemax", "aria-valuemin", "aria-valuenow", "aria-valuetext"),
    *("class", "data-label", "dir", "href", "open", "rel", "role", "scope", "style", "target"),
}
STATES = ("preparing", "submitting", "blocked", "in_progress", "canceling", "ended", "collected")


class Reader(HTMLParser):
    """Reads HTML as a browser would: elements, attributes, and text outside of styles."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.other: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.other.append(data)

    def handle_decl(self, decl: str) -> None:
        self.other.append(decl)

    def handle_pi(self, data: str) -> None:
        self.other.append(data)


def pieces(status: RunStatus) -> str:
    """Return all that a panel shows, one piece after the other."""
    changing = (fragments.head, fragments.said, fragments.facts, fragments.bar, fragments.times, fragments.answers)
    below = (fragments.failed_title, fragments.failures, fragments.batches, fragments.foot)
    return fragments.live_region() + "".join(piece(status) for piece in (*changing, *below))


def assert_only_ours(html: str) -> None:
    read = Reader(html)
    assert not read.open, "an element was left open"
    assert not read.other
    for tag, attributes in read.tags:
        assert tag in OURS
        assert set(attributes) <= OUR_ATTRIBUTES
        assert attributes.get("href") in (None, fragments.CONSOLE_URL)
        assert re.fullmatch(r"(width:\d+\.\d{3}%)?", attributes.get("style") or "")


def test_there_are_fifty_attacks() -> None:
    """The corpus is as large as it says, without repetition."""
    assert len(set(ATTACKS)) >= 50


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("n_ended", [-1, 1, 3])
def test_a_text_from_outside_adds_no_element_and_no_attribute(attack: str, n_ended: int) -> None:
    """Whatever stands in a status, the HTML has our elements and our attributes, closed as we closed them."""
    status = with_everywhere(attack, n_ended)
    assert_only_ours(static_html(status))
    assert_only_ours(kept_html(status, "k3y"))
    assert_only_ours(pieces(status))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_shown_as_it_was_written(attack: str) -> None:
    """An escaped text reads as the text it was: nothing is dropped to make it harmless."""
    shown = "".join(Reader(static_html(with_everywhere(attack))).text)
    printable = "".join(c for c in attack if c.isprintable())
    assert printable[:30] in shown or not attack.isprintable()


@given(st.text(max_size=40))
def test_any_text_at_all_stays_text(text: str) -> None:
    """For every string in every field the HTML keeps its form."""
    assert_only_ours(static_html(with_everywhere(text)))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("n_ended", [-1, 0, 1, 3])
def test_every_state_has_an_account(state: str, n_ended: int) -> None:
    """Each state at each point of a run can be told as HTML, as a line and as text."""
    status = run_status(n_ended, state)
    assert_only_ours(static_html(status))
    assert "\n" not in text_line(status)
    assert text_account(status).startswith(text_line(status))


def test_the_account_loads_nothing() -> None:
    """The HTML refers to no image, font, script or style sheet: it reads the same without a network."""
    html = static_html(run_status(3))
    assert "url(" not in html
    assert "@import" not in html
    assert {tag for tag, _ in Reader(html).tags}.isdisjoint({"script", "img", "link", "iframe", "svg"})
    assert re.findall(r"https?://[^\"]+", html) == [fragments.CONSOLE_URL]


def test_an_export_to_markdown_shows_no_rules() -> None:
    """Where the tags of the style element are dropped, as by GitHub, what is left of it is an HTML comment."""
    html = kept_html(run_status(3), "k3y").replace("<style>", "&lt;style>").replace("</style>", "&lt;/style>")
    read = Reader(html)
    assert "{" not in "".join(read.text)
    assert len(read.other) == 2
    assert all("{" in comment for comment in read.other)


def test_mathjax_leaves_the_account_alone() -> None:
    """Two amounts of dollars are two amounts, not a formula between dollar signs."""
    classes = (Reader(static_html(run_status(1))).tags[0][1]["class"] or "").split()
    assert {"mathjax_ignore", "tex2jax_ignore"} <= set(classes)


@pytest.mark.parametrize("state", STATES[1:])
def test_an_unfinished_account_says_of_when_it_is(state: str) -> None:
    """A picture of a run that goes on has its time and the line that leads on, once; the last account needs neither."""
    status = run_status(1, state)
    text = "".join(Reader(static_html(status)).text)
    assert ("A picture as of 2026-11-23" in text) is (
        state not in ("collected", "blocked", "preparing") or status.can_cancel
    )
    assert text.count('run = pandas_batch.load("run_k3v9m2xq")') == 1


def test_a_key_is_no_text_from_outside() -> None:
    """What stands in a style sheet cannot be escaped as text is, so it has to be plain."""
    with pytest.raises(ValueError, match="letters and digits"):
        kept_html(run_status(1), "x}</style>")


def test_the_bar_over_all_counts_whole_batches() -> None:
    """The bar over the run says how many batches have ended of all."""
    bar = next(a for _, a in Reader(fragments.bar(run_status(2))).tags if a.get("role") == "progressbar")
    assert (bar["aria-valuenow"], bar["aria-valuemax"]) == ("2", "3")


def test_nothing_that_is_saved_moves() -> None:
    """The static account of a running batch has no animated element: it is a picture of a moment."""
    status = run_status(1)
    assert "pdb-s-live" in fragments.bar(status)
    assert 'class="pdb-s-live"' not in static_html(status)


def test_the_piece_with_the_clock_is_not_animated_and_is_the_only_one_that_changes() -> None:
    """A second later only the times are another text: nothing else is written anew, so nothing starts anew."""
    before, after = run_status(1, seconds=20), run_status(1, seconds=21)
    after = replace(after, last_poll_at=before.last_poll_at, next_poll_at=before.next_poll_at)
    assert fragments.times(before) != fragments.times(after)
    assert "pdb-bar" not in fragments.times(after)
    for piece in (
        fragments.head,
        fragments.said,
        fragments.facts,
        fragments.bar,
        fragments.batches,
        fragments.failures,
    ):
        assert piece(before) == piece(after), piece.__name__


@pytest.mark.parametrize(
    ("base_url", "is_linked"),
    [
        ("https://api.anthropic.com", True),
        ("https://api.anthropic.com.example.org", False),
        ("https://notanthropic.com", False),
        ("http://127.0.0.1:8765", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_only_batches_that_the_console_knows_are_linked(base_url: str, is_linked: bool) -> None:
    """A batch of a simulator or a gateway is not in the Console."""
    assert (fragments.CONSOLE_URL in static_html(run_status(1, base_url=base_url))) is is_linked


def test_many_batches_show_the_unfinished_first() -> None:
    """Of a thousand batches forty have a line, and the one that still runs is among them."""
    done = run_status(3).batches[0]
    running = run_status(0).batches[0]
    batches = (*[done] * 700, replace(running, batch_id="msgbatch_running"), *[done] * 299)
    html = fragments.batches(run_status(1, batches=batches))
    assert html.count("<tr>") == 1 + fragments.N_BATCHES_SHOWN
    assert "msgbatch_running" in html
    assert "and 960 more batches" in html


def test_what_is_unknown_is_never_zero() -> None:
    """Without a price the cost is unknown, in HTML and in text."""
    status = run_status(
        3, cost_usd=None, paid_usd=None, cost_usd_standard=None, saved_by_reuse_usd=None, cost_usd_max=None
    )
    assert "$" not in "".join(Reader(static_html(status)).text)
    assert "cost unknown" in text_line(status)
    assert "$" not in text_account(status)


def test_before_the_first_answer_the_upper_bound_stands() -> None:
    """Before anything is known the account says what it can cost at most."""
    assert "at most $2.31" in static_html(run_status(-1))
    assert "at most $2.31" in text_line(run_status(-1))


def test_the_finished_account_has_every_number() -> None:
    """Rows, batches, cost, standard price, savings, counts, failures, the way back: all in text that can be read."""
    text = " ".join(" ".join(Reader(static_html(run_status(3))).text).split())
    for part in (
        "reviews",
        "Finished, some rows failed",
        "claude-haiku-4-5-20251001",
        "1,195 of 1,204",
        "$1.35",
        "$2.71",
        "$0.15",
        "msgbatch_013Zva2CMHLNnXjNJJKqJ2EF",
        "overloaded_error",
        'run = pandas_batch.load("run_k3v9m2xq")',
        "/home/ada/reviews/.pandas_batch",
        'pandas_batch.load("run_k3v9m2xq").retry_failed()',
    ):
        assert part in text, part


def test_terminal_text_carries_no_control_characters() -> None:
    """An escape code in a server's message does not reach a terminal."""
    text = text_account(with_everywhere("\x1b]0;owned\x07\x1b[2J\r\u202e", 3))
    assert all(c.isprintable() or c == "\n" for c in text)
    assert text_line(with_everywhere("a\nb")).count("\n") == 0


@pytest.mark.parametrize(
    ("counts", "n_failed", "word"),
    [
        ({"succeeded": 3}, 0, "Finished"),
        ({"succeeded": 2, "errored": 1}, 1, "Finished, some rows failed"),
        ({"canceled": 3}, 3, "Canceled"),
        ({"succeeded": 2, "canceled": 1}, 1, "Finished, partly canceled"),
        ({"succeeded": 2, "canceled": 1, "expired": 1}, 2, "Partly canceled, some rows failed"),
        ({"succeeded": 2, "skipped": 1}, 0, "Finished"),
        ({"succeeded": 2, "missing": 1}, 0, "Finished, some rows failed"),
        ({"succeeded": 2, "invalid": 1}, 0, "Finished, some rows failed"),
    ],
)
def test_the_last_word_fits_what_became_of_the_rows(counts: dict[str, int], n_failed: int, word: str) -> None:
    """A run is never called finished without saying that rows failed or were canceled."""
    html = fragments.head(run_status(3, counts=counts, n_failed=n_failed, failed=()))
    assert f"</span> {word}</span>" in html


@pytest.mark.parametrize(
    ("succeeded", "canceled", "glyph", "word"),
    [(402, 0, "✓", "collected"), (362, 40, "⊘", "collected, 40 canceled"), (0, 402, "⊘", "canceled")],
)
def test_a_batch_that_was_canceled_says_so(succeeded: int, canceled: int, glyph: str, word: str) -> None:
    """No check mark stands at a batch of which requests were canceled, and their number is said, in HTML and text."""
    first, *others = run_status(3).batches
    first = replace(first, succeeded=succeeded, errored=0, expired=0, canceled=canceled)
    status = run_status(3, batches=(first, *others))
    row = fragments.batches(status).split("<tr>")[2]
    assert f">{glyph}</span> {word}</td>" in row
    assert f"{first.batch_id}  {word}: " in text_account(status)


def test_what_was_canceled_is_told_apart_from_what_failed() -> None:
    """A person who canceled is told how many rows that were, and is not shown them one by one."""
    canceled = tuple(replace(row, status="canceled", error="canceled") for row in run_status(3).failed)
    status = run_status(3, counts={"succeeded": 722, "errored": 2, "canceled": 480}, n_failed=482, failed=canceled)
    assert "of 1,204 · 2 failed · 480 canceled<" in fragments.facts(status)
    skipped = replace(status, counts={"succeeded": 1198, "errored": 3, "skipped": 3}, n_failed=5)
    assert "· 5 failed · 1 skipped<" in fragments.facts(skipped), "two could not be sent, one had no prompt"
    assert 'pdb-of-failed" open>' in fragments.account(status)
    alone = replace(status, counts={"succeeded": 724, "canceled": 480}, n_failed=480)
    assert 'pdb-of-failed"><summary>' in fragments.account(alone)
    assert "480 rows canceled" in fragments.failed_title(alone)


def test_failures_stand_by_kind_with_what_helps() -> None:
    """Each kind has its number of rows, whether asking again helps, and examples; the lines name the run."""
    status = run_status(3)
    text = " ".join("".join(Reader(fragments.failures(status)).text).split())
    assert "3invalid_request_error: messages.0: text content blocks must be non-emptyno: change the prompt17" in text
    assert "3overloaded_error: Overloadedyes24" in text
    assert 'Ask again: pandas_batch.load("run_k3v9m2xq").retry_failed()' in text
    assert 'All of them: pandas_batch.load("run_k3v9m2xq").failed' in text
    assert "9 rows failed, of 3 kinds" in "".join(Reader(fragments.failed_title(status)).text)
    many = replace(status, kinds=status.kinds * 4)
    assert "and 8 more kinds" in fragments.failures(many)


def test_one_row_is_no_rows() -> None:
    """A single row is spoken of as one, in HTML and in text."""
    (kind, *_) = run_status(1).kinds
    status = run_status(3, n_rows=1, counts={"errored": 1}, n_failed=1, kinds=(replace(kind, n_rows=1),))
    said = "".join(Reader(static_html(status)).text) + text_account(status)
    assert "1 row failed" in said
    assert not re.search(r"\b1 (rows|batches|requests)\b", said)


def test_without_its_style_sheet_the_account_is_still_read_with_ease() -> None:
    """GitHub drops styles: words that only space keeps apart have something between them."""
    for status in (run_status(1), run_status(3)):
        text = " ".join("".join(Reader(static_html(status)).text).split())
        assert "reviews · " in text
        assert "Answered: " in text
        assert re.search(r"elapsed 4 min 20 s · 1 of 3 batches ended · last|UTC · took 4 min 20 s", text)
        assert "Run run_k3v9m2xq" in text


@given(st.floats(min_value=0, max_value=1e9))
def test_money_keeps_its_size(amount: float) -> None:
    """A shown amount is within half a unit of its last digit, or says that it is below the smallest one."""
    shown = usd(amount)
    if shown.startswith("<"):
        assert 0 < amount < 1e-9
    else:
        number = float(shown.lstrip("$").replace(",", ""))
        assert number == pytest.approx(amount, rel=0.06, abs=0.0051 if amount >= 0.1 else 0)


@given(st.integers(min_value=0, max_value=200_000))
def test_a_duration_never_grows_backwards_and_changes_slowly(seconds: int) -> None:
    """After a minute a shown duration changes every five seconds, after ten minutes every minute."""
    step = 1 if seconds < 60 else 5 if seconds < 600 else 60
    whole = seconds - seconds % step
    assert duration(seconds) == duration(whole)


def test_the_style_sheet_is_one_closed_element() -> None:
    """No rule can end the element or its comment early, the braces match, an account carries what it needs alone."""
    for css in (style_element(), style_element(live=True)):
        assert css.count("<") == 3
        assert css.count("-->") == 1
        assert css.count("{") == css.count("}")
        assert "prefers-reduced-motion" in css
    assert "widget" not in style_element().replace("jupyter-widgets-disconnected", "")
