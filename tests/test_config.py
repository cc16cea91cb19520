from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from envs.workloads.chat import ChatParams
from memrl.config import RunConfig, parse_config, run_settings
from memrl.options import DEFAULT_REWARD, PagingOptions
from memrl.workload_config import ChatConfig

CONFIGS = sorted(
    path
    for path in (Path(__file__).parents[1] / "configs").glob("*.yaml")
    if path.stem != "sweep"  # which is wandb's: tests/test_sweep.py
)


def write(path: Path, values: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a refused command line prints on standard error."""
    with pytest.raises(SystemExit) as stopped:
        parse_config(arguments)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    errors = [line for line in captured.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    return captured.err


# ---------------------------------------------------------------------------------------- presets


def test_the_defaults_are_those_of_the_dataclasses() -> None:
    assert parse_config([]) == RunConfig()


def test_there_are_presets() -> None:
    assert {"default", "locomo"} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_preset_parses_and_says_what_it_holds(path: Path) -> None:
    config = parse_config(["--config", str(path)])
    settings = json.loads(json.dumps(dataclasses.asdict(config)))

    def check(stated: dict[str, Any], resolved: dict[str, Any]) -> None:
        for key, value in stated.items():
            if isinstance(value, dict):
                check(value, resolved[key])
            else:
                assert resolved[key] == value, key

    check(yaml.safe_load(path.read_text(encoding="utf-8")), settings)


def test_every_preset_has_run_folders_of_its_own() -> None:
    names = [parse_config(["--config", str(path)]).name for path in CONFIGS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_preset_begins_with_the_command_that_runs_it(path: Path) -> None:
    comment = [
        line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    ]
    assert any(f"python train.py --config configs/{path.name}" in line for line in comment)


def test_the_locomo_preset_is_the_setting_of_the_trials() -> None:
    (path,) = [path for path in CONFIGS if path.stem == "locomo"]
    config = parse_config(["--config", str(path)])
    assert (config.workload.window_pages, config.workload.max_queries) == (150, 10)
    assert config.workload.ask == "interleaved"
    assert config.split.kind == "leave_one_out"
    options = config.paging
    assert (options.unit, options.capacity, options.archival_capacity) == ("pages", 24, 60)
    assert (options.num_candidates, options.staging) == (16, "hybrid_neighbours")
    reward = options.reward
    costs = (reward.store, reward.evict, reward.retrieve, reward.next, reward.search)
    assert costs == (0.005, 0.01, 0.02, 0.005, 0.005)


def test_the_presets_of_both_policy_gradients_differ_in_what_they_compare_with_alone() -> None:
    """The same data, rules, network, budget, start and schedules; as many rows an iteration."""
    group, ppo = (
        parse_config(["--config", str(path)])
        for stem in ("locomo_gpg", "locomo_ppo")
        for path in CONFIGS
        if path.stem == stem
    )
    first, second = group.policy_gradient, ppo.policy_gradient
    assert first.num_groups * first.group_size == second.num_groups * second.group_size
    same = dataclasses.replace(second, num_groups=first.num_groups, group_size=first.group_size)
    assert same == first
    assert group == dataclasses.replace(
        ppo, policy_gradient=first, name=group.name, algorithm=group.algorithm, ppo=group.ppo
    )


# ---------------------------------------------------------------------------------------- overrides


def test_options_and_later_files_win(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", {"name": "a", "seed": 1, "paging": {"capacity": 7}})
    second = write(tmp_path / "b.yaml", {"name": "b", "paging": {"num_candidates": 3}})
    config = parse_config(["--config", first, "--config", second, "--seed", "9"])
    assert (config.name, config.seed) == ("b", 9)
    assert (config.paging.capacity, config.paging.num_candidates) == (7, 3)
    assert config.paging.archival_capacity == PagingOptions().archival_capacity


def test_what_is_not_overridden_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", {"learner": {"rounds": 2}})
    config = parse_config(["--config", path, "--learner.batch_size", "8"])
    defaults = RunConfig()
    assert config.learner == dataclasses.replace(defaults.learner, rounds=2, batch_size=8)
    assert dataclasses.replace(config, learner=defaults.learner) == defaults


def test_values_of_every_kind_can_be_given() -> None:
    config = parse_config(
        [
            *("--paging.capacity", "0.25", "--paging.archival_capacity", "null"),
            *("--evaluation.top_k", "[1, 4]", "--workload.ask", "end"),
            *("--workload.include_unanswerable", "true", "--wandb_mode", "disabled"),
            *("--workload.chat.num_documents", "5", "--paging.reward.store", "0.5"),
        ]
    )
    assert config.paging.capacity == 0.25
    assert isinstance(config.paging.capacity, float)
    assert config.paging.archival_capacity is None
    assert config.evaluation.top_k == (1, 4)
    assert config.workload.ask == "end"
    assert config.workload.include_unanswerable is True
    assert config.wandb_mode == "disabled"
    assert config.workload.chat.num_documents == 5
    assert config.paging.reward == dataclasses.replace(DEFAULT_REWARD, store=0.5)


def test_whole_numbers_stay_whole() -> None:
    """capacity is absolute as an int and a fraction as a float."""
    capacity = parse_config(["--paging.capacity", "24"]).paging.capacity
    assert capacity == 24
    assert isinstance(capacity, int)


def test_help_lists_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_config(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for key in ("--seed", "--paging.capacity", "--learner.rounds", "--workload.chat.seed"):
        assert key in text


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--nonsense", "3"], "nonsense"),
        (["--paging.nonsense", "3"], "paging.nonsense"),
        (["--learner.rounds", "many"], "learner.rounds"),
        (["--learner.rounds", "1.5"], "learner.rounds"),
        (["--seed", "x"], "seed"),
        (["--resume", "perhaps"], "resume"),
        (["--paging.capacity", "lots"], "paging.capacity"),
        (["--paging.capacity", "0"], "capacity"),
        (["--paging.capacity", "1.5"], "capacity"),
        (["--paging.num_slots", "0"], "num_slots"),
        (["--paging.num_candidates", "-1"], "num_candidates"),
        (["--paging.staging", "psychic"], "paging.staging"),
        (["--paging.reward.store", "-1"], "store"),
        (["--workload.ask", "sometimes"], "workload.ask"),
        (["--workload.name", "letters"], "workload.name"),
        (["--wandb_mode", "loud"], "wandb_mode"),
        (["--evaluation.top_k", "[1, two]"], "evaluation.top_k"),
        (["--config", "missing.yaml"], "missing.yaml"),
    ],
)
def test_mistakes_are_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], key: str
) -> None:
    assert key in refusal(capsys, *arguments)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"nonsense": 3}, "nonsense"),
        ({"paging": {"nonsense": 3}}, "nonsense"),
        ({"learner": {"rounds": "many"}}, "rounds"),
        ({"paging": {"capacity": 0}}, "capacity"),
        ({"seed": None}, "seed"),
        ({"paging": {"reward": {"store": 0.1, "tax": 1.0}}}, "tax"),
    ],
)
def test_mistakes_in_a_preset_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], values: dict[str, Any], key: str
) -> None:
    assert key in refusal(capsys, "--config", write(tmp_path / "preset.yaml", values))


def test_a_preset_that_is_no_yaml_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "preset.yaml").write_text("paging: [capacity: {", encoding="utf-8")
    assert "config" in refusal(capsys, "--config", str(tmp_path / "preset.yaml"))


# Values of the right type that no run could use; (option, value, key that the message names).
UNUSABLE = [
    ("--seed", "-1", "seed"),
    ("--num_envs", "0", "num_envs"),
    ("--shard_bytes", "0", "shard_bytes"),
    ("--device", "abacus", "device"),
    ("--workload.window_pages", "0", "window_pages"),
    ("--workload.max_queries", "0", "max_queries"),
    ("--workload.train_episodes", "0", "train_episodes"),
    ("--network.hidden", "0", "hidden"),
    ("--network.dropout", "1.5", "dropout"),
    ("--learner.episodes_per_round", "0", "episodes_per_round"),
    ("--learner.updates_per_round", "0", "updates_per_round"),
    ("--learner.batch_size", "0", "batch_size"),
    ("--learner.gain_scale", "0", "gain_scale"),
    ("--ppo.gamma", "1.5", "gamma"),
    ("--split.test_frac", "-0.5", "test_frac"),
    ("--evaluation.top_k", "[]", "top_k"),
    ("--workload.document_qa.num_passages", "7", "num_passages"),
    ("--workload.document_qa.num_questions", "0", "num_questions"),
    ("--workload.document_qa.gold_at", "[3]", "set dataset nq"),
    ("--workload.document_qa.gold_at", "[20]", "0..19"),
    ("--workload.document_qa.gold_at", "[2, 2]", "gold_at must be different"),
    ("--workload.babi.tasks", "[0]", "1..20"),
    ("--workload.babi.tasks", "[]", "1..20"),
    ("--workload.babi.tasks", "[3, 3]", "1..20"),
    ("--workload.babi.stories_per_task", "0", "stories_per_task"),
    ("--workload.msc.conversations_per_part", "0", "conversations_per_part"),
    ("--workload.opener.sessions", "0", "1..4"),
    ("--workload.opener.sessions", "5", "1..4"),
]


@pytest.mark.parametrize(("option", "value", "key"), UNUSABLE)
def test_unusable_values_are_refused_before_anything_runs(
    capsys: pytest.CaptureFixture[str], option: str, value: str, key: str
) -> None:
    assert key in refusal(capsys, option, value)


# ---------------------------------------------------------------------------------------- contract


def test_the_chats_fields_are_parameters_of_the_generator() -> None:
    """With the generator's defaults, but for the number of documents."""
    parameters = {field.name: field.default for field in dataclasses.fields(ChatParams)}
    own: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(ChatConfig)}
    del own["seed"]
    assert own.keys() <= parameters.keys()
    assert own.pop("num_documents") > 20
    assert own == {name: parameters[name] for name in own}
    assert ChatParams(num_documents=ChatConfig().num_documents) is not None


