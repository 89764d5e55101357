"""The things everybody speaks of: requests, results, batches, prompts, and the status of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from .call_arguments import calls_in_words
from .errors import InputError

DEFAULT_MODEL = "claude-haiku-4-5-20251001"
DEFAULT_MAX_TOKENS = 1024

# https://platform.claude.com/docs/en/build-with-claude/batch-processing#batch-limitations
MAX_BATCH_REQUESTS = 100_000
MAX_BATCH_BYTES = 256_000_000

ROW_STATUSES = (
    "succeeded",
    "errored",
    "expired",
    "canceled",
    "skipped",
    "missing",
    "invalid",
    "paused",
    "pending",
    "unsent",
)
"""What can have become of a row. The first four are the API's words, the others ours."""


@calls_in_words()
@dataclass(frozen=True, kw_only=True)
class Prompt:
    """
    A structured system prompt; empty parts are left out.

    Parameters
    ----------
    role, aim, constraints, tone, output_format
        Text of each part, or a sequence of lines.

    Examples
    --------
    >>> print(Prompt(role="assistant", aim="answer briefly", tone=""))
    Role: assistant
    Aim: answer briefly
    """

    role: str | Sequence[str] = ""
    aim: str | Sequence[str] = ""
    constraints: str | Sequence[str] = ""
    tone: str | Sequence[str] = ""
    output_format: str | Sequence[str] = ""

    def render(self) -> str:
        """Return the prompt as text, one part after the other."""
        parts = []
        for name, value in (
            ("Role", self.role),
            ("Aim", self.aim),
            ("Constraints", self.constraints),
            ("Tone", self.tone),
            ("Output format", self.output_format),
        ):
            lines: object = () if value is None else value
            if not isinstance(lines, str | Sequence):
                raise InputError(
                    f"{name} of a Prompt is of type {type(value).__name__}; it has to be text, or a list of lines.",
                    hint='Prompt(role="judge", constraints=["one word", "no guess"])',
                )
            if isinstance(lines, str):
                if lines.strip():
                    parts.append(f"{name}: {lines.strip()}")
            elif told := [str(line).strip() for line in lines if str(line).strip()]:
                parts.append("\n".join([f"{name}:", *(f"- {line}" for line in told)]))
        return "\n".join(parts)

    def __str__(self) -> str:
        return self.render()


System = str | Prompt | Sequence[Mapping[str, Any]] | None
"""A system prompt: text, a `Prompt`, or a list of text blocks."""


def system_param(system: System) -> str | list[dict[str, Any]] | None:
    """
    Return `system` as the API takes it, or None where there is nothing to say.

    Examples
    --------
    >>> system_param(Prompt(role="judge"))
    'Role: judge'
    >>> system_param("") is None
    True
    """
    if system is None or isinstance(system, str):
        return system or None
    if isinstance(system, Prompt):
        return system.render() or None
    if not _is_list_of_dicts(system):
        raise InputError(
            f"system is of type {type(system).__name__}; it has to be text, a Prompt, or a list of text blocks.",
            hint='system="Answer with one word."',
        )
    return [dict(block) for block in system] or None


def _is_list_of_dicts(value: Any) -> bool:
    return isinstance(value, Sequence) and all(isinstance(item, Mapping) for item in value)


