"""`truing train sft|dpo|kto`: supervised training; the same command continues an interrupted run.

The other kinds are in modules beside this one: `train_judges.py` (reward, cost),
`train_on_samples.py` (distil, best-of-sft), `train_rl.py` (ppo, ppo-lag, reward-shaping, rloo,
grpo), `train_moderation.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from truing.cli.parameters import Flag, Strings
from truing.cli.settings_flags import fields_of, flags_of
from truing.cli.training import TrainingFlags, TrainingJob, run_training
from truing.core.errors import PlanError, did_you_mean
from truing.train.settings import TrainingSettings, default_beta


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


@flags_of(
    fields_of(TrainingSettings, ("label_smoothing", "sft_weight", "target_margin", "benign")),
    group=None,
)
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
    """

    loss: str = "sigmoid"
    beta: float | None = None

    def settings(self) -> dict[str, Any]:
        """Returns the settings of the loss; raises PlanError for a loss that does not exist."""
        from truing.train.settings import LOSSES

        losses = LOSSES["dpo"]
        if self.loss not in losses:
            suggestion = did_you_mean(self.loss, losses)
            raise PlanError(f"--loss {self.loss}: no such DPO loss{suggestion}")
        return dict(vars(self))


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


@flags_of(
    fields_of(TrainingSettings, ("desirable_weight", "undesirable_weight", "benign")),
    group=None,
)
class KTOFlags:
    """The loss of `truing train kto`.

    Parameters
    ----------
    loss
        The form of the loss.
    beta
        β of the loss: the higher, the closer the model stays to the reference.
    """

    loss: Literal["kto", "apo_zero_unpaired"] = "kto"
    beta: float = default_beta("kto")


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
    settings = dict(vars(kto_flags or KTOFlags()))
    return run_training(TrainingJob("kto", data, out, flags, json), settings)
