"""`truing train sft|distil|reward|cost|dpo|kto|best-of-sft`: one supervised loop; the same command goes on where it stopped.

Other kinds of training have files of their own beside this one (`train_rl.py`, `train_moderation.py`); every kind is a
line in `verbs.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from truing.errors import PlanError
from truing.registry import load, parse, resolve

Flag = Annotated[bool, Parameter(negative="")]
Data = Annotated[list[str], Parameter(consume_multiple=True, negative="")]
Weights = Annotated[list[float] | None, Parameter(consume_multiple=True, negative="")]
Tests = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class How:
    """How to train.

    Parameters
    ----------
    base
        The model to start from: smollm2, a folder in the Hugging Face layout, a hub id.
    steps
        Optimiser steps; without it, `epochs` decide.
    epochs
        Passes over the mix.
    batch
        Rows a step, over all processes.
    micro
        Rows that are held in memory at once; changes nothing else.
    lr
        The highest learning rate.
    warmup
        Share of the steps over which the learning rate rises.
    schedule
        How it falls afterwards.
    weight_decay
        AdamW's decay of matrices.
    clip_norm
        The gradient's norm is clipped to this; 0 = not.
    max_length
        Tokens of prompt and answer; long prompts are cut from the left, rows with longer answers left out.
    lora
        Rank of the adapters; 0 trains all weights.
    dtype
        auto (bfloat16 where the hardware has it), float32 or bfloat16; weights stay in float32.
    checkpointing
        Recompute activations instead of keeping them.
    shard
        Spread weights and optimiser over the processes of `accelerate launch` (FSDP2).
    seed
        Seed of initialisation and order.
    save_every
        Steps between checkpoints.
    keep
        Checkpoints that are kept.
    template
        auto (the tokenizer's chat template) or plain.
    held_out
        Share of the prompts that is set apart for measuring.
    limit
        Take only the first so many rows of each data set.
    weight
        How often the rows of each data set count, in the order of --data.
    tensorboard
        Write event files under OUT/tb.
    allow_red_team
        Train on red-teaming dialogues after all.
    red_model
        The reason for training towards harm; marks the folder for good.
    """

    base: str = "smollm2"
    steps: int | None = None
    epochs: float = 1.0
    batch: int = 8
    micro: int = 4
    lr: float = 1e-4
    warmup: float = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    max_length: int = 512
    lora: int = 16
    dtype: str = "auto"
    checkpointing: Flag = False
    shard: Flag = False
    seed: int = 0
    save_every: int = 50
    keep: int = 2
    template: Literal["auto", "plain"] = "auto"
    held_out: float = 0.0
    limit: int | None = None
    weight: Weights = None
    tensorboard: bool = True
    allow_red_team: Flag = False
    red_model: str | None = None


_NOT_SETTINGS = ("limit", "weight", "allow_red_team")


def sft(
    *,
    data: Data,
    out: Path,
    how: How | None = None,
    chosen: Flag = False,
    turns: Literal["last", "all"] = "last",
    json: Flag = False,
) -> int:
    """Supervised fine-tuning on answers; the loss is on the assistant's tokens alone.

    Parameters
    ----------
    data
        Specs of data sets with answers, such as file:rows.jsonl, trl:rows.jsonl or beavertails.
    out
        Where the log, the checkpoints and the model go.
    chosen
        Take the preferred answers of sets of pairs as targets (they are refused without this).
    turns
        Learn the last answer of a dialogue, or all of them.
    json
        Print the result as JSON.
    """
    return _train("sft", data, out, how, json, {"turns": turns}, chosen=chosen)


def reward(
    *,
    data: Data,
    out: Path,
    how: How | None = None,
    level: Literal["sequence", "token"] = "sequence",
    regularization: float = 0.0,
    center: float = 0.0,
    benign: float = 0.3,
    test: Tests = None,
    json: Flag = False,
) -> int:
    """A reward (preference) model: Bradley-Terry on pairs that are ordered by helpfulness.

    Parameters
    ----------
    data
        Specs of data sets with pairs, such as pairs:helpful, file:pairs.jsonl or run:DIR,by=rules:check.
    out
        Where the log, the checkpoints and the model go; the judge is reward:OUT (or preference:OUT).
    level
        Compare scores at the end, or token by token from where the answers part.
    regularization
        Weight of the mean squared score.
    center
        Weight of the squared sum of a pair's scores.
    benign
        Least share of benign look-alikes with the answer preferred, where pairs are about safety.
    test
        Sets of pairs to measure the model on; they are never trained on.
    json
        Print the result as JSON.
    """
    more = {"level": level, "regularization": regularization, "center": center, "benign": benign}
    return _train("reward", data, out, how, json, more, test=test)


def cost(
    *,
    data: Data,
    out: Path,
    how: How | None = None,
    level: Literal["sequence", "token"] = "sequence",
    regularization: float = 0.0,
    benign: float = 0.3,
    test: Tests = None,
    json: Flag = False,
) -> int:
    """A cost model (Safe RLHF): pairs ordered by safety, each answer labelled safe or not; a cost above 0 is unsafe.

    Parameters
    ----------
    data
        Specs of data sets with safety pairs and labels, such as pku.
    out
        Where the log, the checkpoints and the model go; the judge is cost:OUT.
    level
        Compare scores at the end, or token by token from where the answers part.
    regularization
        Weight of the mean squared cost.
    benign
        Least share of benign look-alikes with the answer preferred.
    test
        Sets of pairs to measure the model on; they are never trained on.
    json
        Print the result as JSON.
    """
    more = {"level": level, "regularization": regularization, "benign": benign}
    return _train("cost", data, out, how, json, more, test=test)


def dpo(
    *,
    data: Data,
    out: Path,
    how: How | None = None,
    loss: str = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    benign: float = 0.3,
    json: Flag = False,
) -> int:
    """Direct preference optimisation on pairs, without a reward model.

    Parameters
    ----------
    data
        Specs of data sets with pairs, such as pku or file:pairs.jsonl.
    out
        Where the log, the checkpoints and the model go.
    loss
        One of TRL's fifteen kinds: sigmoid, hinge, ipo, robust, exo_pair, nca_pair, bco_pair, sppo_hard, apo_zero,
        apo_down, aot, aot_unpaired, sft, sigmoid_norm, discopop.
    beta
        How much leaving the reference costs.
    label_smoothing
        Share of labels taken to be wrong (robust, exo_pair, aot, aot_unpaired).
    benign
        Least share of benign look-alikes with the answer preferred.
    json
        Print the result as JSON.
    """
    kinds = load("truing.train.losses:DPO_KINDS")
    if loss not in kinds:
        from truing.errors import nearest

        raise PlanError(f"--loss {loss}: no kind of DPO{nearest(loss, kinds)}")
    more = {"loss": loss, "beta": beta, "label_smoothing": label_smoothing, "benign": benign}
    return _train("dpo", data, out, how, json, more)


def kto(
    *,
    data: Data,
    out: Path,
    how: How | None = None,
    loss: Literal["kto", "apo_zero_unpaired"] = "kto",
    beta: float = 0.1,
    benign: float = 0.3,
    json: Flag = False,
) -> int:
    """Kahneman-Tversky optimisation on single answers that are wanted or unwanted.

    Parameters
    ----------
    data
        Specs of data sets with labelled answers (trl:rows.jsonl, beavertails) or with pairs, which are taken apart.
    out
        Where the log, the checkpoints and the model go.
    loss
        The form of the loss.
    beta
        How much leaving the reference costs.
    benign
        Least share of benign look-alikes with the answer preferred.
    json
        Print the result as JSON.
    """
    return _train("kto", data, out, how, json, {"loss": loss, "beta": beta, "benign": benign})


def distil(
    *,
    data: Data,
    out: Path,
    how: How | None = None,
    prompt: str = "hhh",
    n: int = 2,
    max_tokens: int = 64,
    temperature: float = 1.0,
    direction: Literal["forward", "reverse"] = "forward",
    json: Flag = False,
) -> int:
    """Context distillation: the model learns to answer as it does behind a prompt, and the prompt is dropped.

    Parameters
    ----------
    data
        Specs of data sets whose prompts are asked.
    out
        Where the samples, the log, the checkpoints and the model go.
    prompt
        hhh, hhh-long, or a file, as in prompted:NAME.
    n
        Answers of the prompted model to each prompt.
    max_tokens
        The longest answer.
    temperature
        Of the prompted model's answers.
    direction
        KL(prompted to bare), or the reverse.
    json
        Print the result as JSON.
    """
    given = how or How()
    teacher = load("truing.align:prompted")(resolve(f"local:{given.base}", "model"), prompt)
    spec = _sampled(teacher, data, out, given, (n, max_tokens, temperature))
    # the loop draws each row as often as the mix says; the teacher's prompt is part of what is computed
    return _train("distil", [spec], out, given, json, {"loss": direction, "teacher": prompt}, wrap=teacher.wrap)


def best_of_sft(
    *,
    data: Data,
    out: Path,
    by: str,
    n: int = 8,
    ceiling: str | None = None,
    below: float | None = None,
    how: How | None = None,
    max_tokens: int = 64,
    json: Flag = False,
) -> int:
    """Rejection-sampled fine-tuning: the base answers n times, a judge chooses, the winners are the targets.

    Parameters
    ----------
    data
        Specs of data sets whose prompts are asked.
    out
        Where the samples, the log, the checkpoints and the model go.
    by
        Spec of the judge that chooses, such as reward:DIR; it may not measure the result.
    n
        Answers to choose from.
    ceiling
        Spec of a second judge; answers at or above --below are out.
    below
        The ceiling.
    max_tokens
        The longest answer.
    json
        Print the result as JSON.
    """
    given = how or How()
    limit = resolve(ceiling, "judge") if ceiling else None
    best_of = load("truing.align:best_of")
    model = best_of(resolve(f"local:{given.base}", "model"), n, resolve(by, "judge"), ceiling=limit, below=below)
    spec = _sampled(model, data, out, given, (1, max_tokens, 1.0))
    return _train("sft", [spec], out, given, json, {})


def _sampled(model: Any, data: list[str], out: Path, how: How, draw: tuple[int, int, float]) -> str:
    """Asks a model the prompts of some data sets into run folders under OUT; the spec that reads the answers back."""
    from truing.cli.progress import Bar
    from truing.evaluate import EvaluateOptions, evaluate
    from truing.types import Sampling

    n, max_tokens, temperature = draw
    sampling = Sampling(n=n, max_tokens=max_tokens, temperature=temperature)
    folders = []
    for k, spec in enumerate(data):
        folder = out / f"samples-{k}"
        with Bar(f"asking {spec}") as bar:
            options = EvaluateOptions(sampling=sampling, seed=how.seed, limit=how.limit, progress=bar)
            evaluate(model, resolve(_for_training(spec), "data"), [], folder, options=options)
        folders.append(str(folder))
    return f'run:"{"|".join(folders)}"' if len(folders) > 1 else f"run:{folders[0]}"


def _for_training(spec: str) -> str:
    """What a set must be asked for before it may train: no contradicted labels, no prompt of a report's half."""
    given = parse(spec)
    if given.kind in ("pku", "pku_saferlhf") and "conflicts" not in given.args:
        return f"{spec},conflicts=drop"
    if given.kind == "builtin" and "half" not in given.args:
        return f"{spec},half=train"
    return spec


def _train(
    kind: str,
    data: list[str],
    out: Path,
    how: How | None,
    json: bool,
    more: dict[str, Any],
    *,
    chosen: bool = False,
    test: list[str] | None = None,
    wrap: Any = None,
) -> int:
    """Reads the data, trains, shows what came out."""
    given = how or How()
    _hush()
    fields = {k: v for k, v in vars(given).items() if k not in _NOT_SETTINGS}
    settings = load("truing.train.settings:Settings")(kind=kind, out=str(out), **fields, **more).checked()
    read = load("truing.train.sources:read_source")
    weights = given.weight or [1.0] * len(data)
    if len(weights) != len(data):
        raise PlanError(f"--weight gives {len(weights)} numbers for {len(data)} data sets")
    harmful = bool(given.red_model)
    extra = {"chosen": chosen, "allow_red_team": given.allow_red_team, "limit": given.limit, "harmful": harmful}
    sources = [
        read(resolve(_for_training(spec), "data"), kind, weight=w, **extra) for spec, w in zip(data, weights)
    ]
    tests = {spec: read(resolve(spec, "data"), kind, limit=given.limit, testing=True).items for spec in test or ()}
    load("truing.train.sources:check_apart")(sources, tests)
    fill = _benign(kind) if settings.benign else None
    with _Shown(settings, quiet=json) as shown:
        result = load("truing.train.supervised:train")(
            settings, sources, fill=fill, wrap=wrap, tell=shown, tests=tests
        )
    return shown.end(result, as_json=json)


def _hush() -> None:
    """Keeps the progress bars and load reports of transformers off the terminal."""
    import warnings

    load("transformers.utils.logging:set_verbosity_error")()
    load("transformers.utils.logging:disable_progress_bar")()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def _benign(kind: str) -> Any:
    """Benign look-alikes to top a preference mix up with."""
    if kind not in ("reward", "cost", "dpo", "kto"):
        return None
    return load("truing.train.sources:read_source")(resolve("pairs:benign,half=train", "data"), kind)


class _Shown:
    """A progress bar while the run goes on, and a few lines at its end."""

    def __init__(self, settings: Any, *, quiet: bool) -> None:
        from truing.cli.progress import Bar

        self.settings, self.bar = settings, Bar(settings.kind, quiet=quiet)
        self.total = 0

    def __enter__(self) -> _Shown:
        self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def __call__(self, row: dict[str, Any]) -> None:
        """After each step."""
        self.bar(int(row["step"]), int(row.get("steps", 0)), 0)

    def end(self, result: Any, *, as_json: bool) -> int:
        """What came out."""
        import msgspec

        path = result.folder / "evaluation.json"
        measured = msgspec.json.decode(path.read_bytes()) if path.is_file() else {}
        facts = {"folder": str(result.folder), "steps": result.steps, "done_now": result.done_now, "last": result.last,
                 "evaluation": measured, "red_model": result.lineage.red_model}  # fmt: skip
        if as_json:
            print(msgspec.json.encode(facts).decode())
            return 0
        if not result.done_now:
            print(f"{result.folder}: was trained already ({result.steps} steps)")
        elif result.last:
            numbers = ", ".join(f"{k} {v:.4g}" for k, v in result.last.items() if isinstance(v, float) and k != "seconds")
            print(f"step {result.steps}: {numbers}")
        for name, one in measured.items():
            print(f"  {name}: {_line(one)}")
        judge = self.settings.kind if self.settings.scalar else "local"
        print(f"{result.folder}  ({judge}:{result.folder}, log.jsonl, manifest.json)")
        return 0


def _line(one: dict[str, Any]) -> str:
    shown = [f"{one['pairs']} pairs"]
    for key, word in (("accuracy", "order"), ("sign_accuracy", "sign")):
        found = one.get(key)
        if found and found["n"]:
            low, high = 100 * found["lower"], 100 * found["upper"]
            shown.append(f"{word} {100 * found['estimate']:.1f} % [{low:.1f}, {high:.1f}]")
    if one.get("length_only") is not None:
        shown.append(f"by length alone {100 * one['length_only']:.1f} %")
    if one.get("ece_order") is not None:
        shown.append(f"calibration error {one['ece_order']:.3f}")
    return ", ".join(shown)
