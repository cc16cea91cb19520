from __future__ import annotations

import pytest
from external_fakes import ListRecall
from live_fixtures import make_executor, make_main, make_queue

from memrl.errors import MemrlError
from memrl.memory.chain import Chain
from memrl.memory.refusals import Reason

INSERT = '{"content": "x", "request_heartbeat": true}'


def test_it_is_open_until_a_result_without_heartbeat() -> None:
    chain = Chain(make_executor())
    assert chain.call("archival_memory_insert", INSERT).heartbeat
    assert chain.call("archival_memory_insert", "not JSON").heartbeat  # forced
    assert (chain.is_open, chain.num_heartbeats) == (True, 2)
    assert not chain.call("send_message", {"message": "Done."}).heartbeat
    assert (chain.is_open, chain.num_heartbeats) == (False, 2)


@pytest.mark.parametrize(
    ("name", "arguments"), [("archival_memory_insert", INSERT), ("nonsense", None)]
)
def test_no_model_keeps_a_turn_going_for_ever(name: str, arguments: str | None) -> None:
    chain = Chain(make_executor())
    results = []
    while chain.is_open:
        results.append(chain.call(name, arguments))
    assert len(results) == 17  # the first call and one for each of 16 heartbeats
    assert [result.heartbeat for result in results] == [True] * 16 + [False]
    assert results[-1].text.endswith("This turn has had its 16 heartbeats and ends here.")


def test_a_single_call() -> None:
    chain = Chain(make_executor(), max_heartbeats=0)
    assert not chain.call("archival_memory_insert", INSERT).heartbeat
    assert not chain.is_open
    with pytest.raises(ValueError, match="max_heartbeats"):
        Chain(make_executor(), max_heartbeats=-1)


def test_a_call_after_the_end_has_no_effect() -> None:
    executor = make_executor()
    chain = Chain(executor)
    chain.call("send_message", {"message": "Done."})
    before = executor.queue.main.messages()
    result = chain.call("core_memory_append", {"name": "human", "content": "late"})
    assert (result.status, result.reason) == ("failed", Reason.CHAIN_ENDED)
    assert not result.heartbeat
    assert executor.queue.main.messages() == before
    assert executor.queue.main.working["human"].text == ""
    assert executor.refusals == {Reason.CHAIN_ENDED: 1}


def test_calls_and_results_enter_the_queue_and_recall() -> None:
    recall = ListRecall()
    executor = make_executor(make_queue(make_main(900), recall=recall))
    chain = Chain(executor)
    executor.queue.append("What did I say on cats?", "user")
    chain.call("conversation_search", '{"query": "cats", "request_heartbeat": true}')
    chain.call("evict", {"page_id": 0, "request_heartbeat": True})
    chain.call("evict", {"page_id": {1, 2}})
    chain.call(None, None)
    chain.call("send_message", {"message": "Nothing, yet."})
    messages = executor.queue.main.messages()[1:]
    names = ", ".join(executor.functions)
    assert [(message["role"], message["content"].partition("\n")[0]) for message in messages] == [
        ("assistant", 'conversation_search({"query": "cats", "request_heartbeat": true})'),
        ("tool", "Showing 1 of 1 results (page 0/0)."),
        ("assistant", 'evict({"page_id": 0, "request_heartbeat": true})'),
        ("tool", "Page 0 has left this context."),
        ("assistant", "evict(arguments that are not JSON)"),
        ("tool", "Failed: page_id must be an integer, not a value of type set."),
        ("assistant", "(null)"),
        ("tool", f"Failed: There is no function of type NoneType: call one of {names}."),
        ("assistant", "Nothing, yet."),
    ]
    roles = [page.role for page in recall.pages.values()]
    assert roles == ["user", *["call", "result"] * 4, "assistant"]


def test_calls_need_not_be_logged() -> None:
    executor = make_executor()
    Chain(executor, logs_calls=False).call("send_message", {"message": "Hi"})
    assert executor.queue.main.core.queue == []


def test_a_call_that_cannot_be_logged_has_run_and_its_result_is_kept() -> None:
    recall = ListRecall()
    chain = Chain(make_executor(make_queue(recall=recall)))
    assert (chain.last_result, chain.is_open) == (None, True)
    recall.is_broken = True
    with pytest.raises(MemrlError, match="recall is full"):
        chain.call("archival_memory_insert", {"content": "Ana"})
    assert chain.executor.archival.search("Ana", page=0, page_size=5).total == 1
    assert chain.last_result is not None
    assert chain.last_result.status == "ok"
    assert not chain.is_open
