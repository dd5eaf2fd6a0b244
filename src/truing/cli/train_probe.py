"""`truing train probe`: linear probes on a model's own states, from labelled answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from truing.cli.parameters import Flag, Strings
from truing.cli.settings_flags import fields_of, flags_of, setting_values
from truing.cli.tables import print_json, print_next_steps, print_text
from truing.plan.step_inputs import DataInputs
from truing.specs.extras import needs_extra
from truing.train.probe_settings import ProbeSettings

if TYPE_CHECKING:
    from truing.train.probe import TrainedProbes


@flags_of(
    fields_of(ProbeSettings, without=("out",)),
    fields_of(DataInputs, without=("data",)),
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
        from truing.plan.training_steps import train_probe_step

    flags = flags or ProbeFlags()
    settings = ProbeSettings(out=str(out), **setting_values(flags, ProbeSettings))
    inputs = DataInputs(data=tuple(data), **setting_values(flags, DataInputs))
    with ProgressBar("answers read", quiet=json) as progress:
        trained = train_probe_step(settings, inputs, on_progress=lambda k, n: progress(k, n, 0))
    _print_result(trained, as_json=json)
    return 0


def _print_result(trained: TrainedProbes, *, as_json: bool) -> None:
    if as_json:
        questions = {
            question: {
                "n": fit.n,
                "n_true": fit.n_true,
                "held_out_auroc": fit.held_out,
                "auroc_of_length": fit.by_length,
                "penalty": fit.penalty,
            }
            for question, fit in trained.fits.items()
        }
        fields = {
            "folder": str(trained.folder),
            "layer": trained.layer,
            "too_long": trained.n_too_long,
            "questions": questions,
            "red_model": trained.lineage.red_model,
        }
        print_json(msgspec.json.encode(fields))
        return
    for question, fit in trained.fits.items():
        area, length = fit.held_out, fit.by_length
        print_text(
            f"  {question:<12} {fit.n} labels, {fit.n_true} true: held-out AUROC "
            f"{area.estimate:.2f} [{area.lower:.2f}, {area.upper:.2f}], by length alone "
            f"{length.estimate:.2f}"
        )
    if trained.n_too_long:
        print_text(f"  {trained.n_too_long} answers were left out: too long with their prompt")
    print_text(f"{trained.folder}  (read after layer {trained.layer}; probe.json, truing.json)")
    names = list(trained.fits)
    spec = f"probe:{trained.folder}"
    chooser = f"{spec},question={names[0]}" if len(names) > 1 else spec
    print_next_steps(
        [
            ("truing", "judge", "RUN", "--judge", chooser),
            ("truing", "run", "--model", f"best-of:8,by=({chooser}),of=(MODEL)"),
        ]
    )
