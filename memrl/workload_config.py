"""The groups of a configuration that say which data, and how they become episodes and splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from memrl.config_checks import at_least, fractions
from memrl.conversation_config import DmrConfig, MscConfig, OpenerConfig
from memrl.document_config import BabiConfig, DocumentQaConfig
from memrl.longmemeval_config import LongMemEvalConfig


@dataclass(frozen=True)
class ChatConfig:
    """The generated chats; each field but `seed` is the generator's parameter of that name.

    Attributes:
        num_documents: conversations to generate.
        num_sessions: sessions of a conversation.
        turns_per_session: mean turns of a session.
        facts_per_document: facts that the speakers state about themselves.
        update_frac: share of the changeable asked facts that a later turn replaces.
        multi_evidence_frac: questions that need several turns, per asked fact.
        distractor_frac: statements about third parties, per fact.
        paraphrase: probability that a question shares no content word with its evidence.
        seed: of the generator; the data stays the same for all training seeds.
    """

    num_documents: int = 40
    num_sessions: int = 8
    turns_per_session: int = 22
    facts_per_document: int = 26
    update_frac: float = 0.4
    multi_evidence_frac: float = 0.25
    distractor_frac: float = 0.3
    paraphrase: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class NestedKvConfig:
    """Nested key-value retrieval.

    Attributes:
        source: "generated" (needs no data), or "memgpt": the orderings of MemGPT's files for levels
            0 to 5, and drawn ones over the same pairs for deeper levels.
        levels: levels of nesting; level L takes L + 1 look-ups.
        documents_per_level: generated or drawn documents of each level; of a file all are taken.
        num_pairs: pairs of a generated document.
        seed: of what is generated or drawn; the data stays the same for all training seeds.
    """

    source: Literal["generated", "memgpt"] = "generated"
    levels: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    documents_per_level: int = 40
    num_pairs: int = 140
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no chain could be made of."""
        at_least(self, 1, "documents_per_level", "num_pairs")
        levels = sorted(set(self.levels))
        if not levels or len(levels) < len(self.levels) or levels[0] < 0:
            raise ValueError(
                f"levels must be different numbers of at least 0, got {list(self.levels)}."
            )
        if self.source == "generated" and levels[-1] >= self.num_pairs:
            raise ValueError(
                f"level {levels[-1]} needs more pairs than num_pairs {self.num_pairs}."
            )


