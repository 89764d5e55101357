"""The list of batches, read page by page, and those in it that may be one whose create answer was lost.

Rows are paid twice where a list is believed to be whole that is not: what does not move on, and an entry that cannot be
read, is an error and no end of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from pandas_batch.errors import UnreadableAnswerError
from pandas_batch.server_values import is_state_told, n_requests_of, time_of

from .endpoints import Page, list_flow, retrieve_flow
from .failures import is_not_found
from .flows import Flow

_PAGE = 100
_LARGEST_PAGE = 1000
"""The most that the API takes (https://platform.claude.com/docs/en/api/listing-message-batches)."""

Read = Callable[[str | None], Flow[Page]]
"""What reads the page of the list that follows an id."""


def _page_flow(after_id: str | None) -> Flow[Page]:
    return list_flow(limit=_PAGE, after_id=after_id)


def large_page_flow(after_id: str | None) -> Flow[Page]:
    """GET a page as large as the API makes them, where the whole list is wanted."""
    return list_flow(limit=_LARGEST_PAGE, after_id=after_id)


def each_page_flow(visit: Callable[[Page], bool], *, read: Read = _page_flow) -> Flow[None]:
    """
    Read the list of batches, newest first.

    Parameters
    ----------
    visit
        Called with each page; it returns whether that was enough.
    read
        What reads a page.

    Raises
    ------
    UnreadableAnswerError
        The list says that there is more, and gives a page again that was read, or no way to go on.
    """
    after_id: str | None = None
    read_before: set[str] = set()
    while True:
        page: Page = yield from read(after_id)
        if visit(page) or not page.has_more:
            return
        after_id = page.last_id
        if after_id is None or after_id in read_before:
            raise UnreadableAnswerError(
                "The list of batches does not go on: it says that there is more, and gives the same page again.",
                "Nothing is posted as long as a batch may be hidden there.",
            )
        read_before.add(after_id)


def newer_batches_flow(
    watermark_id: str | None, not_before: datetime | None, *, check: Callable[[Page], object] = bool
) -> Flow[tuple[list[dict[str, Any]], datetime | None, UnreadableAnswerError | None]]:
    """
    Return the batches that were made since, as they are listed, the server's time, and why there may be more.

    Where the times say that the list is not newest first, as the API's is, the watermark ends nothing: only what is
    older by its own time is left out. What cannot be read hides nothing of what can be: it is returned, not raised.

    Parameters
    ----------
    watermark_id
        The newest batch that was there before.
    not_before
        When that was made, or another time before which nothing is looked for.
    check
        Looks at each page, and raises where it is not to be believed.
    """
    newer: list[dict[str, Any]] = []
    server_at: datetime | None = None
    hidden: UnreadableAnswerError | None = None
    n_pages = 0

    def visit(page: Page) -> bool:
        nonlocal server_at, hidden, n_pages
        check(page)
        server_at = page.server_at
        n_pages += 1
        is_ordered = _is_newest_first(page.batches)
        n_hidden, is_enough = page.n_unreadable, False
        for position, listed in enumerate(page.batches):
            created_at = time_of(listed.get("created_at"))
            is_older = not_before is not None and created_at is not None and created_at < not_before
            if str(listed["id"]) != watermark_id and not is_older:
                newer.append(listed)
            elif is_ordered:
                n_hidden, is_enough = sum(n_before <= position for n_before in page.unreadable_at), True
                break
        if n_hidden:
            # What cannot be read may be the batch that is looked for.
            hidden = UnreadableAnswerError(
                f"The list of batches has {n_hidden} entries without an id: it is not as the API writes it.",
                "Nothing is posted as long as a batch may be hidden there.",
            )
        return is_enough

    try:
        yield from each_page_flow(visit)
    except UnreadableAnswerError as error:
        if not n_pages:
            raise
        hidden = error
    return newer, server_at, hidden


def _is_newest_first(batches: Sequence[dict[str, Any]]) -> bool:
    times = [time for time in (time_of(listed.get("created_at")) for listed in batches) if time is not None]
    return all(later <= earlier for earlier, later in pairwise(times))


def candidates_flow(
    newer: Iterable[dict[str, Any]], *, n_requests: int, excluded: Collection[str]
) -> Flow[list[dict[str, Any]]]:
    """
    Return those of the listed batches that may be one of `n_requests` requests: of its size, and not `excluded`.

    One whose size or state the list leaves out is asked for itself; what it does not say then either is no argument
    against it.
    """
    found: list[dict[str, Any]] = []
    for listed in newer:
        if str(listed["id"]) in excluded:
            continue
        if n_requests_of(listed) is None or not is_state_told(listed):
            listed = yield from _described_flow(listed)
        if n_requests_of(listed) in (None, n_requests):
            found.append(listed)
    return found


def find_listed_flow(batch_id: str, created_at: datetime | None) -> Flow[dict[str, Any] | None]:
    """Return a batch as the list shows it, or None; pages older than `created_at` are not read."""
    found: dict[str, Any] | None = None

    def visit(page: Page) -> bool:
        nonlocal found
        found = next((listed for listed in page.batches if listed["id"] == batch_id), None)
        return found is not None or is_older(page, created_at)

    yield from each_page_flow(visit)
    return found


def is_older(page: Page, time: datetime | None) -> bool:
    """Return whether all that follows a page was made before `time`; not where the list is not newest first."""
    oldest_at = time_of(page.batches[-1].get("created_at")) if page.batches else None
    return time is not None and oldest_at is not None and oldest_at < time and _is_newest_first(page.batches)


def _described_flow(listed: dict[str, Any]) -> Flow[dict[str, Any]]:
    """Return a listed batch as its own endpoint describes it, or as it is listed where that does not know it (yet)."""
    try:
        polled = yield from retrieve_flow(str(listed["id"]))
    except Exception as error:
        if is_not_found(error):
            return listed
        raise
    return polled.batch
