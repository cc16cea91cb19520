"""Held to choices and to schemas: whatever a model would like to write."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tiny_lm import tiny_tokenizer

from memrl.llm.backend import BackendError, ToolCall
from memrl.llm.call_text import read_calls
from memrl.llm.constraints import CallGrammar, Constraint, OneOf
from memrl.memory.schemas import memory_functions

MEMORY_TOOLS = tuple(function.schema() for function in memory_functions(["human"]).values())
STOP = 2


def tool(**properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def grammar(tokenizer: Any) -> CallGrammar:
    pytest.importorskip("llguidance")
    return CallGrammar(tokenizer, len(tokenizer), [STOP])


def played(constraint: Constraint, limit: int, rng: np.random.Generator) -> list[int]:
    """A reply by somebody who writes at random, with a bias against ends."""
    reply = constraint.begin()
    while not constraint.is_done:
        allowed = np.flatnonzero(constraint.allowed())
        assert len(allowed)
        reply += constraint.accept(int(rng.choice(allowed)), limit - len(reply))
        assert len(reply) <= limit or isinstance(constraint, OneOf)
    return reply


# ---------------------------------------------------------------------- calls


@pytest.mark.parametrize("limit", [45, 60, 200])
def test_whoever_writes_a_call_follows_and_it_fits(
    grammar: CallGrammar, tokenizer: Any, limit: int
) -> None:
    functions = memory_functions(["human"])
    rng = np.random.default_rng(limit)
    names = set()
    for _ in range(30):
        constraint = grammar.constraint(MEMORY_TOOLS)
        assert constraint.shortest <= 45
        reply = played(constraint, limit, rng)
        words, (call,) = read_calls(tokenizer.decode(reply))
        assert words == ""
        arguments = json.loads(call.arguments)
        schema = functions[call.name].schema()["function"]["parameters"]
        assert set(schema["required"]) <= set(arguments) <= set(schema["properties"])
        for name, value in arguments.items():
            if schema["properties"][name]["type"] != "string":
                functions[call.name].check({**_valid(schema), name: value})
        names.add(call.name)
    assert len(names) > 3


def _valid(schema: dict[str, Any]) -> dict[str, Any]:
    examples = {"string": "x", "integer": 1, "boolean": True}
    properties = schema["properties"]
    return {
        name: (properties[name].get("enum") or [_example(properties[name], examples)])[0]
        for name in schema["required"]
    }


def _example(schema: dict[str, Any], examples: dict[str, Any]) -> Any:
    return "2024-01-31" if schema.get("format") == "date" else examples[schema["type"]]


@pytest.mark.parametrize(
    ("properties", "pattern"),
    [
        ({"x": {"type": "integer", "minimum": 3, "maximum": 5}}, r'{"x": [345]}'),
        ({"x": {"enum": ["a", "b}}"]}}, r'{"x": "(a|b}})"}'),
        ({"x": {"type": "boolean"}, "y": {"type": "null"}}, r'{"x": (true|false), "y": null}'),
        ({"x": {"type": "string", "minLength": 2, "maxLength": 3}}, r'{"x": ".{2,12}"}'),
        ({"x": {"type": "string", "pattern": "^[0-9]{4}$"}}, r'{"x": "[0-9]{4}"}'),
        ({"x": {"type": "array", "items": {"enum": [1]}, "minItems": 1}}, r'{"x": \[1(, 1)*\]}'),
        ({"x": {"type": "number"}}, r'{"x": -?[0-9.eE+-]+}'),
        ({"x": {"type": "object", "properties": {}}}, r'{"x": {.*}}'),
    ],
)
def test_schemas_are_kept_to_the_last_token(
    grammar: CallGrammar, tokenizer: Any, properties: dict[str, Any], pattern: str
) -> None:
    shortest = grammar.constraint([tool(**properties)]).shortest
    for seed in range(20):
        rng = np.random.default_rng(seed)
        limit = shortest + seed
        reply = played(grammar.constraint([tool(**properties)]), limit, rng)
        (call,) = read_calls(tokenizer.decode(reply))[1]
        json.loads(call.arguments)
        assert re.fullmatch(pattern, call.arguments, re.DOTALL), call.arguments


def test_a_schema_may_refer_to_itself(grammar: CallGrammar, tokenizer: Any) -> None:
    asked = tool(x={"$ref": "#/$defs/node"})
    asked["function"]["parameters"]["$defs"] = {
        "node": {
            "type": "object",
            "properties": {"n": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
            "required": ["n"],
            "additionalProperties": False,
        }
    }
    reply = played(grammar.constraint([asked]), 80, np.random.default_rng(0))
    value = json.loads(read_calls(tokenizer.decode(reply))[1][0].arguments)["x"]
    while value is not None:
        assert list(value) == ["n"]
        value = value["n"]


def test_arguments_that_no_schema_names_are_not_written(
    grammar: CallGrammar, tokenizer: Any
) -> None:
    for parameters in ({"parameters": {"type": "object", "properties": {}}}, {}):
        asked = {"type": "function", "function": {"name": 'say "it"', **parameters}}
        reply = played(grammar.constraint([asked]), 60, np.random.default_rng(0))
        # A name with quotes is written in escapes.
        assert read_calls(tokenizer.decode(reply))[1] == (ToolCall('say "it"', "{}"),)


def test_schemas_that_are_no_grammar_are_refused(grammar: CallGrammar) -> None:
    with pytest.raises(BackendError, match="No grammar can be made"):
        grammar.constraint([tool(x={"type": "nonsense"})])


def test_without_the_library_the_error_names_the_extra(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(BackendError, match=r"pip install 'memrl\[llm\]', or pass constrained"):
        CallGrammar(tokenizer, len(tokenizer), [STOP])


# ---------------------------------------------------------------------- choices

TEXTS = [[5, 6], [5, 6, 7], [5, 8], [9]]


def one_of(texts: Sequence[Sequence[int]]) -> OneOf:
    return OneOf(texts, [STOP], 12)


def test_a_choice_goes_on_only_as_one_of_the_texts_does() -> None:
    choice = one_of(TEXTS)
    assert choice.begin() == []
    assert np.flatnonzero(choice.allowed()).tolist() == [5, 9]
    assert choice.accept(5, 1) == [5]
    assert np.flatnonzero(choice.allowed()).tolist() == [6, 8]
    assert choice.accept(6, 1) == [6]
    # Here one text ends and another goes on.
    assert np.flatnonzero(choice.allowed()).tolist() == [STOP, 7]
    assert choice.accept(STOP, 1) == []
    assert choice.chosen == 0


def test_what_is_decided_is_written_at_once() -> None:
    choice = one_of(TEXTS)
    choice.begin()
    assert choice.accept(9, 1) == [9]
    assert (choice.is_done, choice.chosen) == (True, 3)
    choice = one_of([[5, 6, 7, 8], [5, 6, 9, 8]])
    assert choice.begin() == [5, 6]
    assert choice.accept(9, 1) == [9, 8]
    assert choice.chosen == 1


def test_one_choice_equal_ones_and_none_at_all() -> None:
    cases: list[list[list[int]]] = [[[5, 6]], [[5, 6], [5, 6]], [[]]]
    for texts in cases:
        choice = one_of(texts)
        assert choice.begin() == texts[0]
        assert (choice.is_done, choice.chosen) == (True, 0)


def test_all_choices_can_be_reached() -> None:
    texts = [*TEXTS, [5], [5, 6, 7, 1]]
    found = set()
    for seed in range(60):
        choice = one_of(texts)
        reply = played(choice, 9, np.random.default_rng(seed))
        assert choice.chosen is not None
        assert reply == texts[choice.chosen]
        found.add(choice.chosen)
    assert found == set(range(len(texts)))
