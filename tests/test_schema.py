"""Structured answers: what is asked for, and answers as typed columns."""

from __future__ import annotations

import datetime as dt
import enum
import io
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jsonschema
import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes
from typing_extensions import TypedDict

import pandas_batch
from pandas_batch import simulator
from pandas_batch.clock import Clock
from pandas_batch.errors import InputError
from pandas_batch.requests.json_schema import misfits, with_single_types
from pandas_batch.requests.schema import OutputSchema
from pandas_batch.requests.text_dtype import text_dtype


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Person(pydantic.BaseModel):
    name: str
    age: int | None = None


class Review(pydantic.BaseModel):
    mood: Mood
    stars: Literal[1, 2, 3]
    score: float
    n: int = 7
    sure: bool
    words: list[str]
    author: Person
    day: dt.date
    at: dt.datetime | None = None
    note: str | None = None
    either: int | str


ANSWER = {
    "mood": "good",
    "stars": 2,
    "score": 0.5,
    "sure": True,
    "words": ["a", "b"],
    "author": {"name": "Ä"},
    "day": "2026-11-23",
    "at": "2026-11-23T09:00:00+01:00",
    "either": "x",
}


class Typed(TypedDict):
    a: int


@dataclass
class Data:
    a: int


def test_answers_become_columns_of_the_types_that_were_asked_for() -> None:
    """Enums become categories, dates datetimes, objects and lists stay whole, and a gap is NA in every type."""
    schema = OutputSchema.of(Review)
    columns, invalid = schema.to_columns([json.dumps(ANSWER), None, json.dumps(ANSWER | {"at": None, "n": 9})])
    assert not invalid
    frame = pd.DataFrame(columns)
    assert list(frame) == list(schema.columns) == list(Review.model_fields)
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        "mood": "category",
        "stars": "category",
        "score": "Float64",
        "n": "Int64",
        "sure": "boolean",
        "words": "object",
        "author": "object",
        "day": "datetime64[us]",
        "at": "datetime64[us, UTC]",
        "note": str(text_dtype()),
        "either": "object",
    }
    assert frame["mood"].cat.categories.tolist() == ["good", "bad"]
    assert frame["words"].tolist() == [["a", "b"], None, ["a", "b"]]
    assert frame["author"][0] == {"name": "Ä", "age": None}
    assert frame["n"].tolist() == [7, pd.NA, 9]
    assert frame["at"][0] == pd.Timestamp("2026-11-23 08:00", tz="UTC")
    assert frame["day"][0] == pd.Timestamp("2026-11-23")
    assert frame.iloc[1].isna().all()
    assert pd.isna(frame["at"][2])


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(Typed, id="TypedDict"),
        pytest.param(Data, id="dataclass"),
        pytest.param({"a": int}, id="names"),
        pytest.param({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, id="JSON schema"),
    ],
)
def test_a_schema_may_be_given_in_any_form(kind: Any) -> None:
    """A TypedDict, a dataclass, names with types and a JSON schema mean the same."""
    columns, invalid = OutputSchema.of(kind).to_columns(['{"a": 1}', '{"a": "x"}', "{}", "[]"])
    assert columns["a"].tolist() == [1, pd.NA, pd.NA, pd.NA]
    assert sorted(invalid) == [1, 2, 3]


def test_fields_may_have_any_name() -> None:
    """Names that Python or pydantic keep for themselves are fine."""
    names = ["class", "model_config", "schema", "_private", "two words", "field_0", "json", "größe", "a.b"]
    schema = OutputSchema.of(dict.fromkeys(names, int))
    assert schema.columns == tuple(names)
    columns, invalid = schema.to_columns([json.dumps({name: i for i, name in enumerate(names)})])
    assert not invalid
    assert [columns[name][0] for name in names] == list(range(len(names)))
    assert list(schema.output_config()["format"]["schema"]["properties"]) == names


