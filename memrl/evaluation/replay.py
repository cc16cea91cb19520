"""Play a test episode of a finished run again, and look at every decision.

    python -m memrl.evaluation.replay runs/chat/seed0 --episode 3
    python -m memrl.evaluation.replay runs/chat/seed0 --episode 3 --beside heuristic
    python -m memrl.evaluation.replay runs/chat/seed0 --episode 3 --html episode.html
    python -m memrl.evaluation.replay runs/chat/seed0 --episode 3 --gif episode.gif

In a terminal left and right go from decision to decision, up and down scroll (q ends); where the
input is no terminal, all of them are listed. Of every decision it shows what has happened since the
one before, the text of every page in sight, its features, and the legal actions with the scores by
which the policy chose: its own, in reward over YIELD. Rules and bounds have none. What no policy
sees (gold answers, needed pages) is told apart.

The policy is the learned one that scored best on the run's validation, or the one named. The
episode is played in the reference environment, on the run's data; return and record are the
evaluation's own, and are compared with what the run wrote down.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from envs.lockstep import LockstepPaging
from envs.render import render_rgb
from memrl.config import ConfigurationError
from memrl.errors import MemrlError
from memrl.evaluation import summary
from memrl.evaluation.play import actions, record_of
from memrl.evaluation.replay_gif import save_gif
from memrl.evaluation.replay_html import html_page
from memrl.evaluation.replay_steps import Replay, Step
from memrl.evaluation.replay_terminal import show
from memrl.evaluation.replay_watch import Watch
from memrl.evaluation.run_world import HEURISTIC, RunWorld, contestant_of, load_run_world
from memrl.policies.base import Contestant
from memrl.policies.network import GreedyGain
from memrl.run_files import EPISODES_FILE, RunError, replace_text

Frames = list[npt.NDArray[np.uint8]]


def replay(world: RunWorld, contestant: Contestant, episode: int) -> tuple[Replay, Frames]:
    """Play an episode, and note every decision and the image of it.

    Args:
        world: of the run. contestant: who plays. episode: number in the run's test table.

    Raises:
        ConfigurationError: if there is no such episode.
    """
    try:
        world.table.check_episode(episode)
    except ValueError as error:
        raise ConfigurationError(f"The run {world.folder}: {error}") from error
    options = replace(world.options, **contestant.overrides)
    group = LockstepPaging(world.table, options, num_envs=1)
    watch = Watch(group)
    steps: list[Step] = []
    frames: Frames = []
    earned = np.zeros(len(group.reward_names))
    observation, terminated = group.reset([episode]), False
    while not terminated:
        scores = None
        if isinstance(contestant.policy, GreedyGain):
            scores = contestant.policy.scores(observation, observation["action_mask"])[0].tolist()
        action = int(actions(group, contestant.policy, observation)[0])
        step = watch.step(observation, action, scores)
        frames.append(render_rgb(group.process(0)))
        result = group.step(np.array([action]))
        terms = dict(zip(group.reward_names, result.reward_terms[0].tolist(), strict=True))
        steps.append(replace(step, reward_terms={k: v for k, v in terms.items() if v}))
        earned += result.reward_terms[0]
        observation, terminated = result.observation, bool(result.terminated[0])
    num_decisions = len(steps)
    steps.append(watch.step(observation, None, None))
    frames.append(render_rgb(group.process(0)))
    record = record_of(
        world.table,
        episode,
        group.log(0),
        dict(zip(group.reward_names, earned.tolist(), strict=True)),
        decisions=num_decisions,
    )
    played = Replay(
        policy=contestant.name,
        settings={**contestant.settings, **contestant.overrides},
        episode=episode,
        document=record.document,
        steps=tuple(steps),
        record=record,
        recorded_return=_recorded_return(world.folder, contestant.name, episode),
    )
    return played, frames


def _recorded_return(folder: Path, name: str, episode: int) -> float | None:
    """Return of an episode in the run's own records, if it is there."""
    path = folder / EPISODES_FILE
    if not path.exists():
        return None
    own = [entry for entry in summary.read_entries(path) if entry.name == name]
    records = [record for entry in own for record in entry.records if record.episode == episode]
    return records[0].episode_return if records else None


def _write(
    replays: Sequence[Replay], frames: Sequence[Frames], html: Path | None, gif: Path | None
) -> None:
    try:
        if html is not None:
            replace_text(html, html_page(replays))
            print(f"written to {html}")
        if gif is not None:
            save_gif(gif, replays, frames)
            print(f"written to {gif}")
    except OSError as error:
        raise RunError(f"The replay cannot be written ({error}): name another file.") from error


def main() -> int:
    """Parse the command line and run it; exit status 1 on errors, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m memrl.evaluation.replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--episode", type=int, required=True, help="number in its test table")
    parser.add_argument("--policy", help="name in the run's table; default: the best learned one")
    parser.add_argument("--beside", help=f"a second policy, or {HEURISTIC} for the best rule")
    parser.add_argument("--html", type=Path, help="write a page instead of showing the episode")
    parser.add_argument("--gif", type=Path, help="write an animation instead of showing it")
    arguments = parser.parse_args()
    try:
        world = load_run_world(arguments.run)
        names = [arguments.policy, *([arguments.beside] if arguments.beside else [])]
        players = [contestant_of(world, name) for name in names]
        played = [replay(world, player, arguments.episode) for player in players]
        replays, frames = [one for one, _ in played], [images for _, images in played]
        if arguments.html is None and arguments.gif is None:
            show(replays)
        else:
            for one in replays:
                print(one.summary)
            _write(replays, frames, arguments.html, arguments.gif)
    except MemrlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
