"""Search over the scores of an episode's table: one focus, ranked as the environments rank."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from memrl.options import PagingOptions
from memrl.staging import rank_pages, staging_scores
from memrl.table import EpisodeTable, focus_score_base


class TableSearch:
    """`memrl.memory.paging.Search` over the scores of an episode's table, for one focus."""

    def __init__(
        self,
        table: EpisodeTable,
        options: PagingOptions,
        episode: int,
        available: npt.NDArray[np.bool_],
        *,
        query: int | None = None,
        page: int | None = None,
    ) -> None:
        document = int(table.episode_document[episode])
        first = int(table.episode_first_page[episode])
        width = int(table.episode_num_pages[episode])
        focus_page = None if page is None else page + first
        base = focus_score_base(table, document, query=query, page=focus_page) + first
        row = int(table.page_offset[document]) + first
        if query is not None:
            names = table.query_names[table.query_offset[document] + query]
        else:
            names = table.page_names[row + (page or 0)]
        speaker = table.page_speaker[row : row + width]
        named = (speaker >= 0) & ((names >> np.maximum(speaker, 0)) & 1).astype(bool)
        lexical = table.lexical[base : base + width].astype(np.int64)
        self._is_match = lexical > 0
        self._scores = staging_scores(
            torch.from_numpy(table.dense[base : base + width].astype(np.int64))[None],
            torch.from_numpy(lexical)[None],
            torch.from_numpy(named)[None],
            torch.from_numpy(available[:width])[None],
            options.staging,
        )

    def rank(self, archived: list[int], recall_only: list[int]) -> list[int]:
        """Order all archived pages, and those of recall that match at all; see `Search`."""
        is_hit = np.zeros_like(self._is_match)
        is_hit[recall_only] = True
        is_hit &= self._is_match
        is_hit[archived] = True
        order, num_hits = rank_pages(self._scores, torch.from_numpy(is_hit)[None])
        return order[0, : int(num_hits)].tolist()
