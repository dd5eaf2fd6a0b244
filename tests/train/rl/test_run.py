"""Whole runs from data and judges to a folder: LoRA on one backbone, samples on the way, lineage, the page, the command."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from truing.core.errors import LineageError, PlanError, UserError  # noqa: E402
from truing.datasets.file import build as file_data  # noqa: E402
from truing.hf.loading import load_causal_lm  # noqa: E402
from truing.specs.parser import parse_spec  # noqa: E402
from truing.specs.resolve import Args, resolve  # noqa: E402
from truing.train.model_folder import read_model_card  # noqa: E402
from truing.train.rl.reward_signals import FunctionSignal  # noqa: E402
from truing.train.rl.run import Options, Shared, Steering, train_rl  # noqa: E402
from truing.train.rl.settings import RLSettings  # noqa: E402
from truing.train.rl.training_page import _ticks, render  # noqa: E402
from truing.train.training_log import read_log  # noqa: E402

TINY: dict[str, Any] = {
    "template": "plain",
    "max_prompt": 16,
    "max_new": 6,
    "steps": 2,
    "prompts": 2,
    "n": 2,
    "lora": 4,
    "tensorboard": False,
    "lr": 1e-2,
    "dtype": "float32",
    "threshold": 0.5,
}


@pytest.fixture(scope="module")
def base(task: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    task.model(0).save_pretrained(folder)
    task.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": p, "id": f"r{k}"}) + "\n"
            for k, p in enumerate(["ash", "bay cob", "dew"])
        )
    )
    return file_data(Args(parse_spec(f"file:{path}")))


def train(
    base: Path,
    data: Any,
    out: Path,
    task: Any,
    method: str = "ppo-lag",
    options: Any = None,
    **given: Any,
) -> Any:
    steer = Steering(
        [FunctionSignal("gold", task.reward)],
        [] if method == "ppo" else [FunctionSignal("risk", task.cost)],
    )
    return train_rl(
        RLSettings(method=method, base=str(base), out=str(out), **{**TINY, **given}),
        [data],
        steer,
        options,
    )


@pytest.mark.parametrize("lora", [4, 0])
def test_a_run_leaves_a_model_folder(
    base: Path, data: Any, task: Any, tmp_path: Path, lora: int
) -> None:
    out = tmp_path / "run"
    result = train(base, data, out, task, lora=lora)
    assert (result.steps, result.done_now, result.left_out) == (2, 2, 0)
    card = read_model_card(out)
    assert (
        card is not None and card.kind == "ppo-lag" and card.lineage.judges and card.lineage.prompts
    )
    after, before = (
        dict(load_causal_lm(str(f), dtype="float32").model.named_parameters()) for f in (out, base)
    )
    moved = max(float((after[k] - before[k]).abs().max()) for k in before)
    assert moved > 1e-4
    assert (out / "adapter" / "adapter_config.json").is_file() == bool(lora)
    assert "<svg" in (out / "training.html").read_text()
    again = train(base, data, out, task, lora=lora)
    assert (again.done_now, again.lineage.hash) == (0, result.lineage.hash)
    with pytest.raises(PlanError, match="other settings"):
        train(base, data, out, task, lora=lora, kl=0.9)


def test_adapters_off_are_the_reference_and_trained_roles_stay_apart(base: Path) -> None:
    from truing.train.rl.policy_models import SharedCrew

    loaded = load_causal_lm(str(base), dtype="float32")
    ids = torch.tensor([[4, 5, 6]])
    plain = loaded.model(input_ids=ids).logits
    crew = SharedCrew(loaded.model, loaded.tokenizer, ("reward_critic", "cost_critic"), rank=4)
    names = {n: {k for k, _ in crew.named(n)} for n in ("actor", *crew.critics)}
    assert not names["actor"] & names["reward_critic"] and "head.weight" in names["cost_critic"]
    with crew.role("actor") as actor:
        actor(input_ids=ids).logits.square().sum().backward()
    assert all(p.grad is None for _, p in crew.named("reward_critic"))
    with torch.no_grad():
        for _, p in crew.named("actor"):
            p.add_(0.1)
    with crew.role("actor") as actor:
        assert not torch.allclose(actor(input_ids=ids).logits, plain)
    with crew.role("reference") as reference:
        torch.testing.assert_close(reference(input_ids=ids).logits, plain, rtol=0, atol=0)
    with crew.role("reward_critic") as critic:
        # A critic starts with values of 0.
        assert float(critic(ids, torch.ones_like(ids)).detach().abs().max()) == 0.0


@pytest.fixture(scope="module")
def scorer(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that supervised training left: an adapter on the same base."""
    from truing.core.types import Conversation
    from truing.train.examples import TrainingExample, TrainingSet
    from truing.train.settings import TrainingSettings
    from truing.train.supervised import train_supervised as supervised

    out = tmp_path_factory.mktemp("rm") / "reward"
    items = tuple(
        TrainingExample(
            name=f"i{k}", conversation=Conversation.of("ash bay"), answers=("gold gold", w)
        )
        for k, w in enumerate(["log", "kit", "jam"])
    )
    settings = TrainingSettings(
        kind="reward",
        base=str(base),
        out=str(out),
        steps=3,
        batch=2,
        lora=4,
        template="plain",
        lr=1e-2,
        benign=0.0,
        max_length=24,
        tensorboard=False,
        dtype="float32",
    )
    supervised(settings, [TrainingSet(spec="x", sha256="", items=items)])
    return out


