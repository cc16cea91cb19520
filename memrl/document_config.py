"""The groups of a configuration for question answering over documents, and for bAbI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memrl.config_checks import at_least

BABI_TASKS = range(1, 21)


@dataclass(frozen=True)
class DocumentQaConfig:
    """Which questions, and among which passages their evidence is to be found.

    Attributes:
        dataset: "generated" needs no data; "nq" is NaturalQuestions-Open as in Lost in the Middle.
        scope: what archival holds: the passages of the question, or a corpus that all questions
            share: the passages of all of them, or for 2WikiMultihopQA the published corpus with
            questions of its own.
        num_questions: questions to generate (300 for None), or to draw from the data set (all for
            None).
        num_passages: passages of a generated question, or of one of NaturalQuestions.
        distractors: what stands beside the gold passage of NaturalQuestions: the best lexical
            matches, or random ones, of the other questions' gold passages that hold no answer; or
            the retrieved documents of the published files.
        gold_at: positions of the gold passage, from 0; each makes a document of its own. Empty for
            a random one, or with published distractors for all that are published. A policy that
            learns at a single position could learn the position.
        seed: of what is generated or drawn; the data stays the same for all training seeds.
    """

    dataset: Literal["generated", "nq", "hotpotqa", "musique", "2wiki"] = "generated"
    scope: Literal["question", "corpus"] = "question"
    num_questions: int | None = None
    num_passages: int = 20
    distractors: Literal["lexical", "random", "published"] = "lexical"
    gold_at: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no question could be asked of."""
        at_least(self, 2, "num_passages")
        if self.dataset == "generated" and not 8 <= self.num_passages <= 400:
            raise ValueError(
                f"num_passages of a generated question must lie in 8..400, got {self.num_passages}."
            )
        if self.num_questions is not None:
            at_least(self, 1, "num_questions")
        outside = [place for place in self.gold_at if not 0 <= place < self.num_passages]
        if outside or len(set(self.gold_at)) < len(self.gold_at):
            raise ValueError(
                f"gold_at must be different positions in 0..{self.num_passages - 1}, got "
                f"{list(self.gold_at)}."
            )
        if self.gold_at and (self.dataset != "nq" or self.scope != "question"):
            raise ValueError(
                "gold_at is the depth of the gold passage among those of a question of "
                "NaturalQuestions: set dataset nq and scope question, or leave gold_at empty."
            )


@dataclass(frozen=True)
class BabiConfig:
    """The bAbI tasks.

    Attributes:
        tasks: numbers of the tasks, 1 to 20.
        stories_per_task: most stories of each task and file, from its beginning; None for all.
    """

    tasks: tuple[int, ...] = tuple(BABI_TASKS)
    stories_per_task: int | None = None

    def __post_init__(self) -> None:
        """Refuse tasks that do not exist."""
        unknown = sorted(set(self.tasks) - set(BABI_TASKS))
        if unknown or not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be different numbers in 1..20, got {list(self.tasks)}.")
        if self.stories_per_task is not None:
            at_least(self, 1, "stories_per_task")
