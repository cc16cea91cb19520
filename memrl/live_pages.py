"""The pages of a live memory as the tensors of a table: what `memrl.observation.observe` reads.

A table holds the scores of every focus; here are those of the present focus alone, from the live
engines: BM25 of recall, cosines of archival, and for pages that are only in main context the
vectors that they were given when they arrived. With a `score_stride` of 0 every focus reads that
one row, as in a page cache.

Two things of a table do not exist in a live memory. A page is a text: no page is a captioned image.
And `role` is the place of a page's speaker among the speakers so far (or those named beforehand),
which is what the loaders of conversations write. A message that archival holds in several pieces
has the cosine of its best piece, where a table has that of the whole text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from memrl.documents import Page
from memrl.memory.embedders import Embedder
from memrl.memory.live import Memory
from memrl.memory.scores import exact_scores, quantize_scores
from memrl.policies.prior import PageScorer
from memrl.state import TableTensors
from memrl.surface import page_surface, speaker_index, speakers_named, text_surface
from memrl.table import QUERY_SURFACE, SURFACE

_MOST_VECTORS = 1024


class RecentEmbedder:
    """Keeps the vectors of the latest texts in memory: a focus is looked at several times.

    Args:
        embedder: makes the vectors.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: OrderedDict[str, npt.NDArray[np.float32]] = OrderedDict()
        self.name = embedder.name

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._embedder.dimension

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed n texts as (n, dimension) float32 rows of unit norm."""
        # A tokenizer takes no lone surrogates; texts without any pass through unchanged.
        texts = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if missing or not texts:
            made = self._embedder.embed(missing)
            if not texts:
                return made
            self._vectors.update(zip(missing, made, strict=True))
        rows = np.stack([self._vectors[text] for text in texts])
        for text in dict.fromkeys(texts):
            self._vectors.move_to_end(text)
        while len(self._vectors) > _MOST_VECTORS:
            self._vectors.popitem(last=False)
        return rows


@dataclass(frozen=True)
class Focus:
    """What the present search is about.

    Attributes:
        page: its place in order of arrival; None for the question.
        question: the question; "" where the focus is a page.
    """

    page: int | None = None
    question: str = ""


@dataclass(frozen=True)
class _Facts:
    """What is known of a page by itself: vector, (len(SURFACE),) surface, logit of the prior."""

    vector: npt.NDArray[np.float32]
    surface: npt.NDArray[np.float32]
    prior: float


class LivePages:
    """Pages in order of arrival; a page's place is its index on the page axis.

    Args:
        memory: the live memory. embedder: the one that its archival has.
        scorer: the run's page scorer, fitted on vectors of that embedder.
        speakers: known beforehand, in order; others are added as they come.
        page_ids: of the pages so far, in order of arrival.
        page_speaker: of each, its place in `speakers`, -1 for none.
    """

    def __init__(
        self,
        memory: Memory,
        embedder: Embedder,
        scorer: PageScorer,
        *,
        speakers: Iterable[str] = (),
        page_ids: Iterable[int] = (),
        page_speaker: Iterable[int] = (),
    ) -> None:
        self._memory = memory
        self._embedder = embedder
        self._scorer = scorer
        self.speakers = list(speakers)
        self.page_ids = list(page_ids)
        self.page_speaker = list(page_speaker)
        self._place = {page_id: place for place, page_id in enumerate(self.page_ids)}
        self._facts: dict[int, _Facts] = {}

    def __len__(self) -> int:
        return len(self.page_ids)

    def place(self, page_id: int) -> int:
        """Place of a page; KeyError for an id that is none's."""
        return self._place[page_id]

    def add(self, page_id: int, speaker: str) -> int:
        """Take in a page that recall has just got, and return its place."""
        if speaker and speaker not in self.speakers:
            self.speakers.append(speaker)
        self._place[page_id] = len(self.page_ids)
        self.page_ids.append(page_id)
        self.page_speaker.append(speaker_index(Page("", speaker), self.speakers))
        return len(self.page_ids) - 1

    def text(self, place: int) -> str:
        """The text of a page as recall has it, speaker included."""
        (page,) = self._memory.recall.get([self.page_ids[place]])
        return page.text

    def forget_but(self, places: Iterable[int]) -> None:
        """Drop what is known of all other pages; it is made again where it is needed."""
        kept = set(places)
        self._facts = {place: facts for place, facts in self._facts.items() if place in kept}

    # ------------------------------------------------------------------ tensors

    def tensors(
        self,
        focus: Focus,
        *,
        resident: Sequence[int],
        archived: Sequence[int],
        shown: Sequence[int],
    ) -> TableTensors:
        """The table of this moment: one document, all pages so far, one focus.

        Args:
            focus: of the search.
            resident: places in main context, an arriving page among them.
            archived: places that archival holds.
            shown: places whose own features will be read; those of others are 0.
        """
        num_pages = len(self)
        own = sorted({*shown, *([] if focus.page is None else [focus.page])})
        surface = np.zeros((num_pages, len(SURFACE)), dtype=np.float32)
        prior = np.zeros(num_pages, dtype=np.float32)
        for place in own:
            facts = self._facts_of(place)
            surface[place], prior[place] = facts.surface, facts.prior
        names = np.zeros(num_pages, dtype=np.int64)
        if focus.page is not None:
            names[focus.page] = speakers_named(self._said(focus.page), self.speakers)
        text = focus.question if focus.page is None else self.text(focus.page)
        lexical = quantize_scores(self._memory.recall.scores(text, self.page_ids))
        zero = np.zeros(1, dtype=np.int64)
        arrays = {
            "page_offset": zero,
            "page_count": np.array([num_pages], dtype=np.int64),
            "query_offset": np.array([0, 1], dtype=np.int64),
            "page_score_base": zero,
            "query_score_base": zero,
            "score_stride": zero,
            "page_tokens": np.zeros(num_pages, dtype=np.int32),  # sizes are the state's
            "page_surface": surface,
            "page_speaker": np.array(self.page_speaker, dtype=np.int64),
            "page_names": names,
            "page_prior": prior,
            "query_surface": np.array([text_surface(focus.question)], dtype=np.float32).reshape(
                1, len(QUERY_SURFACE)
            ),
            "query_names": np.array(
                [speakers_named(focus.question, self.speakers)], dtype=np.int64
            ),
            "dense": self._dense(text, resident, archived),
            "lexical": lexical,
        }
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return TableTensors(**tensors, has_requests=False)

    def _dense(
        self, text: str, resident: Sequence[int], archived: Sequence[int]
    ) -> npt.NDArray[np.int16]:
        scores = np.zeros(len(self), dtype=np.int16)
        if archived:
            page_ids = [self.page_ids[place] for place in archived]
            scores[list(archived)] = quantize_scores(self._memory.archival.scores(text, page_ids))
        others = sorted(set(resident) - set(archived))
        if others:
            vectors = np.stack([self._facts_of(place).vector for place in others])
            scores[others] = quantize_scores(exact_scores(vectors, self._embedder.embed([text])[0]))
        return scores

    def _facts_of(self, place: int) -> _Facts:
        facts = self._facts.get(place)
        if facts is None:
            vectors = self._embedder.embed([self.text(n) for n in (place, place - 1) if n >= 0])
            similarity = float(vectors[0] @ vectors[1]) if place else 0.0
            page = Page(self._said(place), role=max(self.page_speaker[place], 0))
            surface = np.array([page_surface(page, similarity)], dtype=np.float32)
            (prior,) = self._scorer.logits_of(vectors[:1].astype(np.float16), surface)
            facts = self._facts[place] = _Facts(vectors[0], surface[0], float(prior))
        return facts

    def _said(self, place: int) -> str:
        """The text without its speaker."""
        speaker = self.page_speaker[place]
        text = self.text(place)
        return text.removeprefix(f"{self.speakers[speaker]}: ") if speaker >= 0 else text
