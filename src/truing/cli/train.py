"""`truing train sft|dpo|kto`: one supervised loop; the same command goes on where it stopped.

Every kind of training is a line in `verbs.py`; the others have files beside this one (`train_judges.py`: reward, cost;
`train_samples.py`: distil, best-of-sft; `train_rl.py`, `train_moderation.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from truing.cli.training import Data, Flag, How, Job, go
from truing.core.errors import PlanError, did_you_mean
from truing.specs.resolve import load_object


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
    return go(Job("sft", data, out, how, json), {"turns": turns}, chosen=chosen)


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
    kinds = load_object("truing.train.losses:DPO_KINDS")
    if loss not in kinds:
        raise PlanError(f"--loss {loss}: no kind of DPO{did_you_mean(loss, kinds)}")
    more = {"loss": loss, "beta": beta, "label_smoothing": label_smoothing, "benign": benign}
    return go(Job("dpo", data, out, how, json), more)


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
    return go(Job("kto", data, out, how, json), {"loss": loss, "beta": beta, "benign": benign})
