"""Other parameters for requests that are written down already: their new bytes, and their new fingerprints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any

import numpy as np

from pandas_batch.errors import InputError

from .certain_refusals import check_request
from .contents import digested
from .fingerprints import fingerprint_json, fingerprint_strings
from .groups import cached_system, digest_of
from .media import digest_of as digest_of_bytes
from .options import Options
from .parameters import check_names, check_parameter

_OF_A_REQUEST = ("model", "max_tokens", "system")
_OF_A_HANDLE = frozenset(
    {"client", "columns", "overwrite", "poll_interval", "prefix", "prices", "progress", "schema_prefix", "timeout"}
)


@dataclass(frozen=True)
class Changes:
    """
    Parameters of requests, to be changed in each of them.

    Attributes
    ----------
    given
        Name to checked value; None removes a parameter.
    options
        The options of the run that wrote the requests, as it is recorded.
    base_url, api_version
        Where the requests go, and the API version they speak.
    """

    given: Mapping[str, Any]
    options: Mapping[str, Any]
    base_url: str
    api_version: str

    @classmethod
    def of(
        cls, overrides: Mapping[str, Any], options: Mapping[str, Any], *, base_url: str, api_version: str
    ) -> Changes:
        """
        Check what the caller wants changed.

        Raises
        ------
        UnknownOptionError
            There is no such parameter.
        InputError
            An option of `submit` that is no parameter of a request, or a value that the parameter does not take.
        """
        is_beta = bool(options.get("betas"))
        of_submit = {field.name for field in fields_of(Options)} - {*_OF_A_REQUEST, "params"}
        for name in overrides:
            if name in of_submit:
                way = "attach(run.id, {0}=...).retry_failed()" if name in _OF_A_HANDLE else "submit(..., {0}=...)"
                raise InputError(
                    f"A retry cannot change {name}=: it sends the same prompts again, with other parameters at most.",
                    hint=f"df.claude_batch.{way.format(name)}",
                )
        check_names([name for name in overrides if name not in _OF_A_REQUEST], _OF_A_REQUEST, beta=is_beta)
        given = {name: check_parameter(name, value, beta=is_beta) for name, value in overrides.items()}
        changes = cls(given, options, base_url, api_version)
        if changes._has_schema and (given.get("output_config") or {}).get("format") is not None:
            raise InputError(
                "output_schema= and output_config['format'] both say what the answer looks like.",
                hint='output_config={"effort": "low"}   # the schema stays as it is',
            )
        if options.get("cache_system") and given.get("system"):
            given["system"] = cached_system(given["system"])
        return changes

    @property
    def _has_schema(self) -> bool:
        # What `output_schema` was stands under its own name in the stores of earlier versions.
        names = {*self.options, *self.options.get("not_remembered", ())}
        return not names.isdisjoint({"schema_json", "output_schema"})

    def apply(self, body: bytes) -> tuple[bytes, np.ndarray]:
        """Return the changed params of a request as JSON bytes, and the fingerprint of a submit that sends them."""
        import msgspec

        before = msgspec.json.decode(body)
        params = {name: value for name, value in (before | self.given).items() if value is not None}
        if self._has_schema and "output_config" in self.given:
            params["output_config"] = {
                **(self.given["output_config"] or {}),
                "format": before["output_config"]["format"],
            }
        check_request(
            params,
            messages=params["messages"],
            betas=tuple(self.options.get("betas") or ()),
            unchecked=set(self.options.get("extra_params") or ()) - set(self.given),
            where="With these changes",
        )
        # Only the top level is sorted: models write the fields of a schema in the order in which they stand.
        encoded = msgspec.json.encode(dict(sorted(params.items())))
        return encoded, self._fingerprint(params)

    def going_on(self, body: bytes, content: Sequence[Any], *, goes_on_already: bool) -> tuple[bytes, np.ndarray]:
        """
        Return the request that lets an answer go on, and its fingerprint.

        Parameters
        ----------
        body
            The params of the request whose answer has paused.
        content
            The content blocks of that answer, as they came
            (https://platform.claude.com/docs/en/api/handling-stop-reasons#pause_turn).
        goes_on_already
            Whether that request let an earlier part go on: then both are sent back as one message.
        """
        import msgspec

        params = msgspec.json.decode(body)
        messages = list(params["messages"])
        before = messages.pop()["content"] if goes_on_already else []
        params["messages"] = [*messages, {"role": "assistant", "content": [*before, *content]}]
        return msgspec.json.encode(params), self._fingerprint(params)

    def from_the_start(self, body: bytes) -> bytes:
        """Return the params of a request that lets an answer go on as they were when the answer began."""
        import msgspec

        params = msgspec.json.decode(body)
        return msgspec.json.encode(params | {"messages": params["messages"][:-1]})

    def _fingerprint(self, params: dict[str, Any]) -> np.ndarray:
        on_wire = {name: value for name, value in params.items() if name != "messages"}
        n_earlier = 2 * len(self.options.get("few_shot") or ())
        earlier, own = params["messages"][:n_earlier], params["messages"][n_earlier:]
        digest = digest_of(
            on_wire,
            earlier,
            schema_text=self.options.get("schema_json"),
            betas=tuple(self.options.get("betas") or ()),
            base_url=self.base_url,
            api_version=self.api_version,
        )
        if len(own) > 1 or own[0].keys() != {"role", "content"}:
            content: Any = {"messages": [self._as_given(message) for message in own]}
        elif isinstance(own[0]["content"], str):
            return np.asarray(fingerprint_strings(digest, [own[0]["content"].encode()])[0])
        else:
            content = [self._as_given(block) for block in own[0]["content"]]
        return np.frombuffer(fingerprint_json(digest, content), np.uint8)

    def _as_given(self, value: Any) -> Any:
        """Return blocks or messages as they count in a fingerprint: what was attached as the caller's bytes."""
        value = digested(value)
        return _with_text_files(value) if self.options.get("documents_col") is not None else value


def _with_text_files(value: Any) -> Any:
    """Return blocks or messages with the text files among their documents as the bytes of a file."""
    if isinstance(value, list):
        return [_with_text_files(item) for item in value]
    if not isinstance(value, dict):
        return value
    source = value.get("source")
    if value.get("type") == "document" and isinstance(source, dict) and source.get("type") == "text":
        data = str(source["data"]).encode()
        kept = {name: item for name, item in source.items() if name != "data"}
        return value | {"source": kept | {"type": "content", "digest": digest_of_bytes(data)}}
    return {name: _with_text_files(item) for name, item in value.items()}
