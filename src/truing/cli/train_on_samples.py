"""`truing train distil|best-of-sft`: trains a model on its own (improved) answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import Parameter

from truing.align.best_of import best_of
from truing.align.prompted import prompted
from truing.cli.parameters import Flag, Strings
from truing.cli.progress import ProgressBar
from truing.cli.training import TrainingFlags, TrainingJob, run_training, spec_for_training
from truing.core.protocols import Judge, Model
from truing.core.types import Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.specs.parser import redact_spec
from truing.specs.resolve import resolve
from truing.train.frozen_prompts import TrainableRows


@Parameter(name="*")
@dataclass(frozen=True)
class TeacherFlags:
    """How the prompted model answers.

    Parameters
    ----------
    n
        Answers to each prompt.
    max_tokens
        Maximum tokens of an answer.
    temperature
        Sampling temperature of the answers.
    """

    n: int = 2
    max_tokens: int = 64
    temperature: float = 1.0


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BestOfFlags:
    """Who chooses the best answer, and from how many.

    Parameters
    ----------
    by
        Spec of the judge that chooses, such as reward:DIR; it must not measure the result.
    n
        Answers to choose from.
    ceiling
        Spec of a second judge; answers that it scores at --below or higher are not chosen.
    below
        The limit for --ceiling.
    max_tokens
        Maximum tokens of an answer.
    """

    by: str
    n: int = 8
    ceiling: str | None = None
    below: float | None = None
    max_tokens: int = 64


def distil(
    *,
    data: Strings,
    out: Path,
    flags: TrainingFlags | None = None,
    prompt: str = "hhh",
    teacher: TeacherFlags | None = None,
    direction: Literal["forward", "reverse"] = "forward",
    json: Flag = False,
) -> int:
    """Context distillation: the model learns to answer without a prompt as it does with it.

    Parameters
    ----------
    data
        Specs of data sets whose prompts are answered.
    out
        Folder for the samples, the log, the checkpoints and the model.
    prompt
        hhh, hhh-long, or a file, as in prompted:NAME.
    direction
        Forward KL(with prompt || without), or the reverse.
    json
        Print the result as JSON.
    """
    flags, teacher = flags or TrainingFlags(), teacher or TeacherFlags()
    prompted_model = prompted(resolve(f"local:{flags.base}", "model"), prompt)
    sampling = Sampling(n=teacher.n, max_tokens=teacher.max_tokens, temperature=teacher.temperature)
    spec = _sample_answers(prompted_model, data, out, flags, sampling)
    # The prompt is part of the settings: another one gives another model.
    settings = {"loss": direction, "teacher": prompt}
    job = TrainingJob("distil", [spec], out, flags, json)
    return run_training(job, settings, teacher=prompted_model)


def best_of_sft(
    *,
    data: Strings,
    out: Path,
    choice: BestOfFlags,
    flags: TrainingFlags | None = None,
    json: Flag = False,
) -> int:
    """Rejection-sampled fine-tuning: the base model learns from the best of its n answers.

    Parameters
    ----------
    data
        Specs of data sets whose prompts are answered.
    out
        Folder for the samples, the log, the checkpoints and the model.
    json
        Print the result as JSON.
    """
    flags = flags or TrainingFlags()
    ceiling: Judge | None = resolve(choice.ceiling, "judge") if choice.ceiling else None
    judge: Judge = resolve(choice.by, "judge")
    base: Model = resolve(f"local:{flags.base}", "model")
    best = best_of(base, choice.n, judge, ceiling=ceiling, below=choice.below)
    sampling = Sampling(n=1, max_tokens=choice.max_tokens, temperature=1.0)
    spec = _sample_answers(best, data, out, flags, sampling)
    return run_training(TrainingJob("sft", [spec], out, flags, json), {})


def _sample_answers(
    model: Model, data: list[str], out: Path, flags: TrainingFlags, sampling: Sampling
) -> str:
    """Answers the prompts of data sets into run folders; returns the spec that reads them."""
    folders = []
    for index, spec in enumerate(data):
        folder = out / f"samples-{index}"
        with ProgressBar(f"answering {redact_spec(spec)}") as progress:
            options = EvaluateOptions(
                sampling=sampling, seed=flags.seed, limit=flags.limit, progress=progress
            )
            # Frozen prompts are left out before they are answered.
            dataset = TrainableRows(
                resolve(spec_for_training(spec), "data"), allow=flags.allow_measurement_prompts
            )
            evaluate(model, dataset, [], folder, options=options)
        dataset.log_frozen_rows()
        folders.append(str(folder))
    # `run:` reads several folders that are separated by |, which must be quoted in a spec.
    return f'run:"{"|".join(folders)}"' if len(folders) > 1 else f"run:{folders[0]}"