def test_what_is_sent_is_the_sdks_transformation_and_what_is_hashed_is_not() -> None:
    """Constraints that the API does not take go into descriptions, and still hold when answers are read."""
    schema = OutputSchema.of({"score": Annotated[float, pydantic.Field(ge=0, le=1, description="how sure")]})
    sent = schema.output_config()["format"]
    assert sent["type"] == "json_schema"
    assert sent["schema"]["properties"]["score"]["description"].startswith("how sure")
    assert "minimum" not in sent["schema"]["properties"]["score"]
    assert schema.canonical["properties"]["score"]["minimum"] == 0
    assert sorted(schema.to_columns(['{"score": 1}', '{"score": 2}'])[1]) == [1]


REFUSED: list[tuple[str, Any, str]] = [
    ("a dict", {"scores": dict[str, int]}, "output_schema['scores'] is an object without named fields"),
    ("a bare dict", {"a": dict}, "output_schema['a'] is an object without named fields"),
    ("Any", {"a": Any}, "output_schema['a'] has no type"),
    ("object", {"a": object}, "output_schema['a'] has no type"),
    ("a bare list", {"a": list}, "output_schema['a'] is a list without a type of items"),
    ("a tuple", {"a": tuple[int, str]}, "output_schema['a'] is a tuple"),
    ("a dict inside a list", {"a": list[dict[str, int]]}, "output_schema['a'][] is an object without named fields"),
    ("a list at the top", list[str], "an answer has to be an object"),
    ("a scalar", int, "an answer has to be an object"),
    ("no fields", pydantic.create_model("Empty"), "output_schema is an object without named fields"),
    ("an array schema", {"type": "array", "items": {"type": "string"}}, "an answer has to be an object"),
    ("an untyped property", {"type": "object", "properties": {"a": {}}}, "output_schema['a'] has no type"),
    (
        "definitions",
        {"type": "object", "properties": {"a": {"$ref": "#/definitions/x"}}, "definitions": {}},
        "'definitions'",
    ),
    ("a dangling reference", {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}}, "not in its '$defs'"),
    ("an unknown type", {"type": "object", "properties": {"a": {"type": "text"}}}, "has the type 'text'"),
    ("an enum of lists", {"type": "object", "properties": {"a": {"enum": [[1]]}}}, "an enum that is empty or holds"),
    ("an empty enum", {"type": "object", "properties": {"a": {"enum": []}}}, "an enum that is empty"),
    (
        "a broken pattern",
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}},
        "pattern",
    ),
    (
        "a wrong limit",
        {"type": "object", "properties": {"a": {"type": "string", "maxLength": "9"}}},
        "'maxLength' that is",
    ),
    ("types as text", {"a": "str"}, "neither types nor a JSON schema"),
    ("mixed", {"a": "str", "b": int}, "output_schema['a'] is a str, not a type"),
    ("nothing", {}, "output_schema is empty"),
    ("text", "sentiment", "output_schema is a str"),
    ("an instance", Person(name="SECRET"), "output_schema is a Person, not a type"),
    ("a type without a schema", {"a": pd.DataFrame}, "output_schema"),
    ("a number as name", {1: int}, "names are text"),
]


class Node(pydantic.BaseModel):
    children: list[Node]


@pytest.mark.parametrize(("schema", "reason"), [(s, r) for _, s, r in REFUSED], ids=[name for name, _, _ in REFUSED])
def test_a_schema_that_would_lose_a_part_is_refused_naming_the_field(schema: Any, reason: str) -> None:
    """The SDK empties some types silently: the field is named before anything is paid for."""
    with pytest.raises(InputError) as caught:
        OutputSchema.of(schema)
    assert reason in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_recursive_schema_is_refused() -> None:
    """The API takes no schema that refers to itself."""
    with pytest.raises(InputError, match="refers to itself"):
        OutputSchema.of(Node)
    with pytest.raises(InputError, match="refers to"):
        OutputSchema.of({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})


