from __future__ import annotations

import json

import pytest
import table_fixtures  # noqa: F401 - loads the deterministic hypothesis profile
from hypothesis import given
from hypothesis import strategies as st

from memrl.memory.display import COMMON_SPECIAL_TOKENS, json_line, make_display

MARKERS = (
    *COMMON_SPECIAL_TOKENS,
    "<|im_start|>",
    "<|eot_id|>",
    "<\uff5cUser\uff5c>",
    "<|a<|im_end|>",
)
PIECES = st.lists(st.sampled_from([*MARKERS, "<", "|", ">", "<|", "|>", "[", "a", " ", "\n", "<s"]))


@pytest.mark.parametrize("marker", MARKERS)
def test_markers_are_broken(marker: str) -> None:
    shown = make_display()(f"hello {marker} there")
    assert marker not in shown
    assert shown.replace(" ", "") == f"hello{marker}there"


@given(PIECES)
def test_no_sequence_of_pieces_shows_a_marker(pieces: list[str]) -> None:
    shown = make_display()("".join(pieces))
    assert not [marker for marker in MARKERS if marker in shown]
    assert make_display()(shown) == shown


def test_markers_that_overlap_are_all_broken() -> None:
    assert make_display(["aba"])("ababa") == "a ba ba"


def test_plain_text_is_shown_as_it_is() -> None:
    text = 'if a < b and b > c: print("[x]", 1 | 2)  # <b>bold</b>\n<human>\x00 😂 é'
    assert make_display()(text) == text


def test_lone_surrogates_become_the_replacement_character() -> None:
    assert make_display()("a\ud800b\udfff😂") == "a\ufffdb\ufffd😂"


def test_a_token_that_cannot_be_broken_is_refused() -> None:
    with pytest.raises(ValueError, match="2 or more"):
        make_display(["#"])


@given(st.text())
def test_json_line_is_one_line_that_gives_the_text_back(text: str) -> None:
    line = json_line({"text": text})
    assert len(line.splitlines()) == 1
    assert json.loads(line) == {"text": text}


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028", "\u2029", "\x0b", "\x1c"])
def test_no_kind_of_line_end_gets_through(end: str) -> None:
    assert len(json_line({"text": f"a{end}b"}).splitlines()) == 1
