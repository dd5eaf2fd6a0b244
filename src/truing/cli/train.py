"""`truing train sft|dpo|kto`: supervised training; the same command continues an interrupted run.

The other kinds are in modules beside this one: `train_judges.py` (reward, cost),
`train_on_samples.py` (distil, best-of-sft), `train_rl.py` (ppo, ppo-lag, reward-shaping, rloo,
grpo), `train_moderation.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cyclopts import Parameter

from truing.cli.parameters import Flag, Strings
from truing.cli.training import TrainingFlags, TrainingJob, run_training
from truing.core.errors import PlanError, did_you_mean
from truing.specs.extras import needs_extra


def sft(
    *,
    data: Strings,
    out: Path,
    flags: TrainingFlags | None = None,
    chosen: Flag = False,
    turns: Literal["last", "all"] = "last",
    json: Flag = False,
) -> int:
    """Supervised fine-tuning on answers; the loss is on the assistant's tokens only.

    Parameters
    ----------
    data
        Specs of data sets with answers, such as file:rows.jsonl, trl:rows.jsonl or beavertails.
    out
        Folder for the log, the checkpoints and the model.
    chosen
        Use the preferred answers of sets of pairs as targets (without it such sets are refused).
    turns
        Train on the last answer of a dialogue, or on all of them.
    json
        Print the result as JSON.
    """
    job = TrainingJob("sft", data, out, flags, json)
    return run_training(job, {"turns": turns}, chosen=chosen)


@Parameter(name="*")
@dataclass(frozen=True)
class DPOFlags:
    """The loss of `truing train dpo`.

    Parameters
    ----------
    loss
        One of TRL's fifteen losses: sigmoid, hinge, ipo, robust, exo_pair, nca_pair, bco_pair,
        sppo_hard, apo_zero, apo_down, aot, aot_unpaired, sft, sigmoid_norm, discopop; or one
        without a reference model: simpo, orpo.
    beta
        β of the loss: the higher, the closer the model stays to the reference. Default: 0.1; 2 for
        simpo.
    label_smoothing
        Assumed share of wrong labels, below 0.5; for robust, exo_pair (default 0.001), aot and
        aot_unpaired. The other losses refuse it.
    sft_weight
        Weight of the likelihood of the chosen answers in the loss (RPO: 1): DPO alone may lower the
        probability of both answers.
    target_margin
        γ of simpo: the margin of the rewards that it aims at.
    benign
        Minimum share of pairs about harmless look-alikes of harmful prompts, where an answer is
        preferred.
    """

    loss: str = "sigmoid"
    beta: float | None = None
    label_smoothing: float = 0.0
    sft_weight: float = 0.0
    target_margin: float = 1.0
    benign: float = 0.3

    def settings(self) -> dict[str, Any]:
        """Returns the settings of the loss; raises PlanError for a loss that does not exist."""
        with needs_extra("truing train dpo", "train"):
            from truing.train.settings import LOSSES, default_beta

        losses = LOSSES["dpo"]
        if self.loss not in losses:
            suggestion = did_you_mean(self.loss, losses)
            raise PlanError(f"--loss {self.loss}: no such DPO loss{suggestion}")
        beta = default_beta(self.loss) if self.beta is None else self.beta
        return asdict(self) | {"beta": beta}


def dpo(
    *,
    data: Strings,
    out: Path,
    flags: TrainingFlags | None = None,
    dpo_flags: DPOFlags | None = None,
    json: Flag = False,
) -> int:
    """Direct preference optimisation on pairs, without a reward model.

    Parameters
    ----------
    data
        Specs of data sets with pairs, such as pku or file:pairs.jsonl.
    out
        Folder for the log, the checkpoints and the model.
    json
        Print the result as JSON.
    """
    settings = (dpo_flags or DPOFlags()).settings()
    return run_training(TrainingJob("dpo", data, out, flags, json), settings)


@Parameter(name="*")
@dataclass(frozen=True)
class KTOFlags:
    """The loss of `truing train kto`.

    Parameters
    ----------
    loss
        The form of the loss.
    beta
        β of the loss: the higher, the closer the model stays to the reference.
    desirable_weight
        Weight of the desirable answers in the loss.
    undesirable_weight
        Weight of the undesirable answers. KTO's paper keeps the ratio of weight x number of
        desirable answers to that of undesirable ones between 1 and 4/3.
    benign
        Minimum share of rows about harmless look-alikes of harmful prompts, where an answer is
        preferred.
    """

    loss: Literal["kto", "apo_zero_unpaired"] = "kto"
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    benign: float = 0.3


def kto(
    *,
    data: Strings,
    out: Path,
    flags: TrainingFlags | None = None,
    kto_flags: KTOFlags | None = None,
    json: Flag = False,
) -> int:
    """Kahneman-Tversky optimisation on single answers that are labelled desirable or undesirable.

    Parameters
    ----------
    data
        Specs of data sets with labelled answers (trl:rows.jsonl, beavertails), or with pairs, which
        are split into two answers.
    out
        Folder for the log, the checkpoints and the model.
    json
        Print the result as JSON.
    """
    settings = asdict(kto_flags or KTOFlags())
    return run_training(TrainingJob("kto", data, out, flags, json), settings)
