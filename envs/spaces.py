"""The observation space, the same for one episode and for many."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from memrl.actions import ActionLayout
from memrl.observation import COMPACT_FEATURES, FEATURES, GLOBALS, LIMIT


def observation_space(
    layout: ActionLayout, embedding_dim: int | None = None, *, compact: bool = False
) -> spaces.Dict:
    """Space of one observation; see `envs.paging.PagingEnv` for what its parts are.

    Args:
        layout: gives the numbers of rows.
        embedding_dim: length of the embeddings where they are observed, else None.
        compact: see `memrl.observation.observe`.
    """
    num_rows, num_candidates = layout.num_rows, layout.num_candidates
    num_features = len(COMPACT_FEATURES if compact else FEATURES)
    shapes: dict[str, tuple[int, ...]] = {
        "slots": (num_rows, num_features),
        "candidates": (num_candidates, num_features),
        "globals": (len(GLOBALS),),
    }
    if embedding_dim is not None:
        shapes |= {
            "slot_embeddings": (num_rows, embedding_dim),
            "candidate_embeddings": (num_candidates, embedding_dim),
            "focus_embedding": (embedding_dim,),
        }
    dtype = np.float16 if compact else np.float32
    boxes: dict[str, spaces.Space[Any]] = {
        name: spaces.Box(-LIMIT, LIMIT, shape, dtype) for name, shape in shapes.items()
    }
    return spaces.Dict(boxes | {"action_mask": spaces.MultiBinary(layout.num_actions)})
