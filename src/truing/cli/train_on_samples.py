"""`truing train distil|best-of-sft|iterative-dpo`: trains a model on its own (improved) answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from cyclopts import Parameter

from truing.cli.parameters import Flag, Strings
from truing.cli.train import DPOFlags
from truing.cli.training import TrainingFlags, TrainingJob, settings_from_flags, show_training


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
    temperature
        Sampling temperature of the answers.
    rounds
        Rounds of sampling and training (RAFT): each begins with the model of the one before it.
    """

    by: str
    n: int = 8
    ceiling: str | None = None
    below: float | None = None
    max_tokens: int = 64
    temperature: float = 1.0
    rounds: int = 1


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PairFlags:
    """How the answers are sampled and ordered.

    Parameters
    ----------
    by
        Spec of the judge that orders the answers; it must not measure the result.
    n
        Answers to each prompt; the best becomes the chosen, the worst the rejected one.
    temperature
        Sampling temperature of the answers.
    max_tokens
        Maximum tokens of an answer.
    gap
        Leave out pairs whose answers differ by less than this in the judge's number.
    rounds
        Rounds of sampling and training: each begins with the model of the one before it.
    """

    by: str
    n: int = 8
    temperature: float = 1.0
    max_tokens: int = 64
    gap: float = 0.0
    rounds: int = 3


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
    from truing.plan.step_inputs import SampledInputs
    from truing.plan.training_steps import train_sampled_step

    teacher = teacher or TeacherFlags()
    job = TrainingJob("distil", data, out, flags, json)
    # The prompt is part of the settings: another one gives another model.
    settings = settings_from_flags(job, {"loss": direction, "teacher": prompt})
    inputs = SampledInputs(
        **job.data_inputs(),
        prompt=prompt,
        n=teacher.n,
        max_tokens=teacher.max_tokens,
        temperature=teacher.temperature,
    )
    return show_training(job, settings, partial(train_sampled_step, "distil", settings, inputs))


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
    from truing.plan.step_inputs import SampledInputs
    from truing.plan.training_steps import train_sampled_step

    job = TrainingJob("sft", data, out, flags, json)
    settings = settings_from_flags(job, {})
    inputs = SampledInputs(
        **job.data_inputs(),
        by=choice.by,
        n=choice.n,
        ceiling=choice.ceiling,
        below=choice.below,
        max_tokens=choice.max_tokens,
        temperature=choice.temperature,
        rounds=choice.rounds,
    )
    train = partial(train_sampled_step, "best-of-sft", settings, inputs)
    return show_training(job, settings, train)


def iterative_dpo(
    *,
    data: Strings,
    out: Path,
    pair_flags: PairFlags,
    flags: TrainingFlags | None = None,
    dpo_flags: DPOFlags | None = None,
    json: Flag = False,
) -> int:
    """DPO on the model's own answers, ordered by a judge, in rounds (Xu et al. 2023, 2312.16682).

    Each round samples n answers to the prompts from the model of the round before it, and trains
    from and against that model.

    Parameters
    ----------
    data
        Specs of data sets whose prompts are answered.
    out
        Folder for the samples, the log, the checkpoints and the model; earlier rounds are in
        OUT/round-K.
    json
        Print the result as JSON.
    """
    from truing.plan.step_inputs import SampledInputs
    from truing.plan.training_steps import train_sampled_step

    job = TrainingJob("dpo", data, out, flags, json)
    settings = settings_from_flags(job, (dpo_flags or DPOFlags()).settings())
    inputs = SampledInputs(
        **job.data_inputs(),
        **vars(pair_flags),
    )
    train = partial(train_sampled_step, "iterative-dpo", settings, inputs)
    return show_training(job, settings, train)
