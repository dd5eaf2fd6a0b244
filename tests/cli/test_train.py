"""`truing train ...`: the supervised verbs from the command line, the whole loop on a tiny base."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
from tests.models.local.conftest import write

from truing.cli import main
from truing.runs.folder import Run

QUICK = [
    "--steps",
    "3",
    "--batch",
    "4",
    "--lora",
    "2",
    "--dtype",
    "float32",
    "--max-length",
    "128",
    "--no-tensorboard",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write(tmp_path_factory.mktemp("cli"), "llama"))


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    rows = [
        {
            "prompt": f"How do I true wheel {k}?",
            "chosen": f"Slowly, spoke by spoke, {k}.",
            "rejected": "No idea.",
            "signs": [1, -1],
        }
        for k in range(12)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return f"trl:{path}"


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    old = sys.argv
    sys.argv = ["truing", *words]
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    else:
        status = 0
    finally:
        sys.argv = old
    said = capsys.readouterr()
    return status, said.out, said.err


def train(
    capsys: pytest.CaptureFixture[str], kind: str, base: str, out: Path, data: str, *more: str
) -> dict[str, Any]:
    status, said, error = call(
        capsys,
        "train",
        kind,
        "--base",
        base,
        "--data",
        data,
        "--out",
        str(out),
        *QUICK,
        *more,
        "--json",
    )
    assert status == 0, error
    return json.loads(said)


@pytest.mark.parametrize("kind", ["reward", "cost", "dpo", "kto"])
def test_preference_kinds(
    kind: str, base: str, pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = train(capsys, kind, base, tmp_path / "out", pairs)
    assert made["steps"] == made["done_now"] == 3 and made["red_model"] is None
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    # pairs with safety labels are topped up with benign look-alikes, unasked
    assert [s["spec"] for s in manifest["sources"]] == [pairs, "pairs:benign,half=train"]
    assert manifest["benign_share"] == pytest.approx(0.3, abs=0.02)
    again = train(capsys, kind, base, tmp_path / "out", pairs)
    assert again["done_now"] == 0


def test_sft_the_refusal_and_the_flag(
    base: str, pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, error = call(
        capsys,
        "train",
        "sft",
        "--base",
        base,
        "--data",
        pairs,
        "--out",
        str(tmp_path / "o"),
        *QUICK,
    )
    assert status == 1 and "--chosen takes their preferred answers as targets" in error
    made = train(capsys, "sft", base, tmp_path / "out", pairs, "--chosen")
    assert made["last"]["loss"] > 0
    status, said, _ = call(
        capsys,
        "evaluate",
        "--model",
        f"local:{tmp_path / 'out'},dtype=float32",
        "--data",
        "builtin:helpful,limit=3",
        "--judge",
        "rules:check",
        "--out",
        str(tmp_path / "run"),
        "--max-tokens",
        "8",
        "--json",
    )
    assert status == 0 and "helpful" in said


def test_distil_samples_the_prompted_self(
    base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = tmp_path / "prefix.txt"
    prefix.write_text("You are a patient helper who answers in one short sentence.")
    made = train(
        capsys,
        "distil",
        base,
        tmp_path / "out",
        "builtin:helpful,limit=5",
        "--prompt",
        str(prefix),
        "--max-tokens",
        "6",
        "--n",
        "2",
    )
    assert made["steps"] == 3
    run = Run(tmp_path / "out" / "samples-0")
    assert run.manifest.model.startswith("prompted:prefix.txt") and len(list(run.responses())) == 10
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert 8 <= manifest["sources"][0]["rows"] <= 10 and manifest["settings"]["teacher"] == str(
        prefix
    )


def test_best_of_sft_names_the_judge_that_chose(
    base: str, pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(capsys, "reward", base, tmp_path / "reward", pairs)
    judge = f"reward:{tmp_path / 'reward'}"
    train(
        capsys,
        "best-of-sft",
        base,
        tmp_path / "out",
        "builtin:helpful,limit=4",
        "--by",
        judge,
        "--n",
        "3",
        "--max-tokens",
        "6",
    )
    card = json.loads((tmp_path / "out" / "truing.json").read_text())
    assert [j["name"] for j in card["lineage"]["judges"]] == ["reward:reward"]


def test_a_red_model_needs_a_reason(
    base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": f"Q{k}", "chosen": f"a {k}", "rejected": f"b {k}", "signs": [-1, 1]}
        for k in range(5)
    ]
    path = tmp_path / "turned.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    words = [
        "train",
        "dpo",
        "--base",
        base,
        "--data",
        f"trl:{path}",
        "--out",
        str(tmp_path / "o"),
        *QUICK,
    ]
    status, _, error = call(capsys, *words)
    assert status == 1 and "--red-model REASON" in error
    status, said, error = call(capsys, *words, "--red-model", "to test the gate", "--json")
    assert status == 0 and json.loads(said)["red_model"].startswith("to test the gate"), error


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["dpo", "--loss", "sigmoit"], "did you mean 'sigmoid'"),
        (["dpo", "--weight", "1", "2"], "--weight: 2 numbers for 1 data sets"),
        (["dpo", "--batch", "0"], "batch = 0: must be at least 1"),
        (["reward", "--data", "trl:nowhere.jsonl"], "no such file"),
    ],
)
def test_faults(
    words: list[str],
    fault: str,
    base: str,
    pairs: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = [] if "--data" in words else ["--data", pairs]
    status, _, error = call(
        capsys, "train", *words, *data, "--base", base, "--out", str(tmp_path / "o")
    )
    assert status == 1 and fault in error
