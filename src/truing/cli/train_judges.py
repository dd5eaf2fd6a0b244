"""`truing train reward|cost`: trains models that judge answers, on pairs of answers."""

from __future__ import annotations

from pathlib import Path

from truing.cli.parameters import Flag, OptionalStrings, Strings
from truing.cli.settings_flags import fields_of, flags_of
from truing.cli.training import TrainingFlags, TrainingJob, run_training
from truing.train.settings import TrainingSettings


@flags_of(fields_of(TrainingSettings, ("level", "regularization", "benign")), group=None)
class PairFlags:
    """How to learn from pairs."""


def reward(
    *,
    data: Strings,
    out: Path,
    flags: TrainingFlags | None = None,
    pairs: PairFlags | None = None,
    center: float = 0.0,
    test: OptionalStrings = None,
    json: Flag = False,
) -> int:
    """Trains a reward (preference) model: Bradley-Terry on pairs that are ordered by helpfulness.

    Parameters
    ----------
    data
        Specs of data sets with pairs, such as pairs:helpful, file:pairs.jsonl or
        run:DIR,by=rules:check.
    out
        Folder for the log, the checkpoints and the model; the judge is reward:OUT (or
        preference:OUT).
    center
        Weight of the squared sum of a pair's scores in the loss.
    test
        Sets of pairs to measure the model on; it is never trained on them.
    json
        Print the result as JSON.
    """
    settings = {**vars(pairs or PairFlags()), "center": center}
    return run_training(TrainingJob("reward", data, out, flags, json), settings, test=test)


def cost(
    *,
    data: Strings,
    out: Path,
    flags: TrainingFlags | None = None,
    pairs: PairFlags | None = None,
    test: OptionalStrings = None,
    json: Flag = False,
) -> int:
    """Trains a cost model (Safe RLHF) on pairs ordered by safety and labelled safe or not.

    A cost above 0 means unsafe.

    Parameters
    ----------
    data
        Specs of data sets with safety pairs and labels, such as pku.
    out
        Folder for the log, the checkpoints and the model; the judge is cost:OUT.
    test
        Sets of pairs to measure the model on; it is never trained on them.
    json
        Print the result as JSON.
    """
    settings = vars(pairs or PairFlags())
    return run_training(TrainingJob("cost", data, out, flags, json), settings, test=test)