def test_a_reward_model_on_the_shared_backbone_scores_as_its_judge(
    base: Path, scorer: Path, task: Any
) -> None:
    from truing.core.types import Conversation, Sample
    from truing.judges.preference import PreferenceJudge
    from truing.train.rl.adapter_rewards import AdapterSignal
    from truing.train.rl.policy_models import SharedCrew
    from truing.train.rl.reward_signals import JudgeSignal
    from truing.train.rl.rollout import Prompt, Rollout

    loaded = load_causal_lm(str(base), dtype="float32")
    crew = SharedCrew(loaded.model, loaded.tokenizer, ("reward_critic",), rank=4)
    signal = AdapterSignal.of(crew, str(scorer), "rewards0", read_model_card(scorer).base_sha256)  # type: ignore[union-attr]
    texts = ("gold", "ash log log", "", "kit jam gold elm")
    one = torch.ones(4, 1, dtype=torch.long)
    rollout = Rollout(
        (Prompt(Sample(conversation=Conversation.of("ash bay"), id="a"), (4,)),) * 4,
        (0, 1, 2, 3),
        one,
        one,
        one,
        one.float(),
        (True,) * 4,
        texts,
    )
    ours = signal.score(rollout, cost=False)
    theirs = JudgeSignal(PreferenceJudge.load("reward", scorer)).score(rollout, cost=False)
    assert isinstance(ours[2], str) and isinstance(theirs[2], str)
    for k in (0, 1, 3):
        assert ours[k] == pytest.approx(theirs[k], abs=1e-5)
    assert len({round(float(ours[k]), 4) for k in (0, 1, 3)}) == 3
    assert crew.start("reward_critic", "rewards0")
    with crew.role("reward_critic") as a, torch.no_grad():
        x = a(torch.tensor([[4, 5]]), torch.ones(1, 2, dtype=torch.long))
    with crew.role("rewards0") as b, torch.no_grad():
        torch.testing.assert_close(
            x, b(torch.tensor([[4, 5]]), torch.ones(1, 2, dtype=torch.long)), rtol=0, atol=0
        )


def test_a_shared_reward_model_trains_and_another_base_is_refused(
    base: Path, scorer: Path, data: Any, task: Any, tmp_path: Path
) -> None:
    settings = RLSettings(method="ppo", base=str(base), out=str(tmp_path / "a"), **TINY)
    result = train_rl(settings, [data], Steering([Shared(str(scorer))]))
    assert "reward/reward:reward" in result.last
    assert result.lineage.judges[0].hash == read_model_card(scorer).lineage.hash  # type: ignore[union-attr]
    other = tmp_path / "other"
    task.model(9).save_pretrained(other)
    task.tokenizer().save_pretrained(other)
    with pytest.raises(PlanError, match="another base"):
        train_rl(
            RLSettings(method="ppo", base=str(other), out=str(tmp_path / "b"), **TINY),
            [data],
            Steering([Shared(str(scorer))]),
        )
    with pytest.raises(UserError, match="no reward or cost model"):
        train_rl(
            RLSettings(method="ppo", base=str(base), out=str(tmp_path / "c"), **TINY),
            [data],
            Steering([Shared(str(base))]),
        )