def test_rows_that_do_not_fit_say_why_without_quoting_the_answer() -> None:
    """Bad JSON, a wrong value, a cut and a refusal are told apart."""
    schema = OutputSchema.of({"mood": Literal["pos", "neg"], "n": int})
    outputs = ["SECRET", '{"mood": "SECRET", "n": 1}', '{"mood": "po', "I SECRET", '{"mood": "pos", "n": 1}', '{"n": ']
    stops = ["end_turn", "end_turn", "max_tokens", "refusal", "max_tokens", None]
    columns, invalid = schema.to_columns(outputs, stops)
    assert invalid == {
        0: "the answer does not fit output_schema: it is not JSON",
        1: "the answer does not fit output_schema: mood: Input should be 'pos' or 'neg'",
        2: "the answer was cut at max_tokens",
        3: "the model refused to answer",
        5: "the answer does not fit output_schema: it is not JSON",
    }
    assert columns["mood"].tolist()[4] == "pos"
    forbidden = OutputSchema.of(
        pydantic.create_model("M", __config__=pydantic.ConfigDict(extra="forbid"), a=(int, ...))
    )
    strict = OutputSchema.of(
        {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    )
    for one in (forbidden, strict):
        assert "SECRET" not in one.to_columns(['{"a": 1, "SECRET": 2}'])[1][0]


@pytest.mark.parametrize(
    ("field", "fitting", "wrong"),
    [
        ({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 3}]}, [2, 3.5], [5, 2.5, "x"]),
        ({"anyOf": [{"type": "integer"}, {"type": "number", "minimum": 3}]}, [2, 3.5, 5], [2.5, "x"]),
        ({"allOf": [{"type": "integer"}, {"type": "number", "minimum": 3}]}, [3], [2, 3.5]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "abc"], ["a", "abcd"]),
        ({"type": "string", "pattern": "^a"}, ["ab"], ["ba"]),
        ({"type": "string", "format": "date"}, ["2026-11-23"], ["soon", "2026-13-01"]),
        ({"type": "integer", "minimum": 1, "maximum": 3}, [1, 3], [0, 4]),
        ({"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 3}, [2], [1, 3]),
        ({"type": "number", "multipleOf": 0.1}, [0.3, 7, 1e300], [0.35]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3]]),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [[1, 2]], [[1, 1], ["x"]]),
        ({"enum": [1, "a", None]}, [1, "a", None], [True, "b", 0]),
        ({"const": 1}, [1], [True, 2]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_keyword_of_a_json_schema_is_kept(field: dict[str, Any], fitting: list[Any], wrong: list[Any]) -> None:
    """A plain JSON schema has no validator but ours: each of its keywords lets through what fits, and nothing else."""
    schema = OutputSchema.of({"type": "object", "properties": {"v": field}, "required": ["v"]})
    _, invalid = schema.to_columns([json.dumps({"v": value}) for value in [*fitting, *wrong]])
    assert sorted(invalid) == list(range(len(fitting), len(fitting) + len(wrong)))


@pytest.mark.parametrize("number", [str(2**63), "-" + str(2**70), "1" + "0" * 4000])
def test_a_number_that_no_column_can_hold_is_that_rows_error(number: str) -> None:
    """An integer beyond 64 bits makes its own row invalid, not the whole column."""
    for schema in ({"n": int}, {"type": "object", "properties": {"n": {"type": "integer"}}}):
        columns, invalid = OutputSchema.of(schema).to_columns([f'{{"n": {number}}}', '{"n": 5}'])
        assert sorted(invalid) == [0]
        assert columns["n"].tolist() == [pd.NA, 5]


def test_strange_answers_never_raise() -> None:
    """Deep nesting, NaN, duplicate keys and foreign types are reasons, not exceptions."""
    deep = "[" * 100_000
    for schema in ({"n": float}, {"type": "object", "properties": {"n": {"type": "number"}}}):
        _, invalid = OutputSchema.of(schema).to_columns([deep, "null", "", "\ud83d", '{"n": {}}', '{"n": 1e999}'])
        assert {0, 1, 2, 3, 4} <= invalid.keys()


def test_dates_of_any_century_are_kept() -> None:
    """A date before 1677 is a date, and a time without a zone is UTC."""
    columns, invalid = OutputSchema.of({"d": dt.date, "t": dt.datetime}).to_columns(
        ['{"d": "0800-12-25", "t": "1066-10-14T09:00:00"}']
    )
    assert not invalid
    assert str(columns["d"][0]) == "0800-12-25 00:00:00"
    assert str(columns["t"][0]) == "1066-10-14 09:00:00+00:00"


def test_lists_of_types_are_variants() -> None:
    """JSON Schema's list of types is written in the form that the SDK knows."""
    schema = OutputSchema.of({"type": "object", "properties": {"a": {"type": ["string", "null"], "description": "d"}}})
    sent = schema.output_config()["format"]["schema"]["properties"]["a"]
    assert [variant["type"] for variant in sent["anyOf"]] == ["string", "null"]
    columns, invalid = schema.to_columns(['{"a": null}', '{"a": "x"}', '{"a": 1}'])
    assert (columns["a"].tolist(), sorted(invalid)) == ([np.nan, "x", np.nan], [2])
    assert columns["a"].dtype == text_dtype()


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (int | None, "Int64"),
        (float | None, "Float64"),
        (Literal["a", None], "category"),
        (Mood | None, "category"),
        (Literal["one"], "category"),
        (Person | None, "object"),
        (list[Person], "object"),
        (Annotated[str, pydantic.Field(max_length=3)], str(text_dtype())),
        (bool | None, "boolean"),
    ],
)
def test_optional_fields_keep_their_type(kind: Any, dtype: str) -> None:
    """None beside a type makes a gap, not another type."""
    columns, _ = OutputSchema.of({"a": kind}).to_columns([None])
    assert str(columns["a"].dtype) == dtype