@dataclass(frozen=True)
class PageCacheConfig:
    """Page caches.

    Attributes:
        source: "generated" (needs no data), or "trace": a file below `cache_traces/`.
        trace: name of the file, such as "lirs/loop" or "cloudPhysicsIO".
        kinds: kinds of generated streams; see `envs.workloads.page_cache`.
        streams_per_kind: streams of each. num_requests, num_pages: of a generated stream.
        most_tokens: largest size of a generated page, where capacity counts tokens.
        window_requests: consecutive requests of a stream that make an episode.
        seed: of the generator; the data stays the same for all training seeds.
    """

    source: Literal["generated", "trace"] = "generated"
    trace: str = "lirs/loop"
    kinds: tuple[Literal["zipf", "loop", "scan", "shift"], ...] = ("zipf", "loop", "scan", "shift")
    streams_per_kind: int = 12
    num_requests: int = 3000
    num_pages: int = 100
    most_tokens: int = 16
    window_requests: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no stream could be made of."""
        at_least(self, 1, "streams_per_kind", "num_requests", "most_tokens", "window_requests")
        at_least(self, 8, "num_pages")
        if not self.kinds:
            raise ValueError("kinds must name at least one kind of streams.")


@dataclass(frozen=True)
class WorkloadConfig:
    """Which documents, and how they become episodes.

    Attributes:
        name: "chat" (generated, needs no data), "locomo", "msc", "dmr", "opener", "nested_kv",
            "document_qa", "babi" or "page_cache". Of "dmr", "opener", "nested_kv", "document_qa"
            and "babi" an episode is a whole document, so that `ask`, `window_pages`, `max_queries`
            and the numbers of episodes do not apply: of "dmr" and "opener" the one question comes
            after the last page, of "babi" each question where the story asks it, and of the others
            all pages are in archival before the question. Of "page_cache" episodes are windows of
            requests, and `ask`, `window_pages` and `max_queries` do not apply.
        data_dir: folder laid out like the public data sets; None for the variable MEMRL_DATA.
        ask: "interleaved": each question at a random time after its evidence; "end": all of them
            after the last page of the window.
        window_pages: consecutive pages of a document that make an episode.
        max_queries: most questions of an episode.
        train_episodes, validation_episodes, test_episodes: episodes drawn from each document.
        train_wrong_needs_frac: share of the needs in training documents that are replaced by other
            pages: what wrong labels cost.
        include_unanswerable: also ask questions that pay no evidence.
        correct_evidence, mask_wrong_answers: apply LoCoMo's errata.
        embedder: "hashing", a sentence-transformers model, or a folder with one.
        chat: parameters of the generator of chats.
        msc, dmr, opener: parameters of Multi-Session Chat and of what is asked about it.
        nested_kv: parameters of nested key-value retrieval.
        document_qa: parameters of question answering over documents.
        babi: which of the bAbI tasks.
        longmemeval: parameters of LongMemEval.
        page_cache: parameters of page caches.
    """

    name: Literal[
        "chat",
        "locomo",
        "msc",
        "dmr",
        "opener",
        "longmemeval",
        "nested_kv",
        "document_qa",
        "babi",
        "page_cache",
    ] = "chat"
    data_dir: str | None = None
    ask: Literal["interleaved", "end"] = "interleaved"
    window_pages: int = 150
    max_queries: int = 10
    train_episodes: int = 100
    validation_episodes: int = 40
    test_episodes: int = 40
    include_unanswerable: bool = False
    correct_evidence: bool = True
    mask_wrong_answers: bool = True
    embedder: str = "all-MiniLM-L6-v2"
    train_wrong_needs_frac: float = 0.0
    chat: ChatConfig = field(default_factory=ChatConfig)
    msc: MscConfig = field(default_factory=MscConfig)
    dmr: DmrConfig = field(default_factory=DmrConfig)
    opener: OpenerConfig = field(default_factory=OpenerConfig)
    nested_kv: NestedKvConfig = field(default_factory=NestedKvConfig)
    document_qa: DocumentQaConfig = field(default_factory=DocumentQaConfig)
    babi: BabiConfig = field(default_factory=BabiConfig)
    longmemeval: LongMemEvalConfig = field(default_factory=LongMemEvalConfig)
    page_cache: PageCacheConfig = field(default_factory=PageCacheConfig)

    def __post_init__(self) -> None:
        """Refuse sizes that leave nothing to play."""
        at_least(self, 1, "window_pages", "max_queries")
        at_least(self, 1, "train_episodes", "validation_episodes", "test_episodes")
        fractions(self, "train_wrong_needs_frac")


@dataclass(frozen=True)
class SplitConfig:
    """How documents are divided; a cluster (`Document.cluster_id`) stays together.

    Attributes:
        kind: "fractions": a seeded shuffle cut at the fractions. "leave_one_out": document `fold`
            is the test set, the next one the validation set, all others train. "published": what
            the source sets aside for testing is the test set, `validation_frac` of the rest
            validates. "halves": the first half of every stream of requests trains, but for the
            last `validation_frac` of it, which validates, and the second half tests.
        validation_frac, test_frac: shares of documents, or of the first halves.
        fold: which document is left out.
    """

    kind: Literal["fractions", "leave_one_out", "published", "halves"] = "fractions"
    validation_frac: float = 0.15
    test_frac: float = 0.3
    fold: int = 0

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        fractions(self, "validation_frac", "test_frac")
