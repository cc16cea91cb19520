"""`PagingEnv`: a memory hierarchy to control, as a Gymnasium environment."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from envs.lockstep import LockstepPaging, Observation
from envs.render import render_ansi, render_rgb
from envs.spaces import observation_space
from memrl.identity import IDENTITY
from memrl.observation_text import observation_text
from memrl.options import PagingOptions
from memrl.privileged import PrivilegedState
from memrl.table import EpisodeTable

ArrayObservation = dict[str, npt.NDArray[Any]]


class PagingEnv(gymnasium.Env[ArrayObservation, np.int64]):
    """Control what an LLM agent keeps, stores and brings back.

    ## Description
    Pages (messages) arrive one by one at a small main context. When one does not fit, another has
    to leave; it stays in recall, but only pages that were stored in archival can become candidates
    later (`stage_from="archival"`). Now and then a query is asked that needs certain earlier pages.
    The policy decides what to store before it is lost, and what to retrieve before a query is
    answered. The environment advances by itself while nothing is to be decided.

    A table may hold a page cache instead: pages are requested. A hit is paid at once; at a miss the
    page arrives, and only when there is no room for it a decision is asked.

    ## Action Space
    `Discrete(2 + 3 * N + K)` with N = `num_slots` + 1 slot rows (or `shown_slots` + 2, where a
    sample is shown) and K candidate rows:

    | first action | operation | legal |
    |---|---|---|
    | 0 | YIELD: let the victim go / answer the query | always |
    | 1 | NEXT: stage the next K candidates | at a query, while there are more |
    | 2 | EVICT(row) | by `evict_scope`; the last row (the arriving page) by `admission` |
    | 2 + N | STORE(row): copy to archival | page not stored; by `store_scope` the victim or any |
    | 2 + 2N | SEARCH(row): make the page the focus (a use of it), stage again | at a query |
    | 2 + 3N | RETRIEVE(k): bring candidate k in, at the back of the queue | at a query |

    The mask of legal actions is in `observation["action_mask"]`, in `info["action_mask"]` and comes
    from `action_masks()`. An illegal action is counted, costs `illegal`, and acts as YIELD.

    ## Observation Space
    A `Dict`; the columns are named and explained in `memrl.observation`.

    | key | shape | range |
    |---|---|---|
    | `slots` | (N, len(FEATURES)) | [-10, 10] float32; row N-1 is the arriving page |
    | `candidates` | (K, len(FEATURES)) | [-10, 10] float32 |
    | `globals` | (len(GLOBALS),) | [-10, 10] float32 |
    | `action_mask` | (2 + 3N + K,) | {0, 1} int8 |
    | `slot_embeddings` | (N, dim) | [-10, 10] float32; these three only by `observe_embeddings` |
    | `candidate_embeddings` | (K, dim) | [-10, 10] float32 |
    | `focus_embedding` | (dim,) | [-10, 10] float32 |

    Text is in `observation_text()` alone. Needs, future events and source ids are in none of them.

    ## Rewards
    The sum of named terms, each also in `info["reward_terms"]`: `evidence` (share of a query's
    needs in main context when it is answered) and
    `cost/{store,evict,retrieve,search,next,tokens,illegal}`, on the step that causes them. What is
    earned before the first decision is paid with the first step. In a page cache each request pays
    evidence, all or nothing: whether main context holds the page.

    ## Starting State
    Empty memory. `reset(options={"episode": i})` plays episode i of the table; otherwise one is
    drawn.

    ## Episode End
    Termination: the last event has been dealt with. An episode is never truncated.

    ## Information
    `action_mask`, `reward_terms`, `elapsed_events` (events since the decision before), `illegal`.
    Of a page cache also `handles` (random numbers that stay with the pages in the slot rows for one
    episode), `sizes`, `time_in`, `last_use`, `uses`, all (N,) int64: see `memrl.identity`.

    ## Arguments
    `table`: the workload, an `EpisodeTable`. `options`: `PagingOptions`, or its fields as keywords.
    `render_mode`: "ansi" or "rgb_array".

    ## Version History
    - v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": 4,
    }

    def __init__(
        self,
        table: EpisodeTable,
        options: PagingOptions | None = None,
        *,
        render_mode: str | None = None,
        **fields: Any,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"render_mode must be one of {self.metadata['render_modes']}, got {render_mode!r}."
            )
        if options is not None and fields:
            raise ValueError(f"Give `options` or its fields {sorted(fields)}, not both.")
        self.render_mode = render_mode
        self._lockstep = LockstepPaging(table, options or PagingOptions(**fields), num_envs=1)
        self.table = table
        self.options = self._lockstep.options
        self.layout = self._lockstep.layout
        self.action_space = spaces.Discrete(self.layout.num_actions)
        self.observation_space: spaces.Dict = observation_space(  # type: ignore[assignment]
            self.layout, table.page_embedding.shape[1] if self.options.observe_embeddings else None
        )
        self._is_running = False

    # ------------------------------------------------------------------ Gymnasium

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ArrayObservation, dict[str, Any]]:
        """Begin an episode: `options["episode"]`, or one drawn from `np_random`."""
        super().reset(seed=seed)
        unknown = set(options or {}) - {"episode"}
        if unknown:
            raise ValueError(f"reset() knows the option 'episode' only, got {sorted(unknown)}.")
        episode = (options or {}).get("episode")
        if episode is None:
            episode = int(self.np_random.integers(self.table.num_episodes))
        if isinstance(episode, bool) or not isinstance(episode, numbers.Integral):
            raise ValueError(f"The option 'episode' is an integer, got {episode!r}.")
        observation, told = _to_arrays(self._lockstep.reset([int(episode)]))
        self._is_running = True
        return observation, {"action_mask": observation["action_mask"].copy(), **told}

    def step(self, action: np.int64) -> tuple[ArrayObservation, float, bool, bool, dict[str, Any]]:
        """Play one action.

        Raises:
            ValueError: if the action is not an integer of the action space.
            gymnasium.error.ResetNeeded: before the first reset, or after the end of an episode.
        """
        if not self._is_running:
            raise gymnasium.error.ResetNeeded("Call reset() before step(): no episode is running.")
        result = self._lockstep.step(np.array([self._checked(action)]))
        terms = dict(zip(self._lockstep.reward_names, result.reward_terms[0].tolist(), strict=True))
        terminated = bool(result.terminated[0])
        self._is_running = not terminated
        observation, told = _to_arrays(result.observation)
        info = {
            "action_mask": observation["action_mask"].copy(),
            "reward_terms": terms,
            "elapsed_events": int(result.elapsed_events[0]),
            "illegal": bool(result.illegal[0]),
            **told,
        }
        return observation, float(sum(terms.values())), terminated, False, info

    def _checked(self, action: object) -> int:
        value = action.item() if isinstance(action, np.ndarray) and action.size == 1 else action
        if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral):
            raise ValueError(
                f"An action is an integer, got {action!r} of type {type(action).__name__}."
            )
        if not 0 <= int(value) < self.layout.num_actions:
            raise ValueError(f"Action {value} is outside 0..{self.layout.num_actions - 1}.")
        return int(value)

    def render(self) -> str | npt.NDArray[np.uint8] | None:
        """Show the episode as text ("ansi") or as an (H, W, 3) uint8 image ("rgb_array")."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() needs render_mode='ansi' or 'rgb_array' in gym.make.")
            return None
        process = self._lockstep.process(0)
        if self.render_mode == "ansi":
            return render_ansi(process)
        return render_rgb(process)

    # ------------------------------------------------------------------ views

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """(A,) bool, the legal actions; the name that sb3-contrib's MaskablePPO looks for."""
        return self._lockstep.observation()["action_mask"][0].numpy()

    def observation_text(self) -> str:
        """Render the observation for an LLM; see `memrl.observation_text`."""
        observation = {name: value[0] for name, value in self._lockstep.observation().items()}
        return observation_text(observation, self.layout, self._lockstep.shown_texts([0])[0])

    def privileged_state(self) -> PrivilegedState:
        """The one door to needs and future events: for clairvoyant policies, labels and reports."""
        return self._lockstep.privileged_state()


def _to_arrays(observation: Observation) -> tuple[ArrayObservation, ArrayObservation]:
    """Drop the batch axis; mask as int8, the dtype of `MultiBinary`; apart, what `info` tells."""
    arrays = {name: value[0].numpy().copy() for name, value in observation.items()}
    arrays["action_mask"] = arrays["action_mask"].astype(np.int8)
    return arrays, {name: arrays.pop(name) for name in IDENTITY if name in arrays}
