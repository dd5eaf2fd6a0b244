"""`truing train reward|cost`: trains models that judge answers, on pairs of answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import Parameter

from truing.cli.parameters import Flag, OptionalStrings, Strings
from truing.cli.training import TrainingFlags, TrainingJob, run_training


@Parameter(name="*")
@dataclass(frozen=True)
class PairFlags:
    """How to learn from pairs.

    Parameters
    ----------
    level
        Compare the scores at the end of the answers, or at each token from where the answers
        differ.
    regularization
        Weight of the mean squared score in the loss.
    benign
        Minimum share of pairs about harmless look-alikes of harmful prompts, where an answer is
        preferred; applies if the pairs are about safety.
    """

    level: Literal["sequence", "token"] = "sequence"
    regularization: float = 0.0
    benign: float = 0.3


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
