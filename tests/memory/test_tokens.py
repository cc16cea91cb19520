from __future__ import annotations

from pathlib import Path

import pytest
import table_fixtures  # noqa: F401 - loads the deterministic hypothesis profile
from hypothesis import given
from hypothesis import strategies as st
from minilm_files import minilm_folder

from memrl.memory.tokens import (
    TokenizerError,
    count_tokens,
    transformers_token_counter,
    truncate,
)

SENTENCES = [
    "Ana: I adopted a grey kitten last week, and she already sleeps on my keyboard!",
    "Ben: That's so cute 😂 What did you name her? My sister's dogs would be jealous.",
    "Ana: Her name is Biscuit. We went to the vet on 12 March 2023 at 7:30 in the morning.",
    "The aquarium of Lisbon, opened in 1998, shows about 8,000 animals of 500 species.",
    "An extraordinarily uncharacteristic misunderstanding delayed the refurbishment.",
    "Café, naïve, Zürich: accents are common in names.",
    '"9f4a92b9-5f69-4725-ba1e-403f08dea695": "703a7ce5-f17f-4e6d-b895-5836ba5ec71c"',
]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        (" \n\t", 0),
        ("Hello, world!", 4),
        ("extraordinarily", 2),
        ("in 2023", 3),
        ("7:30", 3),
        ("snake_case", 3),
        ("a3f9", 4),
        ("Zürich", 1),
        ("你好 мир", 5),
        ("😂", 1),
    ],
)
def test_count_tokens(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


def test_estimate_is_close_to_the_tokenizer() -> None:
    exact = transformers_token_counter(minilm_folder())
    estimated = [count_tokens(text) for text in SENTENCES]
    true = [exact(text) for text in SENTENCES]
    assert sum(estimated) == pytest.approx(sum(true), rel=0.05)
    assert estimated == pytest.approx(true, rel=0.25, abs=2)


def test_exact_counter_leaves_out_special_tokens_and_has_no_limit() -> None:
    exact = transformers_token_counter(minilm_folder())
    assert exact("") == 0
    assert exact("hello world") == 2
    assert exact("hello " * 3000) == 3000


def test_a_missing_tokenizer_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("nobody/no-such-model", str(tmp_path)):
        with pytest.raises(TokenizerError, match="cannot be loaded") as caught:
            transformers_token_counter(name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_truncate_keeps_the_longest_prefix() -> None:
    assert truncate("one two three", 3, count_tokens) == "one two three"
    assert truncate("one two three", 2, count_tokens) == "one two "
    assert (
        truncate("one two three four", 3, count_tokens, marker=" ...")
        == "one two three four"[:0] + " ..."
    )
    assert truncate("one two three four five", 4, count_tokens, marker=" ...") == "one  ..."


def test_truncate_leaves_out_a_marker_that_does_not_fit() -> None:
    assert truncate("one two three", 2, count_tokens, marker="[cut here]") == "one two "
    assert truncate("one two three", 0, count_tokens, marker="[cut here]") == ""


def test_truncate_refuses_a_limit_that_nothing_fits() -> None:
    with pytest.raises(ValueError, match="No text fits"):
        truncate("one", 1, lambda text: count_tokens(text) + 2)


@given(st.text(), st.integers(0, 40), st.sampled_from(["", " [cut]"]))
def test_truncate_holds_the_limit(text: str, limit_tokens: int, marker: str) -> None:
    cut = truncate(text, limit_tokens, count_tokens, marker=marker)
    assert count_tokens(cut) <= limit_tokens
    assert (cut == text) or (cut.endswith(marker) or count_tokens(marker) > limit_tokens)
    if count_tokens(text) <= limit_tokens:
        assert cut == text
    elif count_tokens(marker) <= limit_tokens:
        longer = text[: len(cut) - len(marker) + 1] + marker
        assert count_tokens(longer) > limit_tokens or longer == text + marker


@pytest.mark.parametrize("filler", ["word ", "x", " " * 9 + "a"])
def test_truncate_counts_little_of_a_long_text(filler: str) -> None:
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return count_tokens(text)

    cut = truncate(filler * 1_000_000, 100, count)
    assert count_tokens(cut) == 100
    assert counted < 100_000
