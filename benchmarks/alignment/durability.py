"""The durability phase of `levers.py`: how deep each lever's change reaches, and what brings the old answers back."""

from __future__ import annotations

import json
from typing import Any

from depth import kl_along, mean_by_position, opening, round_int8
from levers import Listed, loaded, started

from truing.align import prompted
from truing.core.types import Sample
from truing.datasets.made import REFUSALS
from truing.evaluation.evaluate import evaluate
from truing.hf.chat_tokens import ChatTokenizer
from truing.hf.loading import LoadedModel, load_causal_lm
from truing.specs.resolve import resolve
from truing.train.settings import TrainingSettings
from truing.train.supervised import train_supervised
from truing.train.training_data import read_training_set

TRAINED = ("distilled", "sft", "dpo", "ppo", "ppo-lag", "grpo-lag")
DEPTH = 16


def durable(bench: Any) -> None:
    """Everything; answers into runs/NAME/{open-K,tuned,int8}, the divergences into divergence.json."""
    pairs = bench.prefilled()
    base = load_causal_lm("smollm2", dtype="float32")
    trained = [n for n in TRAINED if (bench.out / "models" / n / "truing.json").is_file()]
    divergence(
        bench, base, pairs[:DEPTH], trained
    )  # sixteen rows of each kind say enough, in float32
    turns = ChatTokenizer(base.tokenizer)
    openings(bench, "base", bench.base, turns, pairs)
    openings(bench, "prompted", prompted(bench.base, "hhh"), turns, pairs)
    folders = {"base": "smollm2"} | {n: str(bench.out / "models" / n) for n in trained}
    for name in trained:
        with loaded(folders[name]) as model:
            openings(bench, name, model, turns, pairs)
    for word in (rounded, retuned):
        for name, folder in folders.items():
            word(bench, name, folder, pairs)


def divergence(bench: Any, base: LoadedModel, pairs: list[Any], trained: list[str]) -> None:
    """KL(lever ‖ base) at each position along refusals and along answers that people called unsafe."""
    target = bench.out / "divergence.json"
    found: dict[str, Any] = json.loads(target.read_text()) if target.is_file() else {}
    texts = {
        "refusals": [(c, REFUSALS[k % len(REFUSALS)]) for k, (c, _) in enumerate(pairs)],
        "unsafe answers": pairs,
    }
    for name in ("prompted", *trained):
        if name in found:
            continue
        prompt = name == "prompted"
        lever = (
            base if prompt else load_causal_lm(str(bench.out / "models" / name), dtype="float32")
        )
        wrap = prompted(bench.base, "hhh").wrap if prompt else None
        found[name] = {
            kind: mean_by_position(
                kl_along(base, lever, given, depth=DEPTH, wrap=wrap, window=1900), DEPTH
            )
            for kind, given in texts.items()
        }
        target.write_text(json.dumps(found, indent=2))


def openings(bench: Any, name: str, model: Any, turns: ChatTokenizer, pairs: list[Any]) -> None:
    """Answers that go on from the first tokens of an unsafe answer."""
    for k in bench.size.openings:
        samples = []
        for at, (conversation, text) in enumerate(pairs):
            begun = opening(turns, conversation, text, k)
            samples.append(
                Sample(
                    conversation=started(conversation, begun) if k else conversation, id=f"p{at}"
                )
            )
        folder = bench.out / "runs" / name / f"open-{k}"
        evaluate(model, Listed(f"openings of {k}", samples), [], folder, options=bench.options())


def plainly(bench: Any, name: str, word: str, model: Any, pairs: list[Any]) -> None:
    """Answers to the same prompts without an opening."""
    samples = [Sample(conversation=c, id=f"p{at}") for at, (c, _) in enumerate(pairs)]
    folder = bench.out / "runs" / name / word
    evaluate(model, Listed(word, samples), [], folder, options=bench.options())


def rounded(bench: Any, name: str, folder: str, pairs: list[Any]) -> None:
    """After rounding to eight bits."""
    with loaded(folder, dtype="float32") as model:
        round_int8(model.loaded.model)
        plainly(bench, name, "int8", model, pairs)


def retuned(bench: Any, name: str, folder: str, pairs: list[Any]) -> None:
    """After fine-tuning on answers to benign prompts, which teach neither caution nor harm."""
    out = bench.out / "models" / f"{name}-tuned"
    given = TrainingSettings(
        kind="sft",
        out=str(out),
        base=folder,
        steps=bench.size.benign_steps,
        batch=2,
        micro=2,
        lr=5e-4,
        max_length=128,
        save_every=1000,
        keep=1,
        tensorboard=False,
    )
    train_supervised(
        given, [read_training_set(resolve("pairs:benign", "data"), "sft", chosen=True)]
    )
    with loaded(str(out)) as model:
        plainly(bench, name, "tuned", model, pairs)
