"""A run's policy at work on a chat: the environment's decisions, across processes and accidents."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made_run import make_run
from minilm_files import minilm_folder

import memrl.agent
import memrl.memory
from envs.lockstep import LockstepPaging
from envs.workloads.loading import load_workload
from memrl.actions import Op
from memrl.agent import Agent, Controller, load_controller
from memrl.agent_state import STATE_FILE, AgentError, load_state
from memrl.documents import Document, Episode
from memrl.errors import MemrlError
from memrl.live_paging import LivePaging
from memrl.llm.backend import Reply
from memrl.llm.scripted import ScriptedBackend
from memrl.memory.embedders import HashingEmbedder
from memrl.run_files import read_config
from memrl.saved import load_run
from memrl.table import EpisodeTable, Event
from memrl.table_build import build_table
from memrl.world import WORLD_FILE, load_world

Done = list[tuple[Op, int | None]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("agent") / "run")


@pytest.fixture(scope="module")
def document(run: Path) -> Document:
    return load_workload(load_run(run).config.workload).documents[0]


@pytest.fixture(scope="module")
def controller(run: Path) -> Controller:
    return load_controller(run)


def silent() -> ScriptedBackend:
    return ScriptedBackend(lambda _: "so it is")


def one_episode(controller: Controller, document: Document) -> EpisodeTable:
    """All messages of a document, and questions in between."""
    asked = tuple((10 + 8 * number, number) for number in range(3))
    assert len(document.pages) > 26
    assert len(document.queries) >= 3
    assert controller.world.statistics is not None
    table = build_table(
        [document],
        [Episode(0, 0, len(document.pages), asked)],
        HashingEmbedder(),
        controller.world.statistics,
        name="chat",
    )
    return table.with_prior(controller.scorer.logits(table))


def in_environment(controller: Controller, table: EpisodeTable) -> Done:
    """What the run's policy chooses in the environment."""
    group = LockstepPaging(table, controller.options, num_envs=1)
    observation, done, terminated = group.reset([0]), Done(), False
    while not terminated:
        process = group.process(0)
        action = controller.policy.act(observation, observation["action_mask"])
        op, row = group.layout.decode(int(action))
        page = None
        if op is Op.YIELD and process.query is None:
            page = process.core.victim
        elif op not in (Op.YIELD, Op.NEXT):
            page = (process.candidates() if op is Op.RETRIEVE else process.slot_pages())[row]
        done.append((op, page))
        result = group.step(action.numpy())
        observation, terminated = result.observation, bool(result.terminated[0])
    return done


def in_chat(
    opened: Callable[[], Agent], document: Document, table: EpisodeTable, *, events_a_day: int
) -> Done:
    """What an agent chooses, closed and opened again after every so many events."""
    done, agent = Done(), opened()
    for number in range(int(table.episode_num_events[0])):
        if number and number % events_a_day == 0:
            agent.close()
            agent = opened()
        index = int(table.event_index[0, number])
        if table.event_kind[0, number] == Event.QUERY:
            assert agent.ask(document.queries[index].text).text == "so it is"
        else:
            page = document.pages[index]
            assert agent.hear(page.text, page.speaker) == index
        done += [(move.op, move.page_id) for move in agent.moves if not move.is_forced]
    agent.close()
    return done


def test_a_chat_is_managed_as_the_episode_is(
    run: Path, controller: Controller, document: Document, tmp_path: Path
) -> None:
    table = one_episode(controller, document)

    def opened() -> Agent:
        speakers = document.speakers
        return memrl.agent.open(run, silent(), tmp_path / "memory", speakers=speakers)

    done = in_chat(opened, document, table, events_a_day=20)
    assert done == in_environment(controller, table)
    assert {op for op, _ in done} >= {Op.YIELD, Op.STORE, Op.RETRIEVE}


def test_the_model_reads_main_context_and_may_fail(run: Path) -> None:
    replies = ScriptedBackend(["Porto", Reply("", finish="failed", error="no such luck")])
    with memrl.agent.open(run, replies) as agent:
        for day in range(5):
            agent.hear(f"On day {day} I saw <b>Porto</b>.", "Ana")
        shown = [page.text for page in agent.memory.main.pages]
        first, second = agent.ask("Where was Ana?"), agent.ask("And then?")
        assert agent.prepare("And now?") == [page.text for page in agent.memory.main.pages]
    assert (first.text, first.error) == ("Porto", "")
    assert (second.text, second.error) == ("", "no such luck")
    asked = replies.requests[0].messages[-1].content
    assert "Where was Ana?" in asked
    assert len(shown) == 3
    assert sum(f"On day {day} " in asked for day in range(5)) == 3


