from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from truing.core.errors import DataError, MissingExtra, PlanError, SpecError
from truing.datasets.base import assign_half
from truing.specs.resolve import resolve


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


EVAL = [
    {"prompt": f"own prompt {n}", "category": c, "category_id": 0}
    for n, c in enumerate(["animal_abuse", "self_harm", "self_harm", "privacy_violation"])
]


def ids(spec: str) -> list[str]:
    return [row.sample.id for row in resolve(spec, "data").rows()]


def test_filters_do_not_change_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "evaluation_prompts.jsonl", *EVAL, *EVAL)
    whole = ids(f"beavertails:{path}")
    assert len(set(whole)) == 8 and whole[4] == f"{whole[0]}-1"
    assert ids(f"beavertails:{path},limit=3") == whole[:3]
    assert ids(f"beavertails:{path},limit=0") == []
    assert ids(f"beavertails:{path},category=self_harm") == [whole[1], whole[2], whole[5], whole[6]]
    assert ids(f"beavertails:{path},category=self_harm|animal_abuse,limit=2") == whole[:2]
    assert ids(f"beavertails:{path},distinct=true") == whole[:4]
    halves = [ids(f"beavertails:{path},half={h}") for h in ("train", "report")]
    assert sorted(halves[0] + halves[1]) == sorted(whole) and not set(halves[0]) & set(halves[1])
    assert ids(f"beavertails:{tmp_path},part=evaluation") == whole


def test_halves_go_by_the_normalised_prompt() -> None:
    assert assign_half("Hello  there!") == assign_half("hello there")
    train = sum(assign_half(f"prompt {n}") == "train" for n in range(2000))
    assert 900 < train < 1100


def test_replay_leaves_the_recorded_answers_out(tmp_path: Path) -> None:
    row = {
        "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
        "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: e",
    }
    path = write(tmp_path / "a.jsonl", row)
    (replayed,) = resolve(f"hh:{path},replay=true", "data").rows()
    assert replayed.responses == () and replayed.judgements == ()
    assert [m.content for m in replayed.sample.conversation.messages] == ["a", "b", "c"]
    assert replayed.sample.conversation.last.role == "user"
    assert ids(f"hh:{path}") == [replayed.sample.id]


def test_hash_is_the_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *EVAL)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    assert resolve(f"beavertails:{path}", "data").sha256() == sha
    assert resolve(f"beavertails:{path},limit=1", "data").sha256() == sha


def test_data_folder_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beavertails").mkdir()
    write(tmp_path / "beavertails" / "evaluation_prompts.jsonl", *EVAL)
    monkeypatch.setenv("TRUING_DATA", str(tmp_path))
    assert len(ids("beavertails,part=evaluation")) == 4
    with pytest.raises(DataError, match="looked for qa_14_categories.jsonl"):
        ids("beavertails")
    with pytest.raises(DataError, match="no such folder"):
        ids("xstest")
    monkeypatch.delenv("TRUING_DATA")
    with pytest.raises(
        SpecError, match=r"beavertails:PATH.*PKU-Alignment/BeaverTails.*TRUING_DATA"
    ):
        ids("beavertails")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ("part=evaluations", "did you mean 'evaluation'"),
        ("half=left", "neither train nor report"),
        ("limit=-1", "negative"),
        ("limit=x", "whole number"),
        ("category=selfharm", "did you mean 'self_harm'"),
        ("skip_malformed=maybe", "neither true nor false"),
        ("lmit=3", "did you mean 'limit'"),
        ("taxonomy=nowhere.toml", "no such taxonomy"),
    ],
)
def test_bad_arguments(more: str, word: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *EVAL)
    with pytest.raises((SpecError, PlanError), match=word):
        resolve(f"beavertails:{path},{more}", "data")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        resolve(f"beavertails:{tmp_path}/none.jsonl", "data")
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no rows"):
        ids(f"beavertails:{tmp_path}/a.jsonl")
    with pytest.raises(DataError, match="no rows"):
        list(resolve(f"pku:{tmp_path}/a.jsonl", "data").preferences())


def test_hub_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"truing\[hub\]"):
        resolve("beavertails:own-name/own-set", "data")


def test_hub_files_are_read_from_the_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub as hub

    asked: dict[str, object] = {}

    def snapshot(name: str, **more: object) -> str:
        asked.update(more, name=name)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    write(tmp_path / "evaluation_prompts.jsonl", *EVAL)
    assert len(ids("beavertails:own-name/own-set,part=evaluation,revision=v1")) == 4
    assert (
        asked["name"] == "own-name/own-set"
        and asked["revision"] == "v1"
        and asked["repo_type"] == "dataset"
    )
    assert "evaluation_prompts.jsonl" in asked["allow_patterns"]
    with pytest.raises(DataError, match="the repository has no file that matches"):
        ids("beavertails:own-name/own-set")

    def fails(name: str, **more: object) -> str:
        raise OSError("no route")

    monkeypatch.setattr(hub, "snapshot_download", fails)
    with pytest.raises(DataError, match="the download from the hub failed: no route"):
        ids("beavertails:own-name/own-set")


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(EVAL[0]) + "\nbroken\n")
    rows = resolve(f"beavertails:{path}", "data").rows()
    assert next(rows).sample.harms == ("animal_abuse",)
    with pytest.raises(DataError, match=r"a\.jsonl:2"):
        next(rows)
