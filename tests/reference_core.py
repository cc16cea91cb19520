"""The slow, obvious model of the paging core, and an episode of a table as plain lists.

Made of lists and dicts, from the rules and not from the implementation; the tests play both side by
side. The decision process on top of it is in `reference_model`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from memrl.table import EpisodeTable, Event

Focus = tuple[str, int]  # ("query", index in the document) or ("page", index in the window)


@dataclass
class ModelCore:
    """Main context, recall and archival; every count is read off a journal of moves."""

    capacity: int
    num_slots: int
    archival_capacity: int | None
    main: list[int] = field(default_factory=list)  # oldest first
    slots: dict[int, int] = field(default_factory=dict)  # slot -> page
    archive: list[int] = field(default_factory=list)  # first stored first
    recall: list[int] = field(default_factory=list)
    size: dict[int, int] = field(default_factory=dict)
    journal: list[tuple[str, int]] = field(default_factory=list)

    def occupied(self) -> int:
        return sum(self.size[page] for page in self.main)

    def fits(self, page: int) -> bool:
        enough_tokens = self.occupied() + self.size[page] <= self.capacity
        return enough_tokens and len(self.main) < self.num_slots

    def see(self, page: int, size: int) -> None:
        self.recall.append(page)
        self.size[page] = size
        self.journal.append(("see", page))

    def preload(self, page: int, size: int) -> None:
        self.see(page, size)
        self.archive.append(page)

    def page_in(self, page: int) -> None:
        self.main.append(page)
        self.slots[min(set(range(self.num_slots)) - set(self.slots))] = page
        self.journal.append(("in", page))

    def page_out(self, page: int) -> None:
        self.main.remove(page)
        self.slots = {slot: other for slot, other in self.slots.items() if other != page}
        self.journal.append(("out", page))
        if page not in self.archive:
            self.journal.append(("loss", page))

    def store(self, page: int) -> None:
        if page in self.archive:
            return
        if len(self.archive) == self.archival_capacity:
            self.journal.append(("drop", self.archive.pop(0)))
        self.archive.append(page)
        self.journal.append(("store", page))

    def victims_for(self, page: int) -> list[int]:
        """The shortest run of oldest pages without which the page fits."""
        for number in range(len(self.main) + 1):
            kept = self.main[number:]
            tokens = sum(self.size[other] for other in kept) + self.size[page]
            if tokens <= self.capacity and len(kept) < self.num_slots:
                return self.main[:number]
        raise AssertionError(f"page {page} fits not even an empty main context")

    def count(self, what: str) -> int:
        return sum(move == what for move, _ in self.journal)

    def tokens(self, what: str) -> int:
        return sum(self.size[page] for move, page in self.journal if move == what)


@dataclass
class ModelWorld:
    """One episode of a table, as lists."""

    num_preloaded: int
    page_tokens: list[int]
    speaker: list[int]
    events: list[tuple[str, int]]  # "page" (message), "query" or "request", and its number
    needs: dict[int, list[int]]
    pays: dict[int, bool]
    dense: dict[Focus, list[int]]
    lexical: dict[Focus, list[int]]
    names: dict[Focus, set[int]]

    @classmethod
    def from_table(cls, table: EpisodeTable, episode: int) -> ModelWorld:
        document = int(table.episode_document[episode])
        first, num = int(table.episode_first_page[episode]), int(table.episode_num_pages[episode])
        p0 = int(table.page_offset[document])
        q0, q1 = (int(value) for value in table.query_offset[document : document + 2])
        window = slice(p0 + first, p0 + first + num)

        def scores(flat: list[int]) -> dict[Focus, list[int]]:
            stride = int(table.score_stride[document])
            blocks: dict[Focus, list[int]] = {}
            for kind, base, rows in (
                ("page", int(table.page_score_base[document]), range(first, first + num)),
                ("query", int(table.query_score_base[document]), range(q1 - q0)),
            ):
                for row in rows:
                    begin = base + row * stride + first
                    number = row - first if kind == "page" else row
                    blocks[kind, number] = flat[begin : begin + num]
            return blocks

        page_names = enumerate(table.page_names[window].tolist())
        query_names = enumerate(table.query_names[q0:q1].tolist())
        names: dict[Focus, set[int]] = {("page", i): _bits(mask) for i, mask in page_names}
        names |= {("query", i): _bits(mask) for i, mask in query_names}
        rows = table.query_needs[q0:q1].tolist()
        events = zip(table.event_kind[episode], table.event_index[episode], strict=True)
        names_of = {Event.QUERY: "query", Event.MESSAGE: "page", Event.REQUEST: "request"}
        return cls(
            num_preloaded=int(table.episode_num_preloaded[episode]),
            page_tokens=table.page_tokens[window].tolist(),
            speaker=table.page_speaker[window].tolist(),
            events=[(names_of[Event(kind)], int(index)) for kind, index in events][
                : int(table.episode_num_events[episode])
            ],
            needs={i: [need - first for need in row if need >= 0] for i, row in enumerate(rows)},
            pays=dict(enumerate(table.query_pays[q0:q1].tolist())),
            dense=scores(table.dense.tolist()),
            lexical=scores(table.lexical.tolist()),
            names=names,
        )


def _bits(mask: int) -> set[int]:
    return {bit for bit in range(64) if mask >> bit & 1}
