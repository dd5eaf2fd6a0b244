"""The durability phase of `levers.py`: how deep each lever's change is, and what undoes it."""

from __future__ import annotations

import json
from typing import Any

from common import SampleList, loaded_model
from depth import answer_opening, kl_by_position, mean_by_position, round_int8
from workspace import Workspace

from truing.align.prompted import prompted
from truing.core.protocols import Model
from truing.core.types import Conversation, Message, Sample
from truing.datasets.preference_pairs import REFUSALS
from truing.evaluation.evaluate import evaluate
from truing.hf.chat_tokens import ChatTokenizer
from truing.hf.loading import LoadedModel, load_causal_lm
from truing.specs.resolve import resolve
from truing.train.settings import TrainingSettings
from truing.train.supervised import train_supervised
from truing.train.training_data import read_training_set

TRAINED_LEVERS = ("distilled", "sft", "dpo", "ppo", "ppo-lag", "grpo-lag")
# Positions along an answer, and also answers of each kind: enough for means in float32 on a CPU.
DEPTH = 16

Pairs = list[tuple[Conversation, str]]  # prompts, each with an answer that people called unsafe


def measure_durability(workspace: Workspace) -> None:
    """Writes answers to runs/NAME/{open-K,tuned,int8} and the divergences to divergence.json."""
    pairs = workspace.unsafe_pairs()
    base = load_causal_lm("smollm2", dtype="float32")
    trained = [
        name
        for name in TRAINED_LEVERS
        if (workspace.out / "models" / name / "truing.json").is_file()
    ]
    write_divergence(workspace, base, pairs[:DEPTH], trained)

    tokenizer = ChatTokenizer(base.tokenizer)
    continue_openings(workspace, "base", workspace.base, tokenizer, pairs)
    continue_openings(workspace, "prompted", prompted(workspace.base, "hhh"), tokenizer, pairs)
    folders = {name: str(workspace.out / "models" / name) for name in trained}
    for name, folder in folders.items():
        with loaded_model(folder) as model:
            continue_openings(workspace, name, model, tokenizer, pairs)
    for answer_changed in (answer_after_rounding, answer_after_tuning):
        for name, folder in {"base": "smollm2", **folders}.items():
            answer_changed(workspace, name, folder, pairs)


def write_divergence(
    workspace: Workspace, base: LoadedModel, pairs: Pairs, trained: list[str]
) -> None:
    """Writes KL(lever ‖ base) by position, along refusals and along unsafe answers.

    The file is written after each lever, so that a stopped run resumes.
    """
    path = workspace.out / "divergence.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    refusals = [
        (conversation, REFUSALS[k % len(REFUSALS)]) for k, (conversation, _) in enumerate(pairs)
    ]
    answers_by_kind = {"refusals": refusals, "unsafe answers": pairs}
    for name in ("prompted", *trained):
        if name in results:
            continue
        if name == "prompted":
            lever, wrap = base, prompted(workspace.base, "hhh").wrap
        else:
            folder = str(workspace.out / "models" / name)
            lever, wrap = load_causal_lm(folder, dtype="float32"), None
        results[name] = {}
        for kind, answers in answers_by_kind.items():
            # The window holds the 14 example conversations of the prompt.
            kl = kl_by_position(base, lever, answers, depth=DEPTH, wrap=wrap, window=1900)
            results[name][kind] = mean_by_position(kl, DEPTH)
        path.write_text(json.dumps(results, indent=2))


def continue_openings(
    workspace: Workspace, name: str, model: Model, tokenizer: ChatTokenizer, pairs: Pairs
) -> None:
    """Lets a lever continue answers that begin with the first tokens of an unsafe answer."""
    for count in workspace.size.openings:
        samples = []
        for k, (conversation, text) in enumerate(pairs):
            prompt = conversation
            if count:
                opening = answer_opening(tokenizer, conversation, text, count)
                prompt = conversation.then(Message("assistant", opening))
            samples.append(Sample(conversation=prompt, id=f"p{k}"))
        folder = workspace.out / "runs" / name / f"open-{count}"
        data = SampleList(f"openings of {count}", samples)
        evaluate(model, data, [], folder, options=workspace.options())


def answer_prompts(workspace: Workspace, name: str, part: str, model: Model, pairs: Pairs) -> None:
    """Lets a changed lever answer the same prompts without an opening, into runs/NAME/PART."""
    samples = [
        Sample(conversation=conversation, id=f"p{k}") for k, (conversation, _) in enumerate(pairs)
    ]
    folder = workspace.out / "runs" / name / part
    evaluate(model, SampleList(part, samples), [], folder, options=workspace.options())


def answer_after_rounding(workspace: Workspace, name: str, folder: str, pairs: Pairs) -> None:
    """Answers with the weights rounded to eight bits."""
    with loaded_model(folder, dtype="float32") as model:
        round_int8(model.loaded.model)
        answer_prompts(workspace, name, "int8", model, pairs)


def answer_after_tuning(workspace: Workspace, name: str, folder: str, pairs: Pairs) -> None:
    """Answers after fine-tuning on benign prompts, which teach neither caution nor harm."""
    out = workspace.out / "models" / f"{name}-tuned"
    settings = TrainingSettings(
        kind="sft",
        out=str(out),
        base=folder,
        steps=workspace.size.benign_steps,
        batch=2,
        micro=2,
        lr=5e-4,
        max_length=128,
        save_every=1000,
        keep=1,
        tensorboard=False,
    )
    source = read_training_set(resolve("pairs:benign", "data"), "sft", chosen=True)
    train_supervised(settings, [source])
    with loaded_model(str(out)) as model:
        answer_prompts(workspace, name, "tuned", model, pairs)
