from __future__ import annotations

import json
from typing import Any

import pytest
import table_fixtures  # noqa: F401 - loads the deterministic hypothesis profile
from hypothesis import given
from hypothesis import strategies as st

from memrl.memory.columns import LIMIT_INTEGER
from memrl.memory.refusals import Reason, RefusedError
from memrl.memory.schemas import (
    HEARTBEAT,
    LIMIT_TEXT_CHARS,
    Parameter,
    memory_functions,
)

FUNCTIONS = memory_functions(("persona", "human"))
NAMES = [
    "send_message",
    "core_memory_append",
    "core_memory_replace",
    "conversation_search",
    "conversation_search_date",
    "archival_memory_insert",
    "archival_memory_search",
    "retrieve",
    "evict",
]
VALID: dict[str, dict[str, Any]] = {
    "send_message": {"message": "Hi"},
    "core_memory_append": {"name": "human", "content": "Ana"},
    "core_memory_replace": {"name": "human", "old_content": "Ana", "new_content": ""},
    "conversation_search": {"query": "cat"},
    "conversation_search_date": {"start_date": "2024-02-29", "end_date": "2024-03-01"},
    "archival_memory_insert": {"content": "Ana has a cat."},
    "archival_memory_search": {"query": "pets"},
    "retrieve": {"page_id": 3},
    "evict": {"page_id": 3},
}


def test_the_set_and_where_heartbeats_belong() -> None:
    assert list(FUNCTIONS) == NAMES
    with_heartbeat = [
        name for name, f in FUNCTIONS.items() if HEARTBEAT in {p.name for p in f.parameters}
    ]
    assert with_heartbeat == NAMES[1:]


def test_without_blocks_nothing_edits_them() -> None:
    assert list(memory_functions(())) == [n for n in NAMES if not n.startswith("core_memory")]


def test_a_schema_in_full() -> None:
    heartbeat = FUNCTIONS["retrieve"].schema()["function"]["parameters"]["properties"][HEARTBEAT]
    assert heartbeat["type"] == "boolean"
    assert json.loads(json.dumps(FUNCTIONS["conversation_search"].schema())) == {
        "type": "function",
        "function": {
            "name": "conversation_search",
            "description": FUNCTIONS["conversation_search"].description,
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {
                        "type": "string",
                        "description": "Words to look for.",
                        "minLength": 1,
                        "maxLength": LIMIT_TEXT_CHARS,
                    },
                    "page": {
                        "type": "integer",
                        "description": "Which page of results, from 0.",
                        "minimum": 0,
                        "maximum": LIMIT_INTEGER,
                    },
                    HEARTBEAT: heartbeat,
                },
                "required": ["query"],
                "additionalProperties": False,
            },
        },
    }


@pytest.mark.parametrize("name", NAMES)
def test_least_and_most_arguments_are_accepted(name: str) -> None:
    function = FUNCTIONS[name]
    schema = function.schema()["function"]["parameters"]
    assert sorted(VALID[name]) == sorted(schema["required"])
    function.check(VALID[name])
    extras: dict[str, Any] = {"page": 0, HEARTBEAT: True}
    function.check(VALID[name] | {k: extras[k] for k in schema["properties"] if k in extras})


@pytest.mark.parametrize("name", NAMES)
def test_each_missing_or_added_argument_is_refused(name: str) -> None:
    function = FUNCTIONS[name]
    for missing in VALID[name]:
        with pytest.raises(RefusedError, match=f"needs the argument {missing}") as caught:
            function.check({k: v for k, v in VALID[name].items() if k != missing})
        assert caught.value.reason is Reason.MISSING_ARGUMENT
    for added in ("minutes", 7, None, "\ud800" * 99):
        with pytest.raises(RefusedError, match="has no argument") as caught:
            function.check(VALID[name] | {added: 1})
        assert caught.value.reason is Reason.UNKNOWN_ARGUMENT
        assert len(str(caught.value)) < 600
        str(caught.value).encode()


@pytest.mark.parametrize(
    ("name", "argument", "value", "reason"),
    [
        ("retrieve", "page_id", True, Reason.WRONG_TYPE),
        ("retrieve", "page_id", 3.0, Reason.WRONG_TYPE),
        ("retrieve", "page_id", "3", Reason.WRONG_TYPE),
        ("retrieve", "page_id", None, Reason.WRONG_TYPE),
        ("retrieve", "page_id", float("nan"), Reason.WRONG_TYPE),
        ("retrieve", "page_id", -1, Reason.OUT_OF_RANGE),
        ("retrieve", "page_id", LIMIT_INTEGER + 1, Reason.OUT_OF_RANGE),
        pytest.param("retrieve", "page_id", 10**5000, Reason.OUT_OF_RANGE, id="5,001 digits"),
        ("conversation_search", "page", -1, Reason.OUT_OF_RANGE),
        ("conversation_search", "query", " \n\t", Reason.BLANK_TEXT),
        ("conversation_search", "query", "", Reason.BLANK_TEXT),
        ("conversation_search", "query", ["cat"], Reason.WRONG_TYPE),
        ("conversation_search", HEARTBEAT, 1, Reason.WRONG_TYPE),
        ("conversation_search", HEARTBEAT, "true", Reason.WRONG_TYPE),
        ("core_memory_append", "name", "Human", Reason.NOT_A_CHOICE),
        ("core_memory_append", "name", "", Reason.NOT_A_CHOICE),
        ("core_memory_append", "name", 0, Reason.WRONG_TYPE),
        ("archival_memory_insert", "content", "x" * (LIMIT_TEXT_CHARS + 1), Reason.TEXT_TOO_LONG),
        ("conversation_search_date", "start_date", "2023-02-29", Reason.NOT_A_DATE),
        ("conversation_search_date", "start_date", "20240229", Reason.NOT_A_DATE),
        ("conversation_search_date", "start_date", "2024-W09-4", Reason.NOT_A_DATE),
        ("conversation_search_date", "start_date", "2024-02-29T00:00", Reason.NOT_A_DATE),
        ("conversation_search_date", "start_date", "٢٠٢٤-٠٢-٢٩", Reason.NOT_A_DATE),
        ("conversation_search_date", "start_date", "0000-01-01", Reason.NOT_A_DATE),
        ("conversation_search_date", "start_date", "2024-02-29\n", Reason.NOT_A_DATE),
        ("conversation_search_date", "start_date", 20240229, Reason.WRONG_TYPE),
    ],
)
def test_values_that_are_refused(name: str, argument: str, value: object, reason: Reason) -> None:
    with pytest.raises(RefusedError, match=argument) as caught:
        FUNCTIONS[name].check(VALID[name] | {argument: value})
    assert caught.value.reason is reason


def test_bounds_are_values() -> None:
    FUNCTIONS["retrieve"].check({"page_id": LIMIT_INTEGER})
    FUNCTIONS["archival_memory_insert"].check({"content": "x" * LIMIT_TEXT_CHARS})


@given(st.text() | st.integers() | st.booleans() | st.floats() | st.none() | st.lists(st.none()))
def test_checks_accept_exactly_what_json_schema_types_say(value: object) -> None:
    accepted = {}
    for kind in ("text", "date", "integer", "boolean"):
        try:
            Parameter("value", kind, "").check(value)
        except RefusedError:
            accepted[kind] = False
        else:
            accepted[kind] = True
    assert accepted["boolean"] == (value is True or value is False)
    assert accepted["integer"] == (type(value) is int and 0 <= value <= LIMIT_INTEGER)
    assert accepted["text"] == (isinstance(value, str) and value.strip() != "")
    assert not accepted["date"]
