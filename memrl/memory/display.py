"""How stored text is shown to a model, so that text stays data.

What is embedded beside structure (blocks, the summary, search results) is a JSON string on a line
of its own: no text can end its string or begin another line. Markers of chat templates, which a
tokenizer would read as the end of a message wherever they stand, are broken by a space. The stores
keep every text as it was written; only what is shown differs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping

COMMON_SPECIAL_TOKENS = (
    *("<s>", "</s>", "<bos>", "<eos>", "<pad>", "<unk>"),
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
    *("<start_of_turn>", "<end_of_turn>", "<tool_call>", "</tool_call>"),
)
"""Markers of widespread chat templates; those of the form `<|name|>` are broken in any case."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_NAMED_MARKER_REST = r"[|\uff5c][^\s<>]{1,64}?[|\uff5c]>"  # DeepSeek's bars are full-width
_UNICODE_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}

Display = Callable[[str], str]
"""Maps a text to what a model sees of it."""


def make_display(special_tokens: Iterable[str] = COMMON_SPECIAL_TOKENS) -> Display:
    """Make the function that shows a text.

    Every special token loses its meaning by a space after its first character; lone surrogates,
    which no tokenizer takes, become U+FFFD.

    Args:
        special_tokens: strings that a tokenizer reads as one token of structure, as in
            `tokenizer.all_special_tokens`; `<|name|>` needs no mention.

    Raises:
        ValueError: if a token is shorter than 2 characters and cannot be broken.
    """
    tokens = sorted(set(special_tokens))
    if any(len(token) < 2 for token in tokens):
        raise ValueError(f"Special tokens have 2 or more characters, got {tokens}.")
    # The rest of a marker is looked ahead at, not consumed, so that markers that overlap are all
    # broken. Sorted by first character, `re` can skip to the next place where one may begin.
    rests: dict[str, list[str]] = {"<": [_NAMED_MARKER_REST]}
    for token in tokens:
        rests.setdefault(token[0], []).append(re.escape(token[1:]))
    starts = (f"{re.escape(first)}(?={'|'.join(options)})" for first, options in rests.items())
    start = re.compile("|".join(starts))

    def display(text: str) -> str:
        return start.sub(r"\g<0> ", _SURROGATE.sub("\ufffd", text))

    return display


def json_line(fields: Mapping[str, object]) -> str:
    """The fields as one JSON object on one line, characters beyond ASCII as they are."""
    return json.dumps(fields, ensure_ascii=False).translate(_UNICODE_LINE_ENDS)