def test_samples_are_measured_by_a_judge_without_part_in_the_training(
    base: Path, data: Any, task: Any, tmp_path: Path
) -> None:
    from truing.evaluation.evaluate import evaluate

    judge = resolve("rules:refusal", "judge")
    folders = []

    def measure(step: int, trainer: Any) -> dict[str, float]:
        folders.append(
            evaluate(
                trainer.policy(f"step-{step}"), data, [judge], tmp_path / "samples" / str(step)
            )
        )
        return {"measured_harmful": 0.25}

    train(
        base,
        data,
        tmp_path / "run",
        task,
        options=Options(measure=measure, watcher=judge),
        sample_every=1,
    )
    answers = [r.text for r in folders[0].responses()]
    assert len(answers) == 3 and all(r.failure is None for r in folders[0].responses())
    assert {j.name for j in folders[0].manifest.lineage.judges} == {"gold", "risk"}
    assert [r.get("measured_harmful") for r in read_log(tmp_path / "run")] == [0.25, 0.25]
    settings = RLSettings(method="ppo", base=str(base), out=str(tmp_path / "x"), **TINY)
    with pytest.raises(LineageError, match="may not measure this run"):
        train_rl(settings, [data], Steering([judge]), Options(watcher=judge))
    assert not (tmp_path / "x" / "log.jsonl").exists()


def test_the_policy_is_a_model_whose_answers_do_not_depend_on_the_batch(
    trainer: Any, task: Any
) -> None:
    from truing.core.types import Conversation, Sampling

    model = trainer("grpo", template="plain").policy("now")
    sampling = Sampling(n=2, max_tokens=6, temperature=1.0, seed=3)
    asked = [Conversation.of(w) for w in ("ash", "bay cob dew", "elm")]

    async def together() -> Any:
        return await asyncio.gather(*(model.generate(c, sampling) for c in asked))

    async def alone() -> Any:
        return [await model.generate(c, sampling) for c in asked]

    one, two = asyncio.run(together()), asyncio.run(alone())
    assert [[a.text for a in x] for x in one] == [[a.text for a in x] for x in two]
    assert all(len(x) == 2 for x in one)


@pytest.mark.parametrize(
    ("low", "high"),
    [(-1.91, 2.31), (0.0625, 0.5), (2.45, 3.43), (-0.5, 0.5), (1e-9, 3e-9), (28.2, 39.6), (0, 1)],
)
def test_axes_have_round_numbers_around_the_curves(low: float, high: float) -> None:
    ticks = _ticks(low, high)
    step = ticks[1] - ticks[0]
    assert (
        2 <= len(ticks) <= 6 and ticks[0] <= low + 1e-9 * step and ticks[-1] >= high - 1e-9 * step
    )
    assert float(f"{step:.0e}") == pytest.approx(step)  # one digit
    assert ticks[0] > low - step and ticks[-1] < high + step


def test_the_page_shows_curves_warnings_and_the_threshold() -> None:
    rows = [
        {
            "step": k,
            "reward_mean": k / 2,
            "cost_mean": 1 - k / 9,
            "episode_cost": 1.0,
            "violation": 0.75,
            "lambda": 1.0 + k,
            "warning": "λ <stands> at its bound" if k == 3 else "",
            "seconds": 2.0 * k,
        }
        for k in range(1, 6)
    ]
    page = render(rows, title="a <run>")
    assert "a &lt;run&gt;" in page and "step 3: λ &lt;stands&gt; at its bound" in page
    assert page.count("<path") == 1 + 2 + 1 and ">threshold 0.25</text>" in page
    assert "Entropy" not in page and "http" not in re.sub(r"width=device-width", "", page)
    assert render([{"step": 1, "reward_mean": 2.0}], title="one").count("<path") == 1


