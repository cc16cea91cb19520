"""Every benchmark's own measures of an answer, found by the name of its workload.

| workload | measures of the answer | with `support`, the pages that were read or cited |
|---|---|---|
| locomo | `f1`, by the rule of the category | `evidence_recall` |
| nq | `best_subspan_em` | - |
| hotpotqa, 2wiki | `em`, `f1` | `unofficial_{support,joint}_{em,f1}` |
| musique | `em`, `f1` | the same, but for `support_f1`, which is its own |
| nested_kv | `exact_value`, `unofficial_contained_value` | - |
| babi | `em` | - |
| dmr | `rouge_l_recall`, `contains` | - |
| longmemeval | `unofficial_contains`, `unofficial_token_f1` | - |
| opener | `sim_1`, `sim_3`, `sim_h`: cosines, see `opener_scoring` | - |
| chat, generated | `em`, `f1`, as HotpotQA | as HotpotQA |

A name that begins with `unofficial_` is not the benchmark's own number: LongMemEval has answers
judged by a language model and no measure of their text; HotpotQA and 2WikiMultihopQA score cited
sentences, where a page here is a passage (`envs.workloads.citations` scores sentences, where they
are cited); MuSiQue has the F1 of paragraphs alone; and containing a value is how Lost in the Middle
scores look-ups, not MemGPT.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from envs.workloads import locomo_scoring
from envs.workloads.answer_scoring import (
    answer_datasets,
    contains_answer,
    hotpot_answer,
    joint_scores,
    musique_answer,
    score_answer,
    token_scores,
)
from envs.workloads.nested_kv import ask_for_value, contained_value, exact_value
from envs.workloads.opener_scoring import OpenerMeasures
from memrl.documents import Query, Workload
from memrl.set_scores import set_scores

UNOFFICIAL = "unofficial_"
"""How the names of measures begin that are not the benchmark's own."""

Scores = dict[str, float | None]


def measures_of(workload: Workload, embedder: str) -> Callable[..., Scores]:
    """What scores a workload's answers, called as `official_scores` is.

    Args:
        workload: the questions.
        embedder: name of the model of measures that compare meanings (of the opener).

    Raises:
        ValueError: none are known.
    """
    if workload.name == "opener":
        return partial(official_scores, own=OpenerMeasures(workload.documents, embedder))
    _require_known(workload.name)
    return official_scores


def _require_known(workload: str) -> None:
    if workload not in _OWN and workload not in answer_datasets():
        raise ValueError(
            f"No measure of answers is known for the workload {workload!r}, only for "
            f"{', '.join([*_OWN, *answer_datasets(), 'opener'])}."
        )


def official_scores(
    workload: str,
    query: Query,
    prediction: str,
    *,
    support: Collection[int] | None = None,
    own: Callable[[Query, str], Scores] | None = None,
) -> Scores:
    """Scores an answer by what it and its question say; `measures_of` gives every workload's way.

    Args:
        workload: `Workload.name`. Of question answering over documents it is the data set's.
        query: the question, with its category, gold answers and needs.
        prediction: the text to be scored, as the reader gave it.
        support: pages that the reader read or cites, in the numbering of `query.needs`; None where
            that is not known, and then only the answer is scored.
        own: the workload's measures where they need more than question and answer.

    Returns:
        Measures by name, in [0, 1] but for cosines; None where one is not defined for this
        question: no gold answer (missing in the source, masked as wrong, a rubric, an abstention),
        or no evidence.

    Raises:
        ValueError: the workload has no measure of answers, or the question is none of its own.
    """
    own = own or _OWN.get(workload)
    if own is None:
        _require_known(workload)
    scores = own(query, prediction) if own else score_answer(workload, prediction, query.answers)
    if support is not None:
        scores |= _of_support(workload, query, prediction, support)
    return scores


def official_question(workload: str, query: Query) -> str:
    """The question as the benchmark puts it to a reader: LoCoMo asks for dates in its own way."""
    if workload == "locomo":
        return locomo_scoring.official_question(query)
    return posed_question(workload, query.text)


def posed_question(workload: str, text: str) -> str:
    """The question of a query's text as a model is asked it.

    Of nested key-value retrieval the text is a bare key, by which searches find the first pair.
    MemGPT's instructions say there that a value may be a key that has to be looked up as well.
    """
    return ask_for_value(text) if workload == "nested_kv" else text


def _locomo(query: Query, prediction: str) -> Scores:
    return {"f1": locomo_scoring.score_answer(query, prediction)}


def _nested_kv(query: Query, prediction: str) -> Scores:
    measures = {"exact_value": exact_value, f"{UNOFFICIAL}contained_value": contained_value}
    return {
        name: max((measure(prediction, gold) for gold in query.answers), default=None)
        for name, measure in measures.items()
    }


def _longmemeval(query: Query, prediction: str) -> Scores:
    f1s = [token_scores(prediction, gold).f1 for gold in query.answers]
    return {
        f"{UNOFFICIAL}contains": contains_answer(prediction, query.answers) if f1s else None,
        f"{UNOFFICIAL}token_f1": max(f1s, default=None),
    }


_OWN: dict[str, Callable[[Query, str], Scores]] = {
    "locomo": _locomo,
    "longmemeval": _longmemeval,
    "nested_kv": _nested_kv,
}
"""Workloads that are not scored by `answer_scoring.score_answer`."""

_ANSWER = {
    **dict.fromkeys(("hotpotqa", "2wiki", "chat", "generated"), hotpot_answer),
    "musique": musique_answer,
}


def _of_support(workload: str, query: Query, prediction: str, support: Collection[int]) -> Scores:
    if workload == "locomo":
        return {"evidence_recall": locomo_scoring.evidence_recall(query, support)}
    if workload not in _ANSWER:
        return {}
    found = set_scores(support, query.needs)
    joint = joint_scores(_ANSWER[workload](prediction, query.answers), found)
    has_joint = bool(query.needs and query.answers)
    official_f1 = "" if workload == "musique" else UNOFFICIAL
    return {
        f"{UNOFFICIAL}support_em": found.em if query.needs else None,
        f"{official_f1}support_f1": found.f1 if query.needs else None,
        f"{UNOFFICIAL}joint_em": joint.em if has_joint else None,
        f"{UNOFFICIAL}joint_f1": joint.f1 if has_joint else None,
    }
