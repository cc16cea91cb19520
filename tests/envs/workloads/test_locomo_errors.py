from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from qa_fixtures import recorded_files

from envs.workloads.files import DataFileMissingError, DataFormatError
from envs.workloads.locomo import load_locomo


def write(folder: Path, content: object, name: str = "locomo10.json") -> Path:
    (folder / "locomo").mkdir(exist_ok=True)
    path = folder / "locomo" / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def conversation(**fields: Any) -> dict[str, Any]:
    turns = [{"speaker": "Uma", "dia_id": "D1:1", "text": "Hello."}]
    return {"sample_id": "c", "conversation": {"session_1": turns}, "qa": []} | fields


def test_file_order(tmp_path: Path) -> None:
    write(tmp_path, [conversation(sample_id="ten")])
    assert load_locomo(tmp_path).documents[0].document_id == "ten"
    seven = json.dumps([conversation(sample_id="seven")]).encode()
    (tmp_path / "locomo" / "locomo7.json.gz").write_bytes(gzip.compress(seven))
    assert load_locomo(tmp_path).documents[0].document_id == "seven"


def test_absent_errata_are_noted(tmp_path: Path) -> None:
    write(tmp_path, [conversation()])
    note = "errata applied (errata.json is absent)"
    assert load_locomo(tmp_path).repairs[note] == 0
    without = load_locomo(tmp_path, correct_evidence=False, mask_wrong_answers=False)
    assert note not in without.repairs
    assert list(recorded_files(load_locomo(tmp_path))) == ["locomo10.json"]


@pytest.mark.parametrize("variable", [None, "", "/does/not/exist"])
def test_missing_data_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    if variable is None:
        monkeypatch.delenv("MEMRL_DATA", raising=False)
    else:
        monkeypatch.setenv("MEMRL_DATA", variable)
    with pytest.raises(DataFileMissingError) as caught:
        load_locomo(None)
    message = str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)
    for part in ("locomo/locomo7.json.gz", "locomo10.json", "MEMRL_DATA", "CC BY-NC 4.0"):
        assert part in message
    assert "GitHub snap-research/LoCoMo" in message


def test_truncated_gzip(tmp_path: Path) -> None:
    (tmp_path / "locomo").mkdir()
    path = tmp_path / "locomo" / "locomo7.json.gz"
    whole = gzip.compress(json.dumps([conversation()] * 50).encode())
    for damaged in (whole[: len(whole) // 2], b"not gzip at all", whole[:20] + b"\0" * 40):
        path.write_bytes(damaged)
        with pytest.raises(DataFormatError, match="not a whole gzip file"):
            load_locomo(tmp_path)


@pytest.mark.parametrize("raw", [b"", b"[{", b"\xff\xfe[]", b"[" * 100_000])
def test_invalid_json(tmp_path: Path, raw: bytes) -> None:
    write(tmp_path, []).write_bytes(raw)
    with pytest.raises(DataFormatError, match="not valid JSON"):
        load_locomo(tmp_path)


@pytest.mark.parametrize("content", [{}, "text", 3, None])
def test_wrong_top_level_type(tmp_path: Path, content: object) -> None:
    write(tmp_path, content)
    with pytest.raises(DataFormatError, match="a list of conversations"):
        load_locomo(tmp_path)


@pytest.mark.parametrize("content", [[], [conversation(conversation=None)], [7]])
def test_no_conversation_with_turns(tmp_path: Path, content: object) -> None:
    write(tmp_path, content)
    with pytest.raises(DataFormatError, match="no conversation with turns"):
        load_locomo(tmp_path)


def test_repeated_conversation_id(tmp_path: Path) -> None:
    write(tmp_path, [conversation(), conversation()])
    with pytest.raises(DataFormatError, match="more than one conversation with the id c"):
        load_locomo(tmp_path)


def test_errata_as_the_audit_has_them(tmp_path: Path) -> None:
    """It names conversations by their place in the published file, and questions from 0."""
    answered = {"question": "Who?", "answer": "Uma", "evidence": ["D1:1"], "category": 4}
    names = ("conv-26", "conv-41", "conv-50")
    write(tmp_path, [conversation(sample_id=name, qa=[answered, answered]) for name in names])
    ids = ("locomo_0_qa1", "locomo_2_qa0", "locomo_9_qa1", "locomo_1_qa0")
    entries = [{"question_id": name, "error_type": "HALLUCINATION"} for name in ids]
    write(tmp_path, entries, "errata.json")
    workload = load_locomo(tmp_path)
    masked = [[not query.answers for query in own.queries] for own in workload.documents]
    assert masked == [[False, True], [True, False], [False, True]]
    assert workload.repairs["errata entries that match no question ignored"] == 1


@pytest.mark.parametrize(
    "content",
    [
        *({}, [{"sample_id": "c", "qa_index": 0}], ["entry"]),
        *([{"question_id": "locomo_0_qa1"}], [{"question_id": "qa1", "error_type": "AMBIGUOUS"}]),
    ],
)
def test_damaged_errata(tmp_path: Path, content: object) -> None:
    write(tmp_path, [conversation()])
    write(tmp_path, content, "errata.json")
    with pytest.raises(DataFormatError, match=r"errata\.json"):
        load_locomo(tmp_path)