# --------------------------------------------------------------------------- the validator of plain JSON schemas

LEAVES = st.one_of(
    st.sampled_from(
        [
            {"type": "string", "minLength": 1, "maxLength": 3},
            {"type": "string", "pattern": "^a"},
            {"type": "integer", "minimum": -2, "exclusiveMaximum": 5},
            {"type": "number", "multipleOf": 0.5},
            {"type": "number", "exclusiveMinimum": 0, "maximum": 3},
            {"type": "boolean"},
            {"type": "null"},
            {"type": ["integer", "null"]},
            {"enum": ["a", 1, None, True]},
            {"const": 0},
            {"$ref": "#/$defs/word"},
        ]
    )
)


def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(
            lambda items, n: {"type": "array", "items": items, "maxItems": n, "uniqueItems": n == 2},
            inner,
            st.integers(0, 3),
        ),
        st.builds(
            lambda a, b, more: {
                "type": "object",
                "properties": {"a": a, "b": b},
                "required": ["a"],
                "additionalProperties": more,
            },
            inner,
            inner,
            st.booleans(),
        ),
        st.builds(
            lambda word, variants: {word: variants},
            st.sampled_from(["anyOf", "oneOf", "allOf"]),
            st.lists(inner, min_size=1, max_size=2),
        ),
    )


