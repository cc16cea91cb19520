"""Working context: pinned text in labelled blocks, which only functions edit (MemGPT core memory).

Packer et al., arXiv 2310.08560v2, section 2.1. A block has a limit in characters; the limit in
tokens is on all blocks together and belongs to main context.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from memrl.memory.refusals import Reason, RefusedError, quoted

BLOCK_LIMIT_CHARS = 2_000
"""Default limit of a block; MemGPT's (memgpt/constants.py of its version 0.1.12)."""

_LABEL = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class Block:
    """One labelled part of the working context.

    Attributes:
        label: names the block in calls; lower-case letters, digits and "_", 32 at most.
        text: what it says, at most `limit_chars` characters.
        description: one line for the model on what belongs here; "" for none.
        limit_chars: most characters that `text` can have.

    Raises:
        ValueError: if the label is none, or the limit is not positive.
        RefusedError: BLOCK_FULL if the text is above the limit.
    """

    label: str
    text: str = ""
    description: str = ""
    limit_chars: int = BLOCK_LIMIT_CHARS

    def __post_init__(self) -> None:
        """Refuse a block that breaks its own rules."""
        if not _LABEL.fullmatch(self.label):
            raise ValueError(
                f"The block label {quoted(self.label)} must be a lower-case letter followed by at "
                "most 31 lower-case letters, digits and underscores."
            )
        if self.limit_chars < 1:
            raise ValueError(f"limit_chars must be at least 1, got {self.limit_chars}.")
        if len(self.text) > self.limit_chars:
            raise RefusedError(
                Reason.BLOCK_FULL,
                f"Block {self.label} would have {len(self.text):,} characters, above its limit of "
                f"{self.limit_chars:,}: shorten it, or move text to archival memory.",
            )

    def append(self, content: str) -> Block:
        """The block with `content` on a new line; BLOCK_FULL above the limit."""
        return replace(self, text=f"{self.text}\n{content}" if self.text else content)

    def substitute(self, old: str, new: str) -> Block:
        """The block with its one occurrence of `old` replaced; "" for `new` deletes it.

        `old` must occur exactly once, so that an edit never changes more than was meant.

        Raises:
            RefusedError: TEXT_NOT_FOUND, TEXT_AMBIGUOUS or BLOCK_FULL.
        """
        count = self.text.count(old) if old else 0
        if count == 0:
            raise RefusedError(
                Reason.TEXT_NOT_FOUND,
                f"Block {self.label} does not hold the text {quoted(old)}: give it exactly as it "
                "stands there.",
            )
        if count > 1:
            raise RefusedError(
                Reason.TEXT_AMBIGUOUS,
                f"Block {self.label} holds the text {quoted(old)} {count} times: give more of its "
                "surroundings, so that one place is meant.",
            )
        return replace(self, text=self.text.replace(old, new))


class WorkingContext:
    """Blocks by label, in a fixed order; a value, edits return another one.

    Args:
        blocks: any number of them; their labels differ.

    Raises:
        ValueError: if a label is given twice.
    """

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        given = list(blocks)
        self._blocks = {block.label: block for block in given}
        if len(self._blocks) < len(given):
            raise ValueError(
                f"Block labels differ from each other, got {[b.label for b in given]}."
            )

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks.values())

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, label: str) -> Block:
        return self._blocks[label]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in order."""
        return tuple(self._blocks)

    def with_block(self, block: Block) -> WorkingContext:
        """The same blocks, the one of this label exchanged; KeyError if there is none."""
        if block.label not in self._blocks:
            raise KeyError(block.label)
        return WorkingContext((self._blocks | {block.label: block}).values())
