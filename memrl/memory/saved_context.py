"""What of main context outlives the process: blocks, summary and queue, as one JSON text.

The texts of the pages are recall's, and the instructions are the program's; both are left out. The
JSON is ASCII: NUL and lone surrogates are escaped in it and come back as they were.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from memrl.memory.blocks import Block


@dataclass(frozen=True, slots=True)
class SavedContext:
    """A main context without its texts.

    Attributes:
        blocks: of the working context, in order.
        summary: as it was shown. num_hidden: pages outside main context that it stands for.
        queue: ids of the resident pages, the next victim first.
        notice_after: page that the notice of memory pressure stands behind; None for no notice.
    """

    blocks: tuple[Block, ...] = ()
    summary: str = ""
    num_hidden: int = 0
    queue: tuple[int, ...] = ()
    notice_after: int | None = None

    def to_json(self) -> str:
        """Return the text that `from_json` turns into the same value."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SavedContext:
        """Read what `to_json` wrote.

        Raises:
            ValueError: if the text is not that.
        """
        try:
            fields = json.loads(text)
            blocks = tuple(Block(**block) for block in fields.pop("blocks"))
            saved = cls(blocks=blocks, queue=tuple(fields.pop("queue")), **fields)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a saved main context: {error}") from error
        if not all(isinstance(page_id, int) for page_id in saved.queue):
            raise ValueError("not a saved main context: a page id is no integer")
        return saved
