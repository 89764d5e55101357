"""The requests of the client layer as the bytes of creates: checked before anything is sent, and cut to size."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from pandas_batch.errors import BatchTooLargeError, InputError, clip
from pandas_batch.requests.certain_refusals import INTERLEAVED, check_request
from pandas_batch.requests.parameters import check_names, check_parameter, check_unchecked_names, parameter_hints
from pandas_batch.requests.plain_values import kind_of, shown
from pandas_batch.types import MAX_BATCH_BYTES, MAX_BATCH_REQUESTS, BatchRequest, System
from pandas_batch.wire.body import Body

if TYPE_CHECKING:
    from pandas_batch.requests.schema import OutputSchema

SPLIT_BYTES = 200_000_000
"""Where `run` cuts: well below the limit, which is enforced by a proxy that counts in its own way."""

_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_HEAD, _COMMA, _TAIL = b'{"requests":[', b",", b"]}"
_LINES_PER_BLOCK = 256
_N_SHOWN = 3


@dataclass(frozen=True)
class Requests:
    """
    Requests that one create may carry, encoded.

    Attributes
    ----------
    custom_ids
        Their ids, in order.
    lines
        Their JSON, in the same order.
    """

    custom_ids: Sequence[str]
    lines: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.lines)

    def model_of(self, custom_id: str) -> str | None:
        """Return the model that the request of an id asks; None where there is none of that id."""
        return self._models.get(custom_id)

    @cached_property
    def _models(self) -> Mapping[str, str]:
        asked = [json.loads(line)["params"]["model"] for line in self.lines]
        return dict(zip(self.custom_ids, asked, strict=True))

    @property
    def n_bytes(self) -> int:
        """Length of the create's body."""
        return _n_bytes(len(self.lines), sum(map(len, self.lines)))

    def body(self) -> Body:
        """Return the body of the create, which is put together while it is read."""
        return Body(self._blocks, self.n_bytes)

    def _blocks(self) -> Iterator[bytes]:
        # One packet for each request would cost more than the requests.
        yield _HEAD
        for start in range(0, len(self.lines), _LINES_PER_BLOCK):
            yield (_COMMA if start else b"") + _COMMA.join(self.lines[start : start + _LINES_PER_BLOCK])
        yield _TAIL

    def split(self, *, most: int = MAX_BATCH_REQUESTS, most_bytes: int | None = None) -> list[Requests]:
        """
        Cut into as few parts as fit, each of at most `most` requests and `most_bytes` bytes (default `SPLIT_BYTES`).

        Examples
        --------
        >>> [len(part) for part in Requests(["a", "b", "c"], [b"{}"] * 3).split(most=2)]
        [2, 1]
        """
        most_bytes = SPLIT_BYTES if most_bytes is None else most_bytes
        parts, start, n_bytes = [], 0, 0
        for position, line in enumerate(self.lines):
            n_before = position - start
            if n_before and (n_before == most or _n_bytes(n_before + 1, n_bytes + len(line)) > most_bytes):
                parts.append(self._slice(start, position))
                start, n_bytes = position, 0
            n_bytes += len(line)
        if len(self.lines) > start:
            parts.append(self._slice(start, len(self.lines)))
        return parts

    def halves(self) -> list[Requests]:
        """Cut in two, for a server that found the whole too large."""
        middle = len(self.lines) // 2
        return [self._slice(0, middle), self._slice(middle, len(self.lines))]

    def _slice(self, start: int, stop: int) -> Requests:
        return Requests(self.custom_ids[start:stop], self.lines[start:stop])


def _n_bytes(n_lines: int, n_line_bytes: int) -> int:
    return len(_HEAD) + n_line_bytes + max(n_lines - 1, 0) * len(_COMMA) + len(_TAIL)


def encode_requests(
    requests: Iterable[BatchRequest | Mapping[str, Any]],
    *,
    model: str,
    system: System,
    max_tokens: int,
    schema: OutputSchema | None = None,
) -> Requests:
    """
    Check and encode requests; the arguments stand in for what is None in one, and each asks for `schema`.

    Raises
    ------
    InputError
        If an id is doubled or malformed, or a request cannot be written as JSON; ids are named, prompts are not.
    """
    if isinstance(requests, BatchRequest | Mapping | str | bytes) or not isinstance(requests, Iterable):
        raise InputError(
            f"requests is {kind_of(requests)}, not a list of BatchRequest.",
            hint='client.run([BatchRequest("task-1", "...")])',
        )
    check_parameter("model", model)
    check_parameter("max_tokens", max_tokens)
    check_parameter("system", system)
    checked = _Checked()
    schema_config = None if schema is None else schema.output_config()
    custom_ids: list[str] = []
    lines: list[bytes] = []
    for position, given in enumerate(requests):
        request = _of_dict(given, position) if isinstance(given, Mapping) else given
        if not isinstance(request, BatchRequest):
            raise InputError(
                f"requests[{position}] is {kind_of(request)}, not a BatchRequest or a dict.",
                hint='BatchRequest("task-1", "...")',
            )
        custom_ids.append(_checked_id(request.custom_id, position))
        lines.append(
            _encoded(request, position, checked, schema_config, model=model, system=system, max_tokens=max_tokens)
        )
    _refuse_doubles(custom_ids)
    return Requests(custom_ids, lines)


