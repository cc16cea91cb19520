from __future__ import annotations

import pytest

from memrl.memory.blocks import Block, WorkingContext
from memrl.memory.refusals import Reason, RefusedError


def test_append_begins_a_new_line() -> None:
    block = Block("human").append("Her name is Ana.")
    assert block.text == "Her name is Ana."
    assert block.append("She has a cat.").text == "Her name is Ana.\nShe has a cat."


@pytest.mark.parametrize(
    ("new", "text"),
    [("Eve", "Eve likes tea."), ("", " likes tea."), (r"\1 & <b>", r"\1 & <b> likes tea.")],
)
def test_substitute(new: str, text: str) -> None:
    assert Block("human", "Ana likes tea.").substitute("Ana", new).text == text


@pytest.mark.parametrize(
    ("old", "reason"),
    [
        ("ana", Reason.TEXT_NOT_FOUND),
        ("", Reason.TEXT_NOT_FOUND),
        (".*", Reason.TEXT_NOT_FOUND),
        ("an", Reason.TEXT_AMBIGUOUS),
    ],
)
def test_substitute_refuses(old: str, reason: Reason) -> None:
    block = Block("human", "A man and a cat.")
    with pytest.raises(RefusedError) as caught:
        block.substitute(old, "x")
    assert caught.value.reason is reason
    assert block.text == "A man and a cat."


def test_the_limit_is_in_characters_and_exact() -> None:
    assert Block("human", limit_chars=5).append("12345").text == "12345"
    with pytest.raises(RefusedError, match="6 characters, above its limit of 5") as caught:
        Block("human", "1234", limit_chars=5).append("5")  # the new line counts
    assert caught.value.reason is Reason.BLOCK_FULL
    with pytest.raises(RefusedError, match="above its limit"):
        Block("human", "1234", limit_chars=5).substitute("4", "456")
    with pytest.raises(RefusedError, match="above its limit"):
        Block("human", "123456", limit_chars=5)


@pytest.mark.parametrize("label", ["", "Human", "two words", "a" * 33, 'x", "y', "x\n", "1a"])
def test_labels_are_plain_names(label: str) -> None:
    with pytest.raises(ValueError, match="block label"):
        Block(label)


def test_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="limit_chars"):
        Block("human", limit_chars=0)


def test_working_context_keeps_order_and_exchanges_one() -> None:
    before = WorkingContext([Block("persona", "Helpful."), Block("human")])
    after = before.with_block(Block("persona", "Terse."))
    assert after.labels == before.labels == ("persona", "human")
    assert len(after) == 2
    assert [block.text for block in after] == ["Terse.", ""]
    assert before["persona"].text == "Helpful."
    with pytest.raises(KeyError):
        before.with_block(Block("task"))
    with pytest.raises(ValueError, match="labels differ"):
        WorkingContext([Block("human"), Block("human")])
