"""A table and two states made by hand, with every feature and global worked out beside them."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from state_by_hand import hand_state
from table_fixtures import table_of

from memrl.documents import Query
from memrl.options import PagingOptions
from memrl.state import TableTensors
from memrl.table import QUERY_SURFACE, SURFACE, EpisodeTable, focus_score_base

NUM_PAGES = 8
QUERY_DENSE = np.array([0.5, -0.25, 0.125, 0.75, -0.5, 0.25, 0.375, 0.875])
QUERY_LEXICAL = np.array([0.125, 0.25, 0.0, 0.5, 0.375, 0.0, 0.75, 0.625])
PAGE_DENSE, PAGE_LEXICAL = QUERY_DENSE[::-1], QUERY_LEXICAL[::-1]


def made_table() -> EpisodeTable:
    """Eight pages, said by Ann and Bob in turn; query 0 names Bob, page 6 names Ann."""
    table = table_of(["words"] * NUM_PAGES, [(8, Query("Does Bob know?", (1,)))])
    dense, lexical = np.zeros_like(table.dense), np.zeros_like(table.lexical)
    for focus, values in (
        ({"query": 0}, (QUERY_DENSE, QUERY_LEXICAL)),
        ({"page": 6}, (PAGE_DENSE, PAGE_LEXICAL)),
    ):
        begin = focus_score_base(table, 0, **focus)
        for array, scores in zip((dense, lexical), values, strict=True):
            array[begin : begin + NUM_PAGES] = np.rint(scores * 32767)
    names = np.zeros(NUM_PAGES, dtype=np.int64)
    names[6] = 0b01
    surface = np.arange(NUM_PAGES * len(SURFACE)).reshape(NUM_PAGES, -1) / 100
    return dataclasses.replace(
        table,
        dense=dense,
        lexical=lexical,
        page_names=names,
        page_surface=surface.astype(np.float32),
        page_prior=np.array([0, 1, 2, 3, -4, 5, 6, 100], dtype=np.float32),
        query_surface=np.array([[0.1, 0.2, 0.3, 0.4]], dtype=np.float32),
    )


TABLE = made_table()
TENSORS = TableTensors.from_table(TABLE)
OPTIONS = PagingOptions(
    unit="tokens", capacity=20, num_slots=4, archival_capacity=5, num_candidates=3, time_scale=10.0
)

# Pages 1, 4, 5 are resident in slots 0, 2, 3 (5 came in first and was not stored; 1 was retrieved);
# 3 and 6 are candidates, 6 from recall only; page 7 arrived last.
AT_QUERY = dataclasses.replace(
    hand_state(
        [1, -1, 4, 5],
        sizes=[2, 0, 3, 5],
        queue=[3, 2, 0, 1],
        retrieved=[1],
        archived=[1, 3, 4],
        candidates=[3, -1, 6],
        candidate_sizes=[4, 0, 6],
        query=0,
        clock=9,
        pages_arrived=8,
        queries_asked=1,
        operations_used=4,
        more_candidates=1,
    ),
    slot_time_in=torch.tensor([[9, 0, 5, 3, 9]]),
    slot_last_use=torch.tensor([[9, 0, 7, 3, 9]]),
    slot_uses=torch.tensor([[1, 0, 2, 0, 0]]),
)
# Page 6 arrives and is the focus.
UNDER_PRESSURE = dataclasses.replace(
    hand_state(
        [1, 2, 4, 5],
        sizes=[2, 9, 3, 5],
        archived=[3],
        arriving=6,
        arriving_size=4,
        candidates=[-1, -1, -1],
        clock=8,
        pages_arrived=7,
    ),
    slot_time_in=torch.tensor([[2, 3, 5, 6, 8]]),
    slot_last_use=torch.tensor([[2, 3, 5, 6, 8]]),
)

# Rows: slots 0..3 and the arriving row at the query.
SLOTS_AT_QUERY = {
    "occupied": [1, 0, 1, 1, 0],
    "tokens_share": [0.1, 0, 0.15, 0.25, 0],
    "age": [0, 0, 0.4, 0.6, 0],
    "since_last_use": [0, 0, 0.2, 0.6, 0],
    "uses": [0.25, 0, 0.5, 0, 0],
    "written_ago": [0.6, 0, 0.3, 0.2, 0],
    "stored": [1, 0, 1, 0, 0],
    "retrieved": [1, 0, 0, 0, 0],
    "victim": [0, 0, 0, 1, 0],
    "arriving": [0, 0, 0, 0, 0],
    "from_recall": [0, 0, 0, 0, 0],
    "dense": [-0.25, 0, -0.5, 0.25, 0],
    "lexical": [0.25, 0, 0.375, 0, 0],
    # Page 0 and 6 are neither resident nor stored, page 2 is lost, 3 is stored.
    "previous_dense": [0, 0, 0.75, -0.5, 0],
    "next_dense": [0, 0, 0.25, 0, 0],
    "previous_lexical": [0, 0, 0.5, 0.375, 0],
    "next_lexical": [0, 0, 0, 0, 0],
    "names_speaker": [1, 0, 0, 1, 0],
    "rank": [0, 0, 0, 0, 0],
    "prior": [0.25, 0, -1, 1.25, 0],
}
# Rows: candidates 0..2; page 3 is stored, page 6 is held by recall only.
CANDIDATES_AT_QUERY = {
    "occupied": [1, 0, 1],
    "tokens_share": [0.2, 0, 0.3],
    "age": [0, 0, 0],
    "since_last_use": [0, 0, 0],
    "uses": [0, 0, 0],
    "written_ago": [0.4, 0, 0.1],
    "stored": [1, 0, 0],
    "retrieved": [0, 0, 0],
    "victim": [0, 0, 0],
    "arriving": [0, 0, 0],
    "from_recall": [0, 0, 1],
    "dense": [0.75, 0, 0],
    "lexical": [0.5, 0, 0.75],
    "previous_dense": [0, 0, 0.25],
    "next_dense": [-0.5, 0, 0],
    "previous_lexical": [0, 0, 0],
    "next_lexical": [0.375, 0, 0],
    "names_speaker": [1, 0, 0],
    "rank": [1, 0, 1 / 3],
    "prior": [0.75, 0, 1.5],
}
SLOTS_UNDER_PRESSURE = {
    "occupied": [1, 1, 1, 1, 1],
    "tokens_share": [0.1, 0.45, 0.15, 0.25, 0.2],
    "age": [0.6, 0.5, 0.3, 0.2, 0],
    "since_last_use": [0.6, 0.5, 0.3, 0.2, 0],
    "uses": [0, 0, 0, 0, 0],
    "written_ago": [0.5, 0.4, 0.2, 0.1, 0],
    "stored": [0, 0, 0, 0, 0],
    "retrieved": [0, 0, 0, 0, 0],
    "victim": [1, 0, 0, 0, 0],
    "arriving": [0, 0, 0, 0, 1],
    "from_recall": [0, 0, 0, 0, 0],
    "dense": [0.375, 0.25, 0.75, 0.125, -0.25],
    "lexical": [0.75, 0, 0.5, 0, 0.25],
    "previous_dense": [0, 0.375, -0.5, 0.75, 0.125],
    "next_dense": [0.25, -0.5, 0.125, 0, 0],
    "previous_lexical": [0, 0.75, 0.375, 0.5, 0],
    "next_lexical": [0, 0.375, 0, 0, 0],
    "names_speaker": [0, 1, 1, 0, 1],
    "rank": [0, 0, 0, 0, 0],
    "prior": [0.25, 0.5, -1, 1.25, 1.5],
}
GLOBALS_AT_QUERY = {
    "under_pressure": 0,
    "at_query": 1,
    "focus_is_page": 0,
    "occupancy": 0.5,
    "slots_used": 0.75,
    "archive_fill": 0.6,
    "elapsed_events": 0.9,
    "pages_arrived": 0.8,
    "queries_asked": 0.1,
    "operations_used": 0.25,
    "retrieved_share": 0.25,
    "candidates_share": 2 / 3,
    "more_candidates": 1,
    "focus_length": 0.1,
    "focus_digits": 0.2,
    "focus_capitals": 0.3,
    "focus_question_marks": 0.4,
}
GLOBALS_UNDER_PRESSURE = {
    "under_pressure": 1,
    "at_query": 0,
    "focus_is_page": 0,
    "occupancy": 0.95,
    "slots_used": 1,
    "archive_fill": 0.2,
    "elapsed_events": 0.8,
    "pages_arrived": 0.7,
    "queries_asked": 0,
    "operations_used": 0,
    "retrieved_share": 0,
    "candidates_share": 0,
    "more_candidates": 0,
    **{
        f"focus_{name}": float(TABLE.page_surface[6, SURFACE.index(name)]) for name in QUERY_SURFACE
    },
}
