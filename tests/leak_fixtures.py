"""Changes to a table that nobody who plays may notice: to its labels, its ids, its future."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from memrl.table import EpisodeTable, Event


def _changed_text(table: EpisodeTable, **lists: list[Any]) -> EpisodeTable:
    return dataclasses.replace(table, text=dataclasses.replace(table.text, **lists))


def other_needs(table: EpisodeTable, rng: np.random.Generator) -> EpisodeTable:
    """Every query needs other pages: those of the next query, or none."""
    needs = np.roll(table.query_needs, 1, axis=0)
    # The documents of `small_table` are equally long, so the pages exist for every query.
    needs[rng.random(len(needs)) < 0.3] = -1
    pays = table.query_pays & (needs >= 0).any(axis=1)
    return dataclasses.replace(table, query_needs=needs, query_pays=pays)


def other_routes(table: EpisodeTable, rng: np.random.Generator) -> EpisodeTable:
    """Other pages lead to what the queries need, in other numbers."""
    pages = rng.integers(-1, table.page_count.min(), (len(table.query_route), 3))
    return dataclasses.replace(table, query_route=pages.astype(np.int32))


def other_pays(table: EpisodeTable, rng: np.random.Generator) -> EpisodeTable:
    """Half of the queries that pay evidence pay none."""
    return dataclasses.replace(
        table, query_pays=table.query_pays & (rng.random(len(table.query_pays)) < 0.5)
    )


def other_categories(table: EpisodeTable, rng: np.random.Generator) -> EpisodeTable:
    names = [f"renamed {name}" for name in reversed(table.text.categories)]
    return _changed_text(
        dataclasses.replace(table, query_category=rng.permutation(table.query_category)),
        categories=names,
    )


def other_answers(table: EpisodeTable, rng: np.random.Generator) -> EpisodeTable:
    answers = [[f"other {number}"] for number in rng.permutation(len(table.text.answers))]
    return _changed_text(table, answers=answers)


def other_ids(table: EpisodeTable, rng: np.random.Generator) -> EpisodeTable:
    return _changed_text(
        table,
        **{
            name: [f"answer_{number}" for number in rng.permutation(len(getattr(table.text, name)))]
            for name in ("document_ids", "page_ids", "query_ids")
        },
    )


def other_provenance(table: EpisodeTable, _: np.random.Generator) -> EpisodeTable:
    return dataclasses.replace(table, meta=table.meta | {"workload": "renamed"})


LABEL_CHANGES = {
    change.__name__: change
    for change in (
        other_needs,
        other_routes,
        other_pays,
        other_categories,
        other_answers,
        other_ids,
        other_provenance,
    )
}


def other_future(
    table: EpisodeTable, episode: int, num_events: int, rng: np.random.Generator
) -> EpisodeTable:
    """Keep what the first `num_events` events of an episode show, and change all the rest.

    Pages not yet seen and queries not yet asked get other texts, sizes, features and embeddings,
    and other scores against everything; the window has another length; the later events are
    others, in another number; all labels change as well.
    """
    future = _Future(table, episode, num_events, rng)
    changed: dict[str, Any] = {
        name: future.other_rows(name) for name in _PAGE_ARRAYS + _QUERY_ARRAYS
    }
    for name in ("dense", "lexical"):
        changed[name] = future.other_scores(getattr(table, name))
    changed |= future.other_events()
    text = {
        "pages": future.other_texts(table.text.pages, future.hidden_pages),
        "queries": future.other_texts(table.text.queries, future.hidden_queries),
    }
    table = _changed_text(dataclasses.replace(table, **changed), **text)
    for change in LABEL_CHANGES.values():
        table = change(table, rng)
    return table


_PAGE_ARRAYS = (
    "page_tokens",
    "page_surface",
    "page_speaker",
    "page_names",
    "page_prior",
    "page_embedding",
)
_QUERY_ARRAYS = ("query_embedding", "query_surface", "query_names")


class _Future:
    def __init__(
        self, table: EpisodeTable, episode: int, num_events: int, rng: np.random.Generator
    ) -> None:
        self.table, self.episode, self.num_events, self.rng = table, episode, num_events, rng
        self.document = int(table.episode_document[episode])
        kinds = table.event_kind[episode, :num_events]
        index = table.event_index[episode, :num_events]
        preloaded = np.arange(table.episode_num_preloaded[episode])
        self.seen = np.concatenate([preloaded, np.sort(index[kinds == Event.MESSAGE])])
        asked = index[kinds == Event.QUERY]
        self.hidden_pages = np.ones(len(table.page_tokens), dtype=bool)
        self.hidden_pages[table.episode_pages(episode).start + self.seen] = False
        self.hidden_queries = np.ones(len(table.query_names), dtype=bool)
        self.hidden_queries[table.query_offset[self.document] + asked] = False

    def other_rows(self, name: str) -> npt.NDArray[Any]:
        """Give the hidden rows the values of other rows."""
        array = getattr(self.table, name)
        hidden = self.hidden_pages if name in _PAGE_ARRAYS else self.hidden_queries
        shuffled = self.rng.permutation(array)
        if name == "page_tokens":
            shuffled = shuffled + 1
        mask = hidden.reshape(-1, *[1] * (array.ndim - 1))
        changed: npt.NDArray[Any] = np.where(mask, shuffled, array).astype(array.dtype)
        return changed

    def other_scores(self, flat: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """Replace every score that a hidden page or a hidden query has a part in."""
        table, drawn = self.table, self.rng.integers(-32767, 32768, len(flat)).astype(np.int16)
        if flat is table.lexical:
            drawn = np.abs(drawn)
        for document in range(table.num_documents):
            start = int(table.page_offset[document])
            pages = self.hidden_pages[start : start + int(table.page_count[document])]
            queries = slice(*table.query_offset[document : document + 2].tolist())
            for base, foci in (
                (table.page_score_base[document], pages),
                (table.query_score_base[document], self.hidden_queries[queries]),
            ):
                block = slice(int(base), int(base) + len(foci) * len(pages))
                hidden = (foci[:, None] | pages[None, :]).ravel()
                drawn[block] = np.where(hidden, drawn[block], flat[block])
        return drawn

    def other_events(self) -> dict[str, npt.NDArray[Any]]:
        """Let the rest of the pages arrive among other queries; sometimes none are left to come."""
        table, episode = self.table, self.episode
        first = int(table.query_offset[self.document])
        num_queries = int(table.query_offset[self.document + 1]) - first
        room = table.page_count[self.document] - table.episode_first_page[episode]
        lengths = table.episode_num_pages.copy()
        lengths[episode] = self.rng.integers(max(1, len(self.seen)), int(room) + 1)
        pages = np.setdiff1d(np.arange(lengths[episode]), self.seen)
        later = [(int(Event.MESSAGE), int(page)) for page in pages]
        later = later[: self.rng.integers(0, len(later) + 1)]
        for _ in range(int(self.rng.integers(0, 4))):
            query = int(Event.QUERY), int(self.rng.integers(num_queries))
            later.insert(int(self.rng.integers(len(later) + 1)), query)
        length = self.num_events + len(later)
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name, column in (("event_kind", 0), ("event_index", 1)):
            old = getattr(table, name)
            grown = np.zeros((len(old), max(old.shape[1], length)), dtype=old.dtype)
            grown[:, : old.shape[1]] = old
            grown[episode, self.num_events :] = 0
            grown[episode, self.num_events : length] = [event[column] for event in later]
            arrays[name] = grown
        counts = table.episode_num_events.copy()
        counts[episode] = length
        return arrays | {"episode_num_events": counts, "episode_num_pages": lengths}

    def other_texts(self, texts: list[str], hidden: npt.NDArray[np.bool_]) -> list[str]:
        return [
            f"changed {text}" if is_hidden else text
            for text, is_hidden in zip(texts, hidden, strict=True)
        ]