@calls_in_words()
@dataclass(frozen=True)
class BatchRequest:
    """
    One request of a batch, for the client layer.

    Parameters
    ----------
    custom_id
        Your key of the request: 1 to 64 characters of ``a-zA-Z0-9_-``, unique in its batch
        (https://platform.claude.com/docs/en/api/creating-message-batches).
    prompt
        The user message: text, a list of content blocks, or a list of messages.
    model, system, max_tokens
        What is None comes from the client, or, standing alone, from the package's defaults.
    params
        Further parameters of the Messages API, checked before anything is sent; what stands under ``extra_params`` in
        them is passed on unchecked.

    Examples
    --------
    >>> BatchRequest("task-001", "What is 2+2?", max_tokens=16).to_api_request()["params"]["max_tokens"]
    16
    """

    custom_id: str
    prompt: str | Sequence[Mapping[str, Any]]
    model: str | None = None
    system: System = None
    max_tokens: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    def to_api_request(
        self,
        *,
        model: str = DEFAULT_MODEL,
        system: System = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
    ) -> dict[str, Any]:
        """Return the request as the API takes it; the arguments stand in for what is None here."""
        params: dict[str, Any] = {
            "model": self.model or model,
            "max_tokens": self.max_tokens if self.max_tokens is not None else max_tokens,
            "messages": messages_param(self.prompt),
        }
        chosen = system_param(self.system if self.system is not None else system)
        if chosen is not None:
            params["system"] = chosen
        if not isinstance(self.params, Mapping):
            raise InputError(
                f"params is of type {type(self.params).__name__}; it has to be a dict.",
                hint='params={"stop_sequences": ["END"]}',
            )
        further = dict(self.params)
        unchecked = further.pop("extra_params", None) or {}
        if not isinstance(unchecked, Mapping):
            raise InputError(
                f"extra_params is of type {type(unchecked).__name__}; it has to be a dict.",
                hint='params={"extra_params": {"name": value}}',
            )
        return {"custom_id": self.custom_id, "params": params | further | dict(unchecked)}


