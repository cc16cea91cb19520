"""Made-up questions over made-up passages: document question answering that needs no data.

Each question has a world of its own, of people and the towns that they come from. *bridge*: what is
made in the town of a person; the person's passage names the town, whose passage names the product,
and nothing but that name leads there. *comparison*: which of two people was born earlier; both are
in the question. *single*: the craft of one person. The other passages tell the same of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from envs.workloads.qa_records import QaRecord, RecordMaker

_STARTS = ("Bel", "Cor", "Dra", "Fen", "Gal", "Hes", "Jor", "Kal", "Lum", "Mer", "Nor", "Pel")
_MIDDLES = ("a", "e", "i", "o", "u", "an", "er", "il", "om", "un")
_PERSON_ENDS = ("dric", "lette", "mund", "nora", "sten", "thea", "vard", "wyn")
_TOWN_ENDS = ("bury", "dale", "ford", "haven", "mouth", "stead", "thorpe", "wick")
_CRAFTS = ("baker", "carpenter", "fiddler", "glazier", "miller", "potter", "saddler", "weaver")
_PRODUCTS = ("bells", "candles", "cheese", "cider", "clocks", "kites", "lace", "paper", "soap")
_PLACES = ("in the hills", "on the coast", "by a lake", "at a crossing", "near the moor")
KINDS = ("bridge", "comparison", "single")


def generate_questions(
    num_questions: int, num_passages: int, rng: np.random.Generator
) -> list[QaRecord]:
    """Generates questions, kinds in turn.

    Args:
        num_questions: how many.
        num_passages: passages of each, 8 to 400, half of them about people.
        rng: source of randomness; its seed sequence is advanced by one spawn a question.
    """
    maker = RecordMaker(Counter())
    records = []
    for number, stream in enumerate(rng.spawn(num_questions)):
        record = _question(maker, number, KINDS[number % len(KINDS)], num_passages, stream)
        assert record is not None
        records.append(record)
    return records


def _question(
    maker: RecordMaker, number: int, kind: str, num_passages: int, rng: np.random.Generator
) -> QaRecord | None:
    num_people = num_passages // 2
    people = _names(_PERSON_ENDS, num_people, rng)
    towns = _names(_TOWN_ENDS, num_passages - num_people, rng)
    home = rng.permutation(len(towns))[:num_people]
    born = 1700 + rng.permutation(200)[:num_people]
    crafts = rng.choice(_CRAFTS, num_people)
    products = rng.choice(_PRODUCTS, len(towns))
    places = rng.choice(_PLACES, len(towns))
    passages = [
        (person, f"{person} was a {craft} who was born in {year} and grew up in {towns[town]}.")
        for person, craft, year, town in zip(people, crafts, born, home, strict=True)
    ]
    passages += [
        (town, f"{town} is a town {place}. Its workshops make {product}.")
        for town, place, product in zip(towns, places, products, strict=True)
    ]
    if kind == "bridge":
        question = f"What do workshops make in the town where {people[0]} grew up?"
        answer, support = products[home[0]], [0, num_people + int(home[0])]
    elif kind == "comparison":
        question = f"Who was born earlier, {people[0]} or {people[1]}?"
        answer, support = people[int(born[1] < born[0])], [0, 1]
    else:
        question, answer, support = f"What craft did {people[0]} have?", crafts[0], [0]
    return maker.make(
        question_id=f"generated-{number:04d}",
        question=question,
        answers=[str(answer)],
        category=kind,
        passages=passages,
        support=support,
    )


def _names(ends: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Different names."""
    names = [start + middle + end for start in _STARTS for middle in _MIDDLES for end in ends]
    return [names[place] for place in rng.permutation(len(names))[:count]]