def test_the_live_view_shows_the_course() -> None:
    from rich.console import Console

    from truing.cli.training_monitor import Live, line, spark

    assert spark([0.0, 1.0, 2.0]) == "▁▅█" and spark([]) == "" and spark([1.0, 1.0]) == "▄▄"
    live = Live("ppo-lag:run", 9, threshold=0.1, quiet=True)
    for k in range(1, 4):
        live(
            {
                "step": k,
                "reward_mean": k,
                "episode_cost": 0.5,
                "lambda": 1.0 + k,
                "warning": "look" if k == 2 else "",
            }
        )
    console = Console(record=True, width=120)
    console.print(live.render())
    text = console.export_text()
    assert "step 3/9" in text and "! step 2: look" in text and "▁▅█" in text
    assert line({"step": 3, "reward_mean": 1.0, "lambda": 2.0}, 9) == "step 3/9: reward 1, λ 2"


def test_the_command_trains(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from truing.cli import main

    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "ash"}\n{"prompt": "bay cob"}\n')
    command = [
        "truing",
        "train",
        "grpo",
        "--data",
        f"file:{rows}",
        "--out",
        str(tmp_path / "out"),
        "--base",
        str(base),
        "--template",
        "plain",
        "--max-prompt",
        "16",
        "--max-new",
        "6",
        "--reward",
        "rules:refusal",
        "--cost",
        "rules:refusal",
        "--steps",
        "1",
        "--prompts",
        "2",
        "--lora",
        "2",
        "--dtype",
        "float32",
        "--no-tensorboard",
        "--json",
        "--sample-every",
        "1",
        "--sample-judge",
        "rules:degenerate",
        "--sample-data",
        f"file:{rows}",
    ]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    shown = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert shown["steps"] == 1 and "lambda" in shown["last"] and "measured_true" in shown["last"]
    assert (tmp_path / "out" / "samples" / "step-1" / "manifest.json").is_file()
    monkeypatch.setattr(sys, "argv", [*command[:3], "--generator", "vlm", *command[3:]])
    with pytest.raises(SystemExit):
        main()
    assert "none of local, vllm" in capsys.readouterr().err


def test_a_reward_model_with_another_tokenizer_reads_the_text(
    task: Any, scorer: Path, tmp_path: Path
) -> None:
    """The words of the other tokenizer stand in the reverse order: ids differ, the text is the same."""
    import shutil

    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from truing.core.types import Conversation, Sample
    from truing.hf.loading import load_scalar_model
    from truing.judges.preference import PreferenceJudge
    from truing.train.rl.reward_signals import JudgeSignal
    from truing.train.rl.rollout import Prompt, Rollout

    other = tmp_path / "other"
    shutil.copytree(scorer, other)
    size = len(task.WORDS)
    raw = Tokenizer(
        models.WordLevel(
            {w: (k if k < 2 else size + 1 - k) for k, w in enumerate(task.WORDS)}, unk_token="<pad>"
        )
    )
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")
    tokenizer.save_pretrained(other)
    ids = torch.tensor([[task.GOLD, task.RISK]])
    one = torch.ones_like(ids)
    rollout = Rollout(
        (Prompt(Sample(conversation=Conversation.of("ash bay"), id="a"), (4, 5)),),
        (0,),
        ids,
        one,
        one,
        one.float(),
        (True,),
        ("gold risk",),
    )
    got = JudgeSignal(PreferenceJudge.load("reward", other)).score(rollout, cost=False)[0]
    model, _ = load_scalar_model(other, dtype="float32")
    text = "User: ash bay\n\nAssistant: gold risk"
    row = torch.tensor([[*tokenizer(text).input_ids, tokenizer.eos_token_id]])
    with torch.no_grad():
        want = float(model(row, torch.ones_like(row))[0, -1])
    assert got == pytest.approx(want, abs=1e-5)
    assert got != pytest.approx(
        JudgeSignal(PreferenceJudge.load("reward", scorer)).score(rollout, cost=False)[0], abs=1e-4
    )