def messages_param(prompt: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Return `prompt` as a list of messages.

    Examples
    --------
    >>> messages_param("hi")
    [{'role': 'user', 'content': 'hi'}]
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    blocks = [dict(part) for part in prompt] if _is_list_of_dicts(prompt) else []
    if blocks and all("role" in block for block in blocks):
        return blocks
    if blocks and all("type" in block for block in blocks):
        return [{"role": "user", "content": blocks}]
    if not isinstance(prompt, list | tuple):
        raise InputError(
            f"prompt is of type {type(prompt).__name__}; it has to be text, content blocks, or messages.",
            hint='BatchRequest("id", "...")',
        )
    raise InputError(
        "prompt is a list of neither content blocks (each with 'type') nor messages (each with 'role').",
        hint='BatchRequest("id", [{"role": "user", "content": "..."}])',
    )


@dataclass(frozen=True)
class BatchResult:
    """
    What became of one request.

    Attributes
    ----------
    custom_id
        The key given to the request.
    output
        All text blocks of the answer, joined; ``""`` when there is none.
    status
        ``succeeded``, ``errored``, ``canceled`` or ``expired``; ``missing`` where the server has no result for it, and
        ``invalid`` where its line cannot be read, or the answer does not fit ``output_schema=``.
    tokens
        Input (with cache reads and writes) plus output tokens; None where the server's counts cannot all be read.
    input_tokens, output_tokens
        The API's uncached input count and its output count; None where it tells none.
    cost_usd
        What the request cost, with the batch discount; None where the model has no known price.
    error
        ``"<error type>: <message>"``, or None.
    stop_reason, model
        As the API reports them; None where it says nothing.
    message
        The raw message of the API, or None.
    thinking
        What the model thought, where the API tells it; else None.
    tool_calls
        Calls of your tools, each ``{"id", "name", "input"}``.
    cache_read_tokens, cache_write_tokens
        Input tokens that the prompt cache held, and that were written to it; None where the API tells none.
    parsed
        With ``output_schema=``: the answer as that makes it (an instance of a class, a label, else a dict); None where
        there is none, or it does not fit.
    """

    custom_id: str
    output: str = ""
    status: str = "succeeded"
    tokens: int | None = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cost_usd: float | None = 0.0
    error: str | None = None
    stop_reason: str | None = None
    model: str | None = None
    message: Mapping[str, Any] | None = field(default=None, repr=False)
    thinking: str | None = field(default=None, repr=False)
    tool_calls: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    cache_read_tokens: int | None = 0
    cache_write_tokens: int | None = 0
    parsed: Any = field(default=None, repr=False)

    @property
    def succeeded(self) -> bool:
        """Whether the request was answered."""
        return self.status == "succeeded"

    @property
    def ok(self) -> bool:
        """The same as `succeeded`."""
        return self.succeeded

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, and ``succeeded``, as a dict; `parsed` as plain values where it is a pydantic model."""
        plain = getattr(self.parsed, "model_dump", None)
        parsed = self.parsed if plain is None else plain(mode="json")
        return asdict(replace(self, parsed=None)) | {"parsed": parsed, "succeeded": self.succeeded}


@dataclass(frozen=True)
class BatchJob:
    """
    A batch as the API sees it now.

    Attributes
    ----------
    batch_id
        The API's id, ``msgbatch_…``.
    status
        ``in_progress``, ``canceling``, ``ended``, or ``canceled`` (ended after a cancel with nothing succeeded).
    request_counts
        Requests by state. All stand under ``processing`` until the whole batch has ended.
    created_at, ended_at, expires_at
        Aware UTC datetimes, or None.
    cancel_initiated_at, archived_at
        When a cancel was asked for, and when the results were removed; else None.
    """

    batch_id: str
    status: str
    request_counts: Mapping[str, int]
    created_at: datetime | None = None
    ended_at: datetime | None = None
    expires_at: datetime | None = None
    cancel_initiated_at: datetime | None = None
    archived_at: datetime | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the batch has ended, and its results can be had."""
        return self.status in ("ended", "canceled")

    @property
    def n_requests(self) -> int:
        """Number of requests in the batch."""
        return sum(self.request_counts.values())

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, and ``is_complete``, as a dict that `json.dumps` takes: times are ISO texts."""
        fields = asdict(self) | {"request_counts": dict(self.request_counts)}
        times = {name: value.isoformat() for name, value in fields.items() if isinstance(value, datetime)}
        return fields | times | {"is_complete": self.is_complete}

    def __str__(self) -> str:
        return self.batch_id

    @classmethod
    def from_api(cls, batch: Mapping[str, Any]) -> BatchJob:
        """Read a batch object of the API (https://platform.claude.com/docs/en/api/retrieving-message-batches)."""
        from .server_values import times_of

        times = times_of(batch)
        counts = times["counts"]
        status = str(batch.get("processing_status"))
        if status == "ended" and batch.get("cancel_initiated_at") and not counts.get("succeeded"):
            status = "canceled"
        return cls(
            batch_id=str(batch["id"]),
            status=status,
            request_counts=counts,
            created_at=times["created_at"],
            ended_at=times["ended_at"],
            expires_at=times["expires_at"],
            cancel_initiated_at=times["cancel_initiated_at"],
            archived_at=times["archived_at"],
        )


@dataclass(frozen=True, kw_only=True)
class BatchStatus:
    """One batch of a run, as a panel shows it."""

    batch_id: str | None
    """None until the server has sent it."""
    state: str
    """``waiting`` (not posted yet), ``posting``, ``unproved`` (its create answer was lost; it is being looked
    for, or proved), ``in_progress``, ``canceling``, ``ended``, ``collected``, ``blocked``, ``gone``."""
    n_requests: int
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0
    created_at: datetime | None = None
    ended_at: datetime | None = None
    expires_at: datetime | None = None
    reused: bool = False
    """Posted by another run whose answers this one shares."""
    message: str = ""
    """What is to be said of this batch alone."""
    until: datetime | None = None
    """When it is settled what becomes of it, where it is being looked for."""

    @property
    def has_ended(self) -> bool:
        """Whether the server has finished it."""
        return self.state in ("ended", "collected")

    @property
    def is_under_way(self) -> bool:
        """Whether the server has it, or may have it, and works on it."""
        return self.state in ("in_progress", "canceling", "unproved")

    @property
    def took_s(self) -> float | None:
        """How long the server took for it; None where it has not ended, or was canceled."""
        if self.created_at is None or self.ended_at is None or self.canceled:
            return None
        return max(0.0, (self.ended_at - self.created_at).total_seconds())


@dataclass(frozen=True, kw_only=True)
class FailedRow:
    """A row without a usable answer."""

    label: str
    position: int
    status: str
    error: str


@dataclass(frozen=True, kw_only=True)
class FailureKind:
    """Rows that failed alike."""

    status: str
    error: str
    """What was said of one of them."""
    n_rows: int
    advice: str
    """Whether asking again helps: ``yes``, or ``no: `` and what does."""
    examples: tuple[str, ...] = ()
    """Labels of the first of them."""


@dataclass(frozen=True, kw_only=True)
class FirstAnswer:
    """One row with its answer, for whoever looks while the others are awaited."""

    label: str
    prompt: str = field(default="", repr=False)
    output: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why a run cannot go on by itself."""

    why: str
    """Who stopped it, in a few words."""
    said: str = ""
    """The server's own words."""
    advice: str = ""
    """What to do."""
    where: str = ""
    """Where that is done, if not here."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """
    Everything there is to show of a run at one instant; frozen, handed to observers.

    Money is in US dollars; None means unknown (never 0). Times are aware UTC datetimes.
    """

    run_id: str
    name: str | None
    model: str
    base_url: str
    store_path: str
    state: str
    """``preparing``, ``submitting``, ``blocked``, ``in_progress``, ``canceling``, ``ended``, ``collected``."""
    message: str = ""
    """One sentence on what happens now, or what the user has to do."""
    now: datetime
    started_at: datetime
    expires_at: datetime | None = None
    last_poll_at: datetime | None = None
    next_poll_at: datetime | None = None
    finished_at: datetime | None = None
    n_rows: int = 0
    n_rows_answered: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    """Row status to number of rows."""
    batches: tuple[BatchStatus, ...] = ()
    n_failed: int = 0
    failed: tuple[FailedRow, ...] = ()
    """The first failed rows only."""
    cost_usd: float | None = None
    """What the answers so far cost."""
    paid_usd: float | None = None
    """What this run added to the bill."""
    cost_usd_standard: float | None = None
    """What the same answers would have cost without batching."""
    saved_by_reuse_usd: float | None = None
    """What reuse and dedupe spared."""
    cost_usd_max: float | None = None
    """Upper bound before the first POST."""
    n_requests: int = 0
    n_reused: int = 0
    reattach: str = ""
    """The line that picks the run up after a restart."""
    can_cancel: bool = False
    is_finishing: bool = False
    """Whether it is being finished now: its batches are canceled, and what they do not answer is asked one by one."""
    retry: str = ""
    """The line that asks again for what failed; empty where it would ask for nothing."""
    expression: str = ""
    """What to type for the run."""
    is_from_store: bool = False
    """Whether everything was collected already when this handle on the run was made: nothing was sent, nothing paid."""
    kinds: tuple[FailureKind, ...] = ()
    """The failed rows, grouped by what was said of them; the most frequent first."""
    stop: Stop | None = None
    """Why the run is blocked; None where it is not."""
    under_way_usd_max: float | None = None
    """What the batches that the server works on may still cost at most."""
    cost_usd_expected: float | None = None
    """What it was expected to cost before anything was sent, by earlier answers to the same prompt; None: unknown."""
    budget_usd: float | None = None
    """What the call was allowed to cost; None where no limit was given."""
    tokens_in: int | None = None
    """Input tokens of the answers so far, cached ones included."""
    tokens_out: int | None = None
    """Output tokens of the answers so far."""
    durations_s: tuple[float, ...] = ()
    """How long earlier batches of this store have taken at the same server."""
    answers: tuple[FirstAnswer, ...] = field(default=(), repr=False)
    """A few rows with their answers, for a live panel alone: never saved, never logged."""
    prompt_name: str = ""
    """Name of the column that the prompts of `answers` stand in."""
    n_rows_prepared: int = 0
    """While the run is being prepared: how many rows are."""

    @property
    def n_batches_ended(self) -> int:
        """Number of batches that have ended."""
        return sum(b.has_ended for b in self.batches)

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more without the user."""
        return self.state == "collected" or (self.state == "blocked" and not self.can_cancel)
