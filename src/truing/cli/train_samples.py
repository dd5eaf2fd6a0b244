"""`truing train distil|best-of-sft`: a model learns from answers that it gave itself, behind a prompt or chosen by a judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cyclopts import Parameter

from truing.cli.training import Data, Flag, How, Job, for_training, go
from truing.specs.resolve import load_object, resolve


@Parameter(name="*")
@dataclass(frozen=True)
class Draw:
    """How the prompted model is asked.

    Parameters
    ----------
    n
        Answers to each prompt.
    max_tokens
        The longest answer.
    temperature
        Of the answers.
    """

    n: int = 2
    max_tokens: int = 64
    temperature: float = 1.0


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Choice:
    """Who chooses, and from how many.

    Parameters
    ----------
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
    """

    by: str
    n: int = 8
    ceiling: str | None = None
    below: float | None = None
    max_tokens: int = 64


def distil(
    *,
    data: Data,
    out: Path,
    how: How | None = None,
    prompt: str = "hhh",
    draw: Draw | None = None,
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
    direction
        KL(prompted to bare), or the reverse.
    json
        Print the result as JSON.
    """
    given = how or How()
    teacher = load_object("truing.align.prompted:prompted")(
        resolve(f"local:{given.base}", "model"), prompt
    )
    spec = _sampled(teacher, data, out, given, draw or Draw())
    # the loop draws each row as often as the mix says; the teacher's prompt is part of what is computed
    return go(
        Job("distil", [spec], out, given, json),
        {"loss": direction, "teacher": prompt},
        wrap=teacher.wrap,
    )


def best_of_sft(
    *,
    data: Data,
    out: Path,
    choice: Choice,
    how: How | None = None,
    json: Flag = False,
) -> int:
    """Rejection-sampled fine-tuning: the base answers n times, a judge chooses, the winners are the targets.

    Parameters
    ----------
    data
        Specs of data sets whose prompts are asked.
    out
        Where the samples, the log, the checkpoints and the model go.
    json
        Print the result as JSON.
    """
    given = how or How()
    limit = resolve(choice.ceiling, "judge") if choice.ceiling else None
    by, base = resolve(choice.by, "judge"), resolve(f"local:{given.base}", "model")
    model = load_object("truing.align.best_of:best_of")(
        base, choice.n, by, ceiling=limit, below=choice.below
    )
    spec = _sampled(model, data, out, given, Draw(n=1, max_tokens=choice.max_tokens))
    return go(Job("sft", [spec], out, given, json), {})


def _sampled(model: Any, data: list[str], out: Path, how: How, draw: Draw) -> str:
    """Asks a model the prompts of some data sets into run folders under OUT; the spec that reads the answers back."""
    from truing.cli.progress import Bar
    from truing.core.types import Sampling
    from truing.evaluation.evaluate import evaluate
    from truing.evaluation.options import EvaluateOptions

    sampling = Sampling(n=draw.n, max_tokens=draw.max_tokens, temperature=draw.temperature)
    folders = []
    for k, spec in enumerate(data):
        folder = out / f"samples-{k}"
        with Bar(f"asking {spec}") as bar:
            options = EvaluateOptions(
                sampling=sampling, seed=how.seed, limit=how.limit, progress=bar
            )
            evaluate(model, resolve(for_training(spec), "data"), [], folder, options=options)
        folders.append(str(folder))
    return f'run:"{"|".join(folders)}"' if len(folders) > 1 else f"run:{folders[0]}"