def _of_dict(given: Mapping[str, Any], position: int) -> BatchRequest:
    """Return the request that a dict describes: the API's own form, or the names of a `BatchRequest`."""
    hint = 'BatchRequest("task-1", "...")   # or {"custom_id": "task-1", "params": {"messages": [...], ...}}'
    params = given.get("params")
    if "prompt" not in given and isinstance(params, Mapping) and "messages" in params:
        own = {"custom_id", "params"}
        messages = params["messages"]
        is_list = isinstance(messages, Sequence) and not isinstance(messages, str)
        if not is_list or not all(isinstance(one, Mapping) and "role" in one for one in messages):
            raise InputError(f"requests[{position}] has messages that are no list of messages.", hint=hint)
        further = {name: value for name, value in params.items() if name not in ("messages", *_OWN_PARAMS)}
        fields = {name: params.get(name) for name in _OWN_PARAMS}
        made = {"custom_id": given.get("custom_id"), "prompt": messages, "params": further, **fields}
    else:
        own = {*_OF_A_REQUEST, "params"}
        made = {"custom_id": None, "prompt": None, **given}
    unknown = [name for name in given if name not in own]
    if unknown:
        raise InputError(f"requests[{position}] has {shown(unknown[0])}, which no request has.", hint=hint)
    return BatchRequest(**made)


def refuse_too_large(requests: Requests) -> None:
    """Raise `BatchTooLargeError` if the requests do not fit into one batch, saying by how much."""
    n_over = len(requests) - MAX_BATCH_REQUESTS
    n_bytes_over = requests.n_bytes - MAX_BATCH_BYTES
    if n_over <= 0 and n_bytes_over <= 0:
        return
    too_many = (
        f"{len(requests):,} requests are {n_over:,} more than one batch may hold ({MAX_BATCH_REQUESTS:,})"
        if n_over > 0
        else f"{requests.n_bytes:,} bytes of requests are {n_bytes_over:,} more than one batch may hold "
        f"({MAX_BATCH_BYTES:,})"
    )
    raise BatchTooLargeError(f"{too_many}.", hint="client.run(requests)   # splits them over several batches")


def refuse_single_giants(requests: Requests) -> None:
    """Raise `BatchTooLargeError` if one request alone does not fit into a batch."""
    for custom_id, line in zip(requests.custom_ids, requests.lines, strict=True):
        n_bytes_over = _n_bytes(1, len(line)) - MAX_BATCH_BYTES
        if n_bytes_over > 0:
            raise BatchTooLargeError(
                f"Request {custom_id!r} alone is {n_bytes_over:,} bytes more than a batch may hold "
                f"({MAX_BATCH_BYTES:,}).",
                hint="Shorten it, or give its files by URL.",
            )


def _checked_id(custom_id: object, position: int) -> str:
    if isinstance(custom_id, str) and _CUSTOM_ID.fullmatch(custom_id):
        return custom_id
    raise InputError(
        f"requests[{position}] has custom_id={clip(repr(custom_id), 80)}; "
        "an id is 1 to 64 characters out of a-z, A-Z, 0-9, _ and -.",
        hint=f'BatchRequest("task-{position}", ...)',
    )


def _refuse_doubles(custom_ids: Sequence[str]) -> None:
    if len(set(custom_ids)) == len(custom_ids):
        return
    first: dict[str, int] = {}
    doubles = []
    for position, custom_id in enumerate(custom_ids):
        if first.setdefault(custom_id, position) != position:
            doubles.append(f"{custom_id!r} (requests[{first[custom_id]}] and requests[{position}])")
    shown = ", ".join(doubles[:_N_SHOWN]) + (
        f" and {len(doubles) - _N_SHOWN:,} more" if len(doubles) > _N_SHOWN else ""
    )
    raise InputError(
        f"A custom_id may stand only once: {shown}.",
        hint='[BatchRequest(f"task-{i}", prompt) for i, prompt in enumerate(prompts)]',
    )