def groups(value: Any) -> Iterator[Any]:
    """A dataclass and all that it is made of."""
    yield value
    for field in dataclasses.fields(value):
        if dataclasses.is_dataclass(getattr(value, field.name)):
            yield from groups(getattr(value, field.name))


def test_a_configuration_cannot_be_changed() -> None:
    found = list(groups(parse_config([])))
    assert len(found) >= 9
    for group in found:
        name = dataclasses.fields(group)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(group, name, getattr(group, name))
        hash(group)


def test_settings_leave_out_what_may_differ_on_resuming() -> None:
    started = parse_config(["--seed", "4"])
    resumed = parse_config(
        [
            *("--seed", "4", "--resume", "true", "--runs_dir", "/elsewhere/runs"),
            *("--device", "cpu", "--wandb_mode", "disabled", "--if_used", "number"),
            *("--shard_bytes", "1000000"),  # the checkpoint tells whether its shards are the same
        ]
    )
    assert run_settings(started) == run_settings(resumed)
    other = parse_config(["--seed", "4", "--learner.rounds", "7"])
    assert run_settings(started) != run_settings(other)


def test_settings_hold_no_path_of_this_machine() -> None:
    settings = run_settings(
        parse_config(
            [
                *("--runs_dir", "/somewhere/runs", "--workload.data_dir", "/somewhere/data"),
                *("--workload.embedder", "/somewhere/models/my-model"),
            ]
        )
    )
    text = json.dumps(settings)
    assert "/somewhere" not in text
    assert "my-model" in text


def test_settings_are_json_and_name_every_group() -> None:
    settings = json.loads(json.dumps(run_settings(RunConfig())))
    names = "workload split paging network learner policy_gradient ppo evaluation"
    assert {*names.split()} <= settings.keys()
    assert settings["paging"]["reward"]["retrieve"] == 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workload.nested_kv.levels", "[8]"), "operation_budget 18 or more"),
        (("--paging.capacity", "6"), "paging.capacity 7 or more (now 6)"),
    ],
)
def test_chains_that_nobody_could_follow_are_refused(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_config(["--workload.name", "nested_kv", *arguments])
    assert message in capsys.readouterr().err
    deeper = ("--workload.nested_kv.levels", "[9]", "--paging.operation_budget", "20")
    assert parse_config(["--workload.name", "nested_kv", *deeper]).paging.capacity == 24