SCHEMAS = st.recursive(LEAVES, grown, max_leaves=5)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 6),
        st.sampled_from(["", "a", "ab", "abcd"]),
        st.sampled_from([0.5, 1.0, -0.25]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(SCHEMAS, VALUES)
def test_the_validator_agrees_with_the_reference(schema: dict[str, Any], value: Any) -> None:
    """For every schema of the supported keywords and every value, the verdict is jsonschema's."""
    root = {"$defs": {"word": {"type": "string", "maxLength": 2}}, **schema}
    reference = jsonschema.Draft202012Validator(root).is_valid(value)
    assert (misfits(value, root, root) == "") == reference
    assert jsonschema.Draft202012Validator(with_single_types(root)).is_valid(value) == reference


def test_json_after_a_search_is_the_answer() -> None:
    """The answer is the whole text, or else the last of several texts; a text with words around its JSON is neither."""
    schema = OutputSchema.of({"mood": str})
    texts = ['Let me look.{"mood": "calm"}', 'Look: {"mood": "calm"}', '{"mood": "calm"}', "Well.Well."]
    columns, invalid = schema.to_columns(texts, None, [12, None, None, 5])
    assert columns["mood"].isna().tolist() == [False, True, False, True]
    assert sorted(invalid) == [1, 3]


def test_a_mark_of_the_byte_order_is_passed_over() -> None:
    """JSON that begins with U+FEFF is read, alone and after a search."""
    columns, invalid = OutputSchema.of({"mood": str}).to_columns(
        ['\ufeff{"mood": "calm"}', 'Look.\ufeff{"mood": "calm"}'], None, [None, 5]
    )
    assert (columns["mood"].tolist(), invalid) == (["calm", "calm"], {})


def with_pattern(pattern: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}, "required": ["a"]}


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a|aa)+$", "(.*)*x"])
def test_no_pattern_takes_for_ever(pattern: str) -> None:
    """The time that a pattern takes grows with the text, and with no power of its length."""
    _, invalid = OutputSchema.of(with_pattern(pattern)).to_columns([json.dumps({"a": "a" * 5000 + "!"})])
    assert sorted(invalid) == [0]


def test_a_pattern_of_json_schema_is_taken_or_told() -> None:
    r"""`\p{L}` is a pattern of JSON Schema; what cannot be checked in bounded time is refused with its reason."""
    _, invalid = OutputSchema.of(with_pattern(r"^\p{L}+$")).to_columns(['{"a": "größe"}', '{"a": "5"}'])
    assert sorted(invalid) == [1]
    with pytest.raises(InputError, match="look-around"):
        OutputSchema.of(with_pattern("^(?=a)"))
    with pytest.raises(InputError, match="backreferences"):
        OutputSchema.of(with_pattern(r"(a)\1"))


@pytest.mark.parametrize(
    "pattern",
    ["(a{1,50}){1,50}", "^((a{9}){9}){1,20}$", "(x|(?:b{2,}c){26}){20}", r"([^\]a]{40}){40}", "a{2}{501}"],
)
def test_counts_inside_counts_are_bounded(pattern: str) -> None:
    """What would take seconds for each answer, though its time grows with the text alone, is refused at the call."""
    with pytest.raises(InputError, match="repeats what is repeated"):
        OutputSchema.of(with_pattern(pattern))


@pytest.mark.parametrize(
    "pattern", ["^.{1,5000}$", "(a{1,30}){1,30}", r"(a\{50}){50}", "([a{50}]){50}", "a{50}b{50}c{50}", "(a{50}|b){20}"]
)
def test_one_count_may_be_large(pattern: str) -> None:
    """Only counts that stand inside one another are multiplied; what is escaped or in a class is no count."""
    OutputSchema.of(with_pattern(pattern)).to_columns(['{"a": "a"}'])


def test_patterns_of_pydantic_run_in_bounded_time() -> None:
    """A model whose pattern Python's own engine would look for is refused."""

    class Compiled(pydantic.BaseModel):
        a: str = pydantic.Field(pattern=re.compile("^(a+)+$"))

    class OfPython(pydantic.BaseModel):
        model_config = {"regex_engine": "python-re"}
        a: str = pydantic.Field(pattern="^(a+)+$")

    for model in (Compiled, OfPython):
        with pytest.raises(InputError, match="never come to an end"):
            OutputSchema.of(model)


def test_a_schema_that_is_nested_too_deep_is_told() -> None:
    """However deep a schema is, no error of Python's own comes out."""
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(500):
        deep = {"type": "object", "properties": {"x": deep}, "required": ["x"], "additionalProperties": False}
    with pytest.raises(InputError, match="nested"):
        OutputSchema.of(deep).output_config()


