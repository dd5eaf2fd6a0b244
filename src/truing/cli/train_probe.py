"""`truing train probe`: linear probes on a model's own states, from labelled answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from truing.cli.parameters import Flag, Strings
from truing.cli.settings_flags import fields_of, flags_of, setting_values
from truing.cli.tables import print_json, print_next_steps, print_text
from truing.plan.step_inputs import ProbeInputs
from truing.specs.extras import needs_extra
from truing.train.probe_settings import ProbeSettings

if TYPE_CHECKING:
    from truing.train.labelled_answers import LabelledAnswers
    from truing.train.probe import TrainedProbes


@flags_of(
    fields_of(ProbeSettings, without=("out",)),
    fields_of(ProbeInputs, without=("data",)),
    group=None,
)
class ProbeFlags:
    """How to train probes, and on which rows."""


def command(
    *, data: Strings, out: Path, flags: ProbeFlags | None = None, json: Flag = False
) -> int:
    """Trains linear probes of labelled answers on a model's own states.

    A probe says how likely an answer is harmful, refused, helpful, or whatever it has labels for;
    best-of:N chooses by one, or by a weighted sum of several. The model stays as it is.

    Parameters
    ----------
    data
        Specs of sets with labelled answers: run:DIR of a run that people or judges have labelled,
        or a published set such as beavertails.
    out
        Folder for the probes; the judge is probe:OUT.
    json
        Print the result as JSON.
    """
    with needs_extra("truing train probe", "train"):
        from truing.cli.progress import ProgressBar
        from truing.hf.pretrained import silence_transformers
        from truing.plan.training_steps import train_probe_step

    silence_transformers()
    flags = flags or ProbeFlags()
    settings = ProbeSettings(out=str(out), **setting_values(flags, ProbeSettings))
    inputs = ProbeInputs(data=tuple(data), **setting_values(flags, ProbeInputs))
    with ProgressBar("answers read", quiet=json) as progress:
        trained = train_probe_step(
            settings,
            inputs,
            on_progress=lambda k, n: progress(k, n, 0),
            on_data=None if json else _print_data,
        )
    _print_result(trained, as_json=json)
    return 0


def _print_data(source: LabelledAnswers) -> None:
    """Prints to standard error what was read of a data set, and what was left out."""
    notes = [f"{len(source.items)} labelled answers"]
    notes += [f"{count} left out ({reason})" for reason, count in sorted(source.dropped.items())]
    by_question = sorted(source.labels_by_judges.items())
    notes += [f"{count} labels of {question!r} by judges" for question, count in by_question]
    print_text(f"{source.spec}: {', '.join(notes)}", file=sys.stderr)


def _print_result(trained: TrainedProbes, *, as_json: bool) -> None:
    if as_json:
        questions = {
            question: {
                "n": fit.n,
                "n_true": fit.n_true,
                "held_out_auroc": fit.held_out,
                "auroc_of_length": fit.by_length,
                "precision": fit.precision,
                "recall": fit.recall,
                "penalty": fit.penalty,
            }
            for question, fit in trained.fits.items()
        }
        fields = {
            "folder": str(trained.folder),
            "layer": trained.layer,
            "questions": questions,
            "left_out": trained.left_out,
            "unreadable": trained.unreadable,
            "red_model": trained.lineage.red_model,
        }
        print_json(msgspec.json.encode(fields))
        return
    for question, fit in trained.fits.items():
        area = fit.held_out
        print_text(
            f"  {question:<12} {fit.n} labels, {fit.n_true} true: held-out AUROC "
            f"{area.estimate:.2f} [{area.lower:.2f}, {area.upper:.2f}], by length alone "
            f"{fit.by_length.estimate:.2f}; the verdict finds {fit.recall:.0%}, and of its yeses "
            f"{fit.precision:.0%} are right"
        )
    for reason in trained.left_out.values():
        print_text(f"  no probe: {reason}")
    for reason, count in trained.unreadable.items():
        print_text(f"  {count} answers were left out: {reason}")
    print_text(f"{trained.folder}  (read after layer {trained.layer}; probe.json, truing.json)")
    spec = f"probe:{trained.folder}"
    names = list(trained.fits)
    verdict = f"{spec},question={names[0]}" if len(names) > 1 else spec
    steps: list[tuple[object, ...]] = [("truing", "judge", "RUN", "--judge", verdict)]
    if {"harmful", "helpful"} <= set(names):
        # By harm alone the best answer is a refusal, or an empty one.
        chooser = f"{spec},harmful=-1,helpful=1"
        steps.append(("truing", "run", "--model", f"best-of:8,by=({chooser}),of=(MODEL)"))
    print_next_steps(steps)
