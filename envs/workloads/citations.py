"""Official measures of what an answer cites that is no page: sentences, triples, rankings.

| workload | cited | measures |
|---|---|---|
| hotpotqa | facts | `support_{em,f1}`, `joint_{em,f1}` |
| 2wiki | facts, triples | `support_{em,f1}`, `evidence_{em,f1}`; with both, `joint_{em,f1}` |
| longmemeval | ranking | `{turn,session}_{recall_any,recall_all,ndcg}@k` |

A fact is the title of a passage and the index of a sentence in it; a triple is (subject, relation,
object); a ranking is the pages of a history, best first. The policies of this project cite pages:
these measures are for readers of other projects, whose answers `python -m memrl.evaluation answers`
scores. Sources: `answer_scoring`, `longmemeval_scoring`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from envs.workloads.answer_scoring import (
    Triple,
    hotpot_answer,
    joint_scores,
    support_scores,
    triple_scores,
)
from envs.workloads.longmemeval_scoring import official_retrieval
from memrl.documents import Citations, Document, Query, Workload
from memrl.set_scores import SetScores

CITES = {"hotpotqa": ("facts",), "2wiki": ("facts", "triples"), "longmemeval": ("ranking",)}
"""By workload what an answer may cite."""


def cited_scores(
    workload: Workload,
    document: Document,
    query: Query,
    prediction: str,
    *,
    facts: Collection[tuple[str, int]] | None = None,
    triples: Collection[Triple] | None = None,
    ranking: Sequence[int] | None = None,
) -> dict[str, float | None]:
    """Scores what an answer cites.

    Args:
        workload: with the citations of its source. document, query: the question.
        prediction: the answer itself, for joint measures.
        facts, triples: what is cited; None for nothing known.
        ranking: pages of the document, best first, each once; None where it is not known.

    Returns:
        Measures in [0, 1] by name, see the table above; None where one is not defined.

    Raises:
        ValueError: the workload has no measure of what is cited.
    """
    given = {"facts": facts, "triples": triples, "ranking": ranking}
    known = CITES.get(workload.name, ())
    for name, cited in given.items():
        if cited is not None and name not in known:
            raise ValueError(
                f"{workload.name} has no measure of {name}: leave them out of the answers "
                f"(measured are {', '.join(known) or 'none'})."
            )
    if ranking is not None:
        return official_retrieval(document, ranking)
    is_2wiki = workload.name == "2wiki"
    gold = workload.citations.get(query.source_id, Citations())
    found: dict[str, SetScores | None] = {}
    if facts is not None:
        own = support_scores(facts, gold.facts, ignore_case=is_2wiki)
        found["support"] = own if gold.facts else None
    if triples is not None:
        found["evidence"] = triple_scores(triples, gold.triples) if gold.triples else None
    if found and len(found) == len(known):
        parts = [own for own in found.values() if own is not None]
        is_whole = query.answers and len(parts) == len(known)
        answer = hotpot_answer(prediction, query.answers)
        found["joint"] = joint_scores(answer, *parts) if is_whole else None
    return {
        f"{measure}_{number}": None if own is None else getattr(own, number)
        for measure, own in found.items()
        for number in ("em", "f1")
    }