LABELS = ["positive", "negative", "mixed"]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([], "without labels"),
        (["a", "b", "a"], "'a' twice"),
        (["a", 5], "holds 5"),
        (["a", " "], "not blank"),
        (["a", None], "holds None"),
        (["a", "\ud800"], "a label is text"),
        ([["a"]], "a label is text"),
        ({"a", "b"}, "has no order"),
    ],
)
def test_labels_that_are_none_are_refused(labels: Any, reason: str) -> None:
    """Duplicates, blanks and what is no text are refused before anything is sent."""
    with pytest.raises(InputError) as caught:
        parse_and_plan(labels)
    assert reason in str(caught.value)


def parse_and_plan(labels: Any) -> None:
    pd.DataFrame({"p": ["a"]}).claude_batch.preview("p", output_schema=labels)


@given(st.lists(st.text(min_size=1).filter(lambda text: bool(text.strip())), min_size=1, max_size=6, unique=True))
def test_each_label_is_read_back_and_nothing_else_is(labels: list[str]) -> None:
    """Whatever the labels are, the column is a category of them in their order; another word is invalid."""
    schema = OutputSchema.of(labels)
    assert OutputSchema.of(json.loads(schema.text)).text == schema.text == OutputSchema.of(tuple(labels)).text
    outputs = [json.dumps({"label": label}) for label in labels]
    columns, invalid = schema.to_columns([*outputs, '{"label": ""}', "positive", '{"label": ["a"]}', "{}", None])
    assert columns["label"].dtype == pd.CategoricalDtype(labels)
    assert columns["label"].tolist()[: len(labels)] == labels
    assert sorted(invalid) == [len(labels) + i for i in range(4)]


@cut_on_purpose
def test_labels_are_one_category_column(api: simulator.Simulator, clock: Clock) -> None:
    """Of rows of every outcome the column holds a label or none; load, merge, retry and files keep its categories."""
    plan_outcomes(api)
    api.answer = lambda params: {"label": LABELS[len(params["messages"][-1]["content"]) % 3]}
    frame = all_outcomes()
    run = ask(frame, api, clock, output_schema=LABELS, schema_prefix="is_", name="labels")
    out = run.result()
    dtype = pd.CategoricalDtype(LABELS)
    assert out["is_label"].dtype == dtype
    assert (out["is_label"].notna() == (out["status"] == "succeeded")).all()
    labels = out["is_label"].tolist()
    for again in (
        pandas_batch.load(run.id).result(),
        frame.claude_batch.merge(run.id),
        ask(out, api, clock, output_schema=LABELS, schema_prefix="is_", name="labels").result(),
        ask(pd.read_csv(io.StringIO(out.to_csv()), index_col="label"), api, clock, output_schema=LABELS,
            schema_prefix="is_", name="labels").result(),
    ):  # fmt: skip
        assert again["is_label"].dtype == dtype
        assert again["is_label"].astype(object).fillna("").tolist() == pd.Series(labels).fillna("").tolist()
    api.faults.clear()
    healed = run.retry_failed(errors="all").result()
    assert healed["is_label"].dtype == dtype
    assert healed["is_label"].notna().sum() == (healed["status"] == "succeeded").sum() > out["is_label"].notna().sum()
    lists = ask(frame, api, clock, output_schema=LABELS, schema_prefix="is_", samples=2).result()["is_label"]
    assert {label for both in lists for label in both} <= {*LABELS, np.nan, None}


def test_labels_are_asked_for_as_an_enum() -> None:
    """Over the wire they are an object of one field with an enum."""
    (request,) = pd.DataFrame({"p": ["a"]}).claude_batch.preview("p", output_schema=LABELS)
    field = request["params"]["output_config"]["format"]["schema"]["properties"]["label"]
    assert field["enum"] == LABELS
