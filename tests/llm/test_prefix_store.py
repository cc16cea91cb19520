"""Which beginnings are found again, and which rows leave."""

from __future__ import annotations

import torch

from memrl.llm.causal_model import Prefix
from memrl.llm.prefix_store import PrefixStore


def row(tokens: list[int]) -> Prefix:
    """One layer whose keys are the tokens themselves."""
    keys = torch.tensor(tokens, dtype=torch.float32)[None, :, None]
    return ((keys, -keys),)


def kept(*rows: list[int], max_tokens: int = 100) -> PrefixStore:
    store = PrefixStore(max_tokens)
    for tokens in rows:
        store.keep(tokens, row(tokens))
    return store


def test_the_longest_common_beginning_is_found() -> None:
    store = kept([1, 2, 3, 4], [1, 2, 9], [7])
    length, prefix = store.longest([1, 2, 3, 5, 6])
    assert length == 3
    assert prefix is not None
    assert prefix[0][0][0, :, 0].tolist() == [1, 2, 3]
    assert prefix[0][1][0, :, 0].tolist() == [-1, -2, -3]
    assert store.longest([8, 1]) == (0, None)
    assert PrefixStore(10).longest([1]) == (0, None)


def test_the_last_token_is_always_read_again() -> None:
    assert kept([1, 2, 3]).longest([1, 2, 3])[0] == 2
    assert kept([1]).longest([1]) == (0, None)


def test_a_row_leaves_when_another_continues_it() -> None:
    store = kept([1, 2], [1, 2, 3], [1, 2, 3])
    assert store.num_tokens == 3
    # A shorter row does not drive out the longer one that holds it.
    store.keep([1, 2], row([1, 2]))
    assert store.longest([1, 2, 3, 4])[0] == 3


def test_the_rows_used_longest_ago_leave_first() -> None:
    store = kept([1, 1, 1], [2, 2, 2], [3, 3, 3], max_tokens=9)
    store.longest([1, 1, 1, 5])
    store.keep([4, 4, 4], row([4, 4, 4]))
    assert store.num_tokens == 9
    assert [store.longest([n, n, n, 5])[0] for n in (1, 2, 3, 4)] == [3, 0, 3, 3]
    assert not store.accepts(10)
    assert not PrefixStore(0).accepts(1)
