"""`truing train sft|dpo|kto|reward|cost|distil|best-of-sft|iterative-dpo` on a tiny base model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command_line import run_truing, truing
from tests.models.local.conftest import write as write_model

from truing.runs.folder import Run

QUICK = "--steps 3 --batch 4 --lora 2 --dtype float32 --max-length 128 --no-tensorboard"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base"), "llama")


def write_pairs(path: Path, count: int, signs: list[int]) -> str:
    """Writes pairs with safety labels (+1 safe, -1 unsafe); returns their data spec."""
    rows = [
        {
            "prompt": f"How do I true wheel {k}?",
            "chosen": f"Slowly, spoke by spoke, {k}.",
            "rejected": "No idea.",
            "signs": signs,
        }
        for k in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"trl:{path}"


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    return write_pairs(tmp_path / "pairs.jsonl", 12, [1, -1])


def train(kind: str, base: Path, out: Path, data: str, *flags: object) -> dict[str, Any]:
    """Trains, and returns the printed JSON."""
    printed = run_truing(
        f"train {kind} {QUICK} --json", "--base", base, "--data", data, "--out", out, *flags
    )
    return json.loads(printed.splitlines()[-1])


def read_manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


@pytest.mark.parametrize("kind", ["reward", "cost", "dpo", "kto"])
def test_preference_kinds(kind: str, base: Path, pairs: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = train(kind, base, out, pairs)
    assert result["steps"] == result["done_now"] == 3
    assert result["red_model"] is None
    # Pairs with safety labels are topped up with benign look-alikes by default.
    manifest = read_manifest(out)
    assert [s["spec"] for s in manifest["sources"]] == [pairs, "pairs:benign,half=train"]
    assert manifest["benign_share"] == pytest.approx(0.3, abs=0.02)
    assert train(kind, base, out, pairs)["done_now"] == 0


def test_sft_takes_pairs_only_with_a_flag(base: Path, pairs: str, tmp_path: Path) -> None:
    flags = ("--base", base, "--data", pairs, "--out", tmp_path / "refused")
    result = truing(f"train sft {QUICK}", *flags)
    assert result.status == 1
    assert "--chosen takes their preferred answers as targets" in result.err

    out = tmp_path / "out"
    assert train("sft", base, out, pairs, "--chosen")["last"]["loss"] > 0
    printed = run_truing(
        "evaluate --data builtin:helpful,limit=3 --judge rules:check --max-tokens 8 --json",
        "--model",
        f"local:{out},dtype=float32",
        "--out",
        tmp_path / "run",
    )
    assert json.loads(printed)["responses"] == 3


def test_distil_samples_the_prompted_model(base: Path, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("You are a patient helper who answers in one short sentence.")
    out = tmp_path / "out"
    flags = ("--prompt", prompt, "--max-tokens", 6, "--n", 2)
    assert train("distil", base, out, "builtin:helpful,limit=5", *flags)["steps"] == 3
    samples = Run(out / "samples-0")
    assert samples.manifest.model.startswith("prompted:prompt.txt")
    assert len(list(samples.responses())) == 10
    manifest = read_manifest(out)
    assert 8 <= manifest["sources"][0]["rows"] <= 10
    assert manifest["settings"]["teacher"] == str(prompt)


def test_best_of_sft_records_the_judge_that_chose(base: Path, pairs: str, tmp_path: Path) -> None:
    train("reward", base, tmp_path / "reward", pairs)
    out = tmp_path / "out"
    flags = ("--by", f"reward:{tmp_path / 'reward'}", "--n", 3, "--max-tokens", 6)
    train("best-of-sft", base, out, "builtin:helpful,limit=4", *flags, "--temperature", 0.5)
    assert Run(out / "samples-0").manifest.plan["temperature"] == 0.5
    card = json.loads((out / "truing.json").read_text())
    assert [judge["name"] for judge in card["lineage"]["judges"]] == ["reward:reward"]


def test_rounds_begin_with_the_model_of_the_round_before(base: Path, tmp_path: Path) -> None:
    """RAFT and DPO on own samples: two rounds; the same command repeats nothing."""
    for kind, by in (("best-of-sft", "rules:degenerate"), ("iterative-dpo", LENGTH_JUDGE)):
        out = tmp_path / kind
        flags = ("--by", by, "--n", 4, "--max-tokens", 6, "--rounds", 2)
        result = train(kind, base, out, "builtin:helpful,limit=4", *flags)
        assert result["steps"] == 3
        first, last = (read_manifest(folder) for folder in (out / "round-1", out))
        assert first["base_sha256"] != last["base_sha256"]
        card = json.loads((out / "truing.json").read_text())
        assert [judge["name"] for judge in card["lineage"]["judges"]] == [by.partition(",")[0]]
        samples = [Run(folder / "samples-0").manifest.model for folder in (out / "round-1", out)]
        assert samples[0] != samples[1]
        assert train(kind, base, out, "builtin:helpful,limit=4", *flags)["done_now"] == 0


def answer_length(prompt: str, answer: str) -> float:
    """Used by spec below: a judge that likes long answers."""
    return float(len(answer))


LENGTH_JUDGE = f"python:{__name__}:answer_length,question=long"


def test_pairs_need_two_answers_and_rounds_one(base: Path, tmp_path: Path) -> None:
    flags = ("--base", base, "--data", "builtin:helpful,limit=4", "--out", tmp_path / "out")
    for arguments, message in (("--n 1", "at least 2 answers"), ("--rounds 0", "at least 1")):
        result = truing(f"train iterative-dpo --by rules:refusal {arguments}", *flags)
        assert result.status == 1
        assert message in result.err
    greedy = truing("train best-of-sft --by rules:refusal --temperature 0", *flags)
    assert greedy.status == 1 and "--temperature = 0.0: above 0" in greedy.err


def test_training_towards_harm_needs_a_reason(base: Path, tmp_path: Path) -> None:
    harmful = write_pairs(tmp_path / "harmful.jsonl", 5, [-1, 1])
    flags = ("--base", base, "--data", harmful, "--out", tmp_path / "refused")
    result = truing(f"train dpo {QUICK}", *flags)
    assert result.status == 1
    assert "--red-model REASON" in result.err
    result = train("dpo", base, tmp_path / "out", harmful, "--red-model", "to test the gate")
    assert result["red_model"].startswith("to test the gate")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("dpo --loss sigmoit", "did you mean 'sigmoid'"),
        ("dpo --loss orpo --sft-weight 1", "sft_weight = 1.0"),
        ("dpo --weight 1 2", "--weight: 2 numbers for 1 data sets"),
        ("dpo --batch 0", "batch = 0"),
        ("reward --data trl:nowhere.jsonl", "no such file"),
    ],
)
def test_faults(flags: str, message: str, base: Path, pairs: str, tmp_path: Path) -> None:
    data = [] if "--data" in flags else ["--data", pairs]
    result = truing(f"train {flags}", *data, "--base", base, "--out", tmp_path / "out")
    assert result.status == 1
    assert message in result.err


# -- probe


def write_labelled(path: Path, count: int = 40) -> str:
    """Writes answers that people called harmful or not; returns their data spec."""
    rows = [
        {
            "prompt": f"How do I true wheel {k}?",
            "response": "the cat sat on the mat" if k % 2 else "rain rain rain",
            "harmful": bool(k % 2),
        }
        for k in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"file:{path}"


def test_probe_trains_and_judges(base: Path, tmp_path: Path) -> None:
    data, out = write_labelled(tmp_path / "rows.jsonl"), tmp_path / "probe"
    shown = run_truing(
        "train probe --dtype float32 --max-length 256", "--base", base, "--data", data, "--out", out
    )
    assert "40 labels, 20 true: held-out AUROC 1.00" in shown
    assert f"truing judge RUN --judge probe:{out}" in shown
    printed = run_truing(
        "train probe --dtype float32 --max-length 256 --json",
        "--base",
        base,
        "--data",
        data,
        "--out",
        out,
    )
    result = json.loads(printed.splitlines()[-1])
    assert result["layer"] == 2
    assert result["questions"]["harmful"]["n_true"] == 20
    rows = tmp_path / "judged.jsonl"
    run_truing(
        "moderate --prefix probe_",
        *("--in", tmp_path / "rows.jsonl", "--out", rows, "--judge", f"probe:{out}"),
    )
    flagged = [json.loads(line)["probe_harmful"] > 0.5 for line in rows.read_text().splitlines()]
    assert flagged == [bool(k % 2) for k in range(40)]


def test_probe_learns_what_people_labelled_in_a_run(base: Path, tmp_path: Path) -> None:
    """`truing label` stores labels beside the run; judges' verdicts count only if they are named."""
    run = tmp_path / "run"
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "how to true wheel {k}?"}}\n' for k in range(60)))
    run_truing(
        "evaluate --model scripted:mixed --judge rules:refusal --judge rules:degenerate",
        *("--data", f"file:{prompts}", "--out", run),
    )
    run_truing("label --n 60 --draw-only --question helpful", run)
    responses = [(r.sample_id, r.text) for r in Run(run).responses()]
    labels = tmp_path / "labels.jsonl"
    labels.write_text(
        "".join(
            json.dumps({"sample_id": key, "question": "helpful", "verdict": k % 2 == 0}) + "\n"
            for k, (key, _) in enumerate(sorted(responses))
        )
    )
    run_truing("label --question helpful --rater ann", run, "--labels", labels)
    words = ("--base", base, "--data", f"run:{run}", "--out", tmp_path / "p")
    flags = "train probe --dtype float32 --max-length 256 --json"
    result = json.loads(run_truing(flags, *words).splitlines()[-1])
    assert {name: q["n"] for name, q in result["questions"].items()} == {"helpful": 60}
    card = json.loads((tmp_path / "p" / "truing.json").read_text())
    assert card["lineage"]["judges"] == []

    result = json.loads(run_truing(f"{flags} --by rules:refusal", *words).splitlines()[-1])
    assert sorted(result["questions"]) == ["helpful", "refused"]
    card = json.loads((tmp_path / "p" / "truing.json").read_text())
    assert [judge["name"] for judge in card["lineage"]["judges"]] == ["rules:refusal"]

    wrong = truing(f"{flags} --by rules:refusl", *words)
    assert wrong.status == 1
    assert "--by rules:refusl: no data set has its verdicts" in wrong.err


def test_probe_without_labels_or_with_too_few(base: Path, tmp_path: Path) -> None:
    few = write_labelled(tmp_path / "few.jsonl", 8)
    result = truing(
        "train probe --max-length 256", "--base", base, "--data", few, "--out", tmp_path / "p"
    )
    assert result.status == 1
    assert "a probe needs answers to at least 10 prompts" in result.err
    assert not (tmp_path / "p" / "truing.json").exists()