def test_the_example_of_the_document_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the policy that comes along: it keeps what Ana says, lets the weather go, finds it."""
    minilm_folder()  # or there is nothing to embed with
    docs = Path(__file__).parents[1] / "docs"
    text = (docs / "agent.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    (tmp_path / "docs").symlink_to(docs)
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "agent.md", "exec"), {})
    *moves, answer, count = out.getvalue().splitlines()
    assert moves == ["STORE 0", *(f"YIELD {page}" for page in range(7))]  # 31, 24 in sight
    assert answer == "in Porto ['RETRIEVE', 'YIELD']"
    assert count == "24"


def test_a_message_cut_off_by_the_end_of_the_process_comes_in_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "memory"
    with memrl.agent.open(run, silent(), folder) as agent:
        agent.hear("one", "Ana")
        agent.hear("two", "B\ud800n")
        with monkeypatch.context() as patch:
            patch.setattr(LivePaging, "arrive", killed)
            with pytest.raises(KeyboardInterrupt):
                agent.hear("three", "Ana")
    with memrl.agent.open(run, silent(), folder) as agent:
        shown = [page.text for page in agent.memory.main.pages]
        assert (shown[0], shown[1][-5:], shown[2]) == ("Ana: one", ": two", "Ana: three")
    state = json.loads((folder / STATE_FILE).read_text())
    assert state["speakers"] == ["Ana", "B\ud800n"]
    assert state["page_speaker"] == [0, 1, -1]


def test_without_its_world_a_run_is_deployed_from_its_data(
    run: Path, controller: Controller, tmp_path: Path
) -> None:
    older = shutil.copytree(run, tmp_path / "older")
    (older / WORLD_FILE).unlink()
    assert load_controller(older).world == controller.world


def damaged(run: Path, folder: Path, name: str, text: str | None) -> Path:
    copy = shutil.copytree(run, folder)
    if text is None:
        (copy / name).unlink()
    else:
        (copy / name).write_text(text)
    return copy


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.yaml", None, "is not the folder of a run"),
        ("config.yaml", "nonsense: 3\n", "none of this version"),
        ("results.json", None, "not finished"),
        ("checkpoint-1/tensors.safetensors", "none", "damaged"),
    ],
)
def test_folders_that_are_no_whole_run_are_refused(
    run: Path, tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    with pytest.raises(MemrlError, match=message) as error:
        memrl.agent.open(damaged(run, tmp_path / "run", name, text), silent(), tmp_path / "memory")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "memory").exists()


def test_a_damaged_world_is_refused(tmp_path: Path) -> None:
    (tmp_path / WORLD_FILE).write_text("{}")
    with pytest.raises(MemrlError, match="damaged"):
        load_world(tmp_path)


def test_runs_and_embedders_that_cannot_manage_a_chat_are_refused(
    run: Path, tmp_path: Path
) -> None:
    with pytest.raises(MemrlError, match="vectors of 256 dimensions"):
        memrl.agent.open(run, silent(), embedder=HashingEmbedder(8))
    config = read_config(run)
    config["workload"] |= {"name": "page_cache"}
    config["paging"] |= {"evict_scope": "any"}
    cache = damaged(run, tmp_path / "cache", "config.yaml", json.dumps(config))
    with pytest.raises(MemrlError, match="page caches, whose pages have no text"):
        memrl.agent.open(cache, silent())


def test_memories_that_no_agent_made_are_refused(
    run: Path, controller: Controller, tmp_path: Path
) -> None:
    with memrl.memory.open(tmp_path / "plain", embedder="hashing") as memory:
        memory.append("hello", "user")
    with pytest.raises(MemrlError, match="made without an agent"):
        memrl.agent.open(run, silent(), tmp_path / "plain")
    with memrl.agent.open(run, silent(), tmp_path / "own") as agent:
        agent.hear("hello")
    state = tmp_path / "own" / STATE_FILE
    whole = state.read_text()
    for text, message in (
        (whole[:20], "damaged"),
        (whole.replace('"clock": 1', '"clock": "x"'), "damaged"),
        (whole.replace('"page_speaker": [-1]', '"page_speaker": [7]'), "damaged"),
        (whole.replace('"version": 1', '"version": 9'), "another version"),
        (whole.replace("pages", "tokens"), "counts in tokens"),
        (whole.replace('"room": [3', '"room": [9'), "has room for 9 in 3 slots and 6 in archival"),
    ):
        state.write_text(text)
        with pytest.raises(AgentError, match=message):
            load_state(tmp_path / "own", controller.options)
