"""`truing train reward|cost`: models that judge, from pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import Parameter

from truing.cli.training import Data, Flag, How, Job, Tests, go


@Parameter(name="*")
@dataclass(frozen=True)
class Pairs:
    """How pairs are learned from.

    Parameters
    ----------
    level
        Compare scores at the end, or token by token from where the answers part.
    regularization
        Weight of the mean squared score.
    benign
        Least share of benign look-alikes with the answer preferred, where pairs are about safety.
    """

    level: Literal["sequence", "token"] = "sequence"
    regularization: float = 0.0
    benign: float = 0.3


def reward(
    *,
    data: Data,
    out: Path,
    how: How | None = None,
    pairs: Pairs | None = None,
    center: float = 0.0,
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
    center
        Weight of the squared sum of a pair's scores.
    test
        Sets of pairs to measure the model on; they are never trained on.
    json
        Print the result as JSON.
    """
    return go(
        Job("reward", data, out, how, json), {**vars(pairs or Pairs()), "center": center}, test=test
    )


def cost(
    *,
    data: Data,
    out: Path,
    how: How | None = None,
    pairs: Pairs | None = None,
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
    test
        Sets of pairs to measure the model on; they are never trained on.
    json
        Print the result as JSON.
    """
    return go(Job("cost", data, out, how, json), vars(pairs or Pairs()), test=test)
