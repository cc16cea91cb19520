"""The back end of tests: replies in order, by a function, and their end."""

from __future__ import annotations

import pytest

from memrl.llm.backend import BackendError, ChatMessage, Reply, Request, ToolCall
from memrl.llm.scripted import ScriptedBackend

ASK = Request((ChatMessage("user", "where is the key"),))


def test_replies_come_in_order_and_end() -> None:
    call = Reply("", calls=(ToolCall("evict", "{}"),))
    backend = ScriptedBackend(["one", call])
    assert backend.complete([ASK, ASK]) == [Reply("one"), call]
    with pytest.raises(BackendError, match="script has ended"):
        backend.complete([ASK])
    assert backend.requests == [ASK] * 3


def test_a_function_replies_and_scores() -> None:
    backend = ScriptedBackend(
        lambda request: request.messages[-1].content.upper(),
        scores=lambda request: [-float(len(choice)) for choice in request.choices],
    )
    assert backend.complete([ASK])[0].text == "WHERE IS THE KEY"
    choices = Request(ASK.messages, choices=("a", "bcd"))
    assert backend.score([choices])[0].log_likelihoods == (-1.0, -3.0)
    assert backend.count_tokens(ASK.messages) == 4


def test_without_scores_scoring_is_refused() -> None:
    backend = ScriptedBackend()
    assert not backend.can_score
    with pytest.raises(BackendError, match="no scores"):
        backend.score([ASK])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"messages": ()}, "at least one message"),
        ({"tools": ({},), "choices": ("a",)}, "not both"),
        ({"max_reply_tokens": 0}, "max_reply_tokens"),
    ],
)
def test_requests_that_nobody_could_reply_to_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Request(**{"messages": ASK.messages, **settings})  # type: ignore[arg-type]
