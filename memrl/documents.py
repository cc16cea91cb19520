"""What a workload is before it is tensorised: documents, and episodes over them.

A loader or generator produces `Document`s; `memrl.table` turns them, once, into arrays. Text lives
here and in the rendered views only; no policy network and no observation space ever sees it.

Identifiers of the source (`source_id`) are kept for reports. They never reach an observation: some
data sets leak the answer through them (LongMemEval's evidence ids contain the word "answer").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt


class PageKind(IntEnum):
    """What a page is made of; a surface feature of the observation."""

    TEXT = 0
    CAPTIONED_IMAGE = 1


@dataclass(frozen=True, slots=True)
class Page:
    """The unit moved between tiers: one message, passage or key-value pair.

    Attributes:
        text: what the page says, without a speaker prefix.
        speaker: who says it; of a passage its title; or "" where nobody speaks.
        role: index of the speaker within the document (0 for the first one).
        kind: see `PageKind`.
        session: 0-based index of the session the page belongs to.
        timestamp: date of the session as the source writes it, or "".
        source_id: identifier in the source; for reports only.
    """

    text: str
    speaker: str = ""
    role: int = 0
    kind: PageKind = PageKind.TEXT
    session: int = 0
    timestamp: str = ""
    source_id: str = ""

    @property
    def rendered(self) -> str:
        """The page as a reader, an embedder and a lexical index see it."""
        return f"{self.speaker}: {self.text}" if self.speaker else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """A question about earlier pages of the same document.

    Attributes:
        text: the question.
        needs: indices into `Document.pages` of the pages that hold the evidence, sorted, unique.
        category: the source's own name of the kind of question.
        answers: accepted gold answers; empty where the source has none or they are masked as wrong.
        answerable: False for questions that the document cannot answer; they pay no evidence.
        source_id: identifier in the source; for reports only.
        route: pages of a chain of look-ups that leads to `needs`, in order: the query finds the
            first, each one finds the next, the last one finds the evidence. They are no evidence
            themselves, and hidden like `needs`.
        asked_after: pages of the document that precede the question in the source; None where the
            source does not say.
    """

    text: str
    needs: tuple[int, ...]
    category: str = ""
    answers: tuple[str, ...] = ()
    answerable: bool = True
    source_id: str = ""
    route: tuple[int, ...] = ()
    asked_after: int | None = None

    @property
    def cited(self) -> tuple[int, ...]:
        """Pages of `needs` and `route`, sorted: a window in which it is asked holds them all."""
        return tuple(sorted({*self.needs, *self.route}))

    @property
    def pays_evidence(self) -> bool:
        """Whether evidence recall is defined for this query."""
        return self.answerable and bool(self.needs)


@dataclass(frozen=True, slots=True)
class Document:
    """A conversation (or other ordered pages) with its queries.

    Documents that hold the same tuple of pages, one object, and the same speakers share them in a
    table (a corpus that many questions are about).

    Attributes:
        document_id: name in the source.
        pages: in order of time.
        queries: questions about them.
        speakers: who speaks, or the titles of the passages; a text that holds one names it.
        cluster: documents of one cluster depend on each other: they are one unit of statistics, and
            on one side of every split; "" for the document by itself.
        is_test: the source sets the document aside for testing.
    """

    document_id: str
    pages: tuple[Page, ...]
    queries: tuple[Query, ...]
    speakers: tuple[str, ...] = ()
    cluster: str = ""
    is_test: bool = False

    @property
    def cluster_id(self) -> str:
        """The unit of statistics and of splits that the document belongs to."""
        return self.cluster or self.document_id


@dataclass(frozen=True, slots=True)
class Episode:
    """A window of a document, and when each chosen query is asked.

    Attributes:
        document: index of the document in its list.
        first_page: index of the first page of the window in `Document.pages`.
        num_pages: length of the window; pages arrive in order.
        queries: pairs (`num_arrived`, `query`): the query with index `query` in `Document.queries`
            is asked when `num_arrived` pages of the window have arrived; sorted by `num_arrived`.
        num_preloaded: the first pages of the window that recall and archival hold from the start;
            they count as arrived, and no event brings them.
    """

    document: int
    first_page: int
    num_pages: int
    queries: tuple[tuple[int, int], ...] = ()
    num_preloaded: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class RequestStream:
    """What is requested of a page cache, in order; the pages have no text.

    Attributes:
        stream_id: name of the stream: one cluster of statistics.
        pages: (T,) int32, the page of each request, numbered from 0 by first request.
        page_tokens: (P,) int64, size of each page, 1 or more.
        page_ids: (P,) their names in the source; for reports only.
        kind: what kind of requests these are ("loop", "trace"), for tables by kind.
    """

    stream_id: str
    pages: npt.NDArray[np.int32]
    page_tokens: npt.NDArray[np.int64]
    page_ids: tuple[str, ...]
    kind: str

    def __len__(self) -> int:
        """Requests."""
        return len(self.pages)


@dataclass(frozen=True, slots=True)
class RequestWindow:
    """An episode of a page cache: consecutive requests of a stream.

    Attributes:
        stream: index of the stream in its list.
        first_request, num_requests: which of its requests.
        cluster: name of the cluster of statistics; None for the stream's.
    """

    stream: int
    first_request: int
    num_requests: int
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Citations:
    """Evidence as a source cites it, finer than pages; for its official measures only.

    Attributes:
        facts: supporting sentences: title of the passage, index of the sentence.
        triples: of each triple (subject, relation, object) the accepted forms.
    """

    facts: frozenset[tuple[str, int]] = frozenset()
    triples: tuple[frozenset[tuple[str, str, str]], ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """Documents, or streams of requests, with their provenance.

    Attributes:
        name: short name ("locomo", "chat").
        documents: the documents.
        provenance: where the data comes from: file names, sha256, generator parameters; JSON-able.
        repairs: what a loader mended, dropped or derived, as `description -> count`; printed by
            programs.
        streams: the streams of a page cache, which has no documents.
        citations: by `Query.source_id` what the source cites for a question; empty for most.
    """

    name: str
    documents: tuple[Document, ...]
    provenance: dict[str, object] = field(default_factory=dict)
    repairs: dict[str, int] = field(default_factory=dict)
    streams: tuple[RequestStream, ...] = ()
    citations: Mapping[str, Citations] = field(default_factory=dict)