class _Checked:
    """
    Checks of the parameters of requests, as the accessor makes them.

    Requests mostly share the objects of their parameters: each object is looked at once.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], Any] = {}

    def request(self, request: BatchRequest, params: Mapping[str, Any]) -> None:
        """Refuse what is no parameter, what it does not take, and what the API is certain to refuse."""
        for name in ("model", "max_tokens", "system"):
            if (value := getattr(request, name)) is not None:
                self._once(name, value, partial(check_parameter, name, value))
        further = request.params
        self._once("params", further, partial(_check_params, further))
        parts = [further.get(name) for name in ("thinking", "stop_sequences", "tools", "tool_choice", "cache_control")]
        has_own_system = isinstance(params.get("system"), list)
        has_blocks = not isinstance(request.prompt, str)
        if any(part is not None for part in parts) or has_own_system or has_blocks:
            # The betas are headers of the client, not known here: the most that they allow is taken for given.
            unchecked = further.get("extra_params") or ()
            check_request(params, messages=params["messages"], betas=(INTERLEAVED,), unchecked=unchecked)

    def _once(self, name: str, value: Any, check: Callable[[], object]) -> None:
        key = (name, id(value))
        if key not in self._seen:
            check()
            self._seen[key] = value  # kept, so that no other object gets its id


def _check_params(params: Mapping[str, Any]) -> None:
    if not isinstance(params, Mapping):
        raise InputError(
            f"params is {kind_of(params)}; it has to be a dict.", hint='params={"stop_sequences": ["END"]}'
        )
    extra = params.get("extra_params") or {}
    if not isinstance(extra, Mapping):
        raise InputError(f"extra_params is {kind_of(extra)}; it has to be a dict.")
    # The client brings its own headers, and with them perhaps betas.
    check_names([name for name in params if name != "extra_params"], _OF_A_REQUEST, beta=True)
    check_unchecked_names(extra, {*_OF_A_REQUEST, *params})
    for name, value in params.items():
        if name in _OF_A_REQUEST:
            raise InputError(
                f"params sets {name!r}, which a BatchRequest has itself.", hint=f"BatchRequest(..., {name}=...)"
            )
        if name != "extra_params" and value is not None:
            check_parameter(name, value, beta=name not in parameter_hints(False))


_OWN_PARAMS = ("model", "system", "max_tokens")
_OF_A_REQUEST = ("custom_id", "prompt", "model", "system", "max_tokens")


def _encoded(
    request: BatchRequest,
    position: int,
    checked: _Checked,
    schema_config: Mapping[str, Any] | None,
    *,
    model: str,
    system: System,
    max_tokens: int,
) -> bytes:
    name = f"requests[{position}] ({request.custom_id!r})"
    prompt: object = request.prompt
    if not isinstance(prompt, str | Sequence) or isinstance(prompt, bytes | bytearray):
        raise InputError(
            f"{name} has a prompt of type {type(prompt).__name__}; it is text, a list of content blocks, or a list "
            "of messages.",
            hint=f'BatchRequest({request.custom_id!r}, "...")',
        )
    try:
        if isinstance(prompt, str) and not prompt.strip():
            raise InputError("the prompt has nothing in it.", hint="leave such requests out")
        value = request.to_api_request(model=model, system=system, max_tokens=max_tokens)
        checked.request(request, value["params"])
        if schema_config is not None:
            own = value["params"].get("output_config") or {}
            if own.get("format") is not None:
                raise InputError(
                    "output_schema= and output_config['format'] both say what the answer looks like.",
                    hint="leave one of them out",
                )
            value["params"]["output_config"] = {**own, **schema_config}
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        why = "holds half of a surrogate pair, which is no character"
    except ValueError as error:
        if isinstance(error, InputError):
            raise InputError(f"{name}: {error.what}", error.state, error.hint) from None
        why = "holds a NaN, an infinity, or itself"
    except TypeError as error:
        # json names the type and never the value.
        why = f"cannot be written as JSON: {error}"
    raise InputError(f"{name} {why}.", hint="Convert its values to plain str, int, float, list and dict.")


def task_requests(prompts: Sequence[str]) -> list[BatchRequest]:
    """Return one request for each text, under the id ``task-{i}-{random hex}``; anything but texts is refused."""
    if isinstance(prompts, str | bytes):
        raise InputError("prompts is one text, not a list of texts.", hint="run_prompts([prompt])")
    # Of a dict the keys would be asked, and of a frame the names of its columns.
    is_other = isinstance(prompts, type | Mapping) or hasattr(prompts, "columns")
    if is_other or not isinstance(prompts, Iterable):
        raise InputError(f"prompts is {kind_of(prompts)}, not a list of texts.", hint='run_prompts(df["review"])')
    prompts = list(prompts)
    for position, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise InputError(
                f"prompts[{position}] is {kind_of(prompt)}, not a text.",
                hint="BatchClient().run([BatchRequest(...)])   # for content blocks and conversations",
            )
    return [BatchRequest(f"task-{i}-{secrets.token_hex(4)}", prompt) for i, prompt in enumerate(prompts)]
