"""What the supervised `truing train` verbs share: the options, reading the data, the bar, the lines at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from truing.core.errors import PlanError
from truing.specs.parser import parse_spec
from truing.specs.resolve import load_object, resolve

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


def for_training(spec: str) -> str:
    """What a set must be asked for before it may train: no contradicted labels, no prompt of a report's half."""
    given = parse_spec(spec)
    if given.kind in ("pku", "pku_saferlhf") and "conflicts" not in given.args:
        return f"{spec},conflicts=drop"
    if given.kind == "builtin" and "half" not in given.args:
        return f"{spec},half=train"
    return spec


@dataclass(frozen=True)
class Job:
    """What every verb is told: the kind, the data, where it goes, how, and whether the result is printed as JSON."""

    kind: str
    data: list[str]
    out: Path
    how: How | None
    json: bool


def go(
    job: Job,
    more: dict[str, Any],
    *,
    chosen: bool = False,
    test: list[str] | None = None,
    wrap: Any = None,
) -> int:
    """Reads the data, trains with `more` settings of the kind, shows what came out."""
    kind, data, out = job.kind, job.data, job.out
    given = job.how or How()
    _hush()
    fields = {k: v for k, v in vars(given).items() if k not in _NOT_SETTINGS}
    settings = load_object("truing.train.settings:TrainingSettings")(
        kind=kind, out=str(out), **fields, **more
    ).checked()
    read = load_object("truing.train.training_data:read_training_set")
    weights = given.weight or [1.0] * len(data)
    if len(weights) != len(data):
        raise PlanError(f"--weight gives {len(weights)} numbers for {len(data)} data sets")
    harmful = bool(given.red_model)
    extra = {
        "chosen": chosen,
        "allow_red_team": given.allow_red_team,
        "limit": given.limit,
        "harmful": harmful,
    }
    sources = [
        read(resolve(for_training(spec), "data"), kind, weight=w, **extra)
        for spec, w in zip(data, weights)
    ]
    tests = {
        spec: read(resolve(spec, "data"), kind, limit=given.limit, testing=True).items
        for spec in test or ()
    }
    load_object("truing.train.training_data:check_no_test_overlap")(sources, tests)
    fill = _benign(kind) if settings.benign else None
    with _Shown(settings, quiet=job.json) as shown:
        result = load_object("truing.train.supervised:train_supervised")(
            settings, sources, fill=fill, wrap=wrap, tell=shown, tests=tests
        )
    return shown.end(result, as_json=job.json)


def _hush() -> None:
    """Keeps the progress bars and load reports of transformers off the terminal."""
    import warnings

    load_object("transformers.utils.logging:set_verbosity_error")()
    load_object("transformers.utils.logging:disable_progress_bar")()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def _benign(kind: str) -> Any:
    """Benign look-alikes to top a preference mix up with."""
    if kind not in ("reward", "cost", "dpo", "kto"):
        return None
    return load_object("truing.train.training_data:read_training_set")(
        resolve("pairs:benign,half=train", "data"), kind
    )


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
        facts = {
            "folder": str(result.folder),
            "steps": result.steps,
            "done_now": result.done_now,
            "last": result.last,
            "evaluation": measured,
            "red_model": result.lineage.red_model,
        }
        if as_json:
            print(msgspec.json.encode(facts).decode())
            return 0
        if not result.done_now:
            print(f"{result.folder}: was trained already ({result.steps} steps)")
        elif result.last:
            numbers = ", ".join(
                f"{k} {v:.4g}"
                for k, v in result.last.items()
                if isinstance(v, float) and k != "seconds"
            )
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
