"""The network that is written: the mean of the folds' weights, or the one trained on every row."""

from __future__ import annotations

import msgspec
import numpy as np
import torch

from truing.judges.moderation.network import ModerationNetwork
from truing.judges.moderation.network_files import read_safetensors
from truing.train.moderation.finished_run import NETWORK_FILE
from truing.train.moderation.fold_training import (
    build_trainable_network,
    compute_logits,
    merge_adapters,
)
from truing.train.moderation.run_context import RunContext

SHARED_LOGITS_FILE = "shared.npy"  # in the folder of a fold: the logits of the shared sample
MIN_AVERAGING_CORRELATION = 0.9


def load_final_network(context: RunContext) -> tuple[ModerationNetwork, str]:
    """Returns the network to write, and a note for the card if the mean could not be used.

    The network that learned every row is not the one whose logits thresholds were chosen on, and
    ends at another bias: its head is matched to the logits of the measured folds' networks.

    Weights can be averaged only if training left them in one basin of the loss. Whether it did can
    be told without labels: if the logits of the mean network correlate too little with the mean of
    the members' logits, the first fold's network is taken.
    """
    folders = list(context.fold_folders.values())
    if context.settings.whole:
        folders = folders[-1:]
    states = [read_safetensors(folder / NETWORK_FILE) for folder in folders]
    # The stored networks have their adapters merged.
    settings = msgspec.structs.replace(context.settings, lora=0, frozen=0)
    network = build_trainable_network(settings, context.base, len(context.category_ids))
    network = merge_adapters(network)
    mean_state = {
        name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]
    }
    network.load_state_dict(mean_state)
    if context.settings.whole:
        measured = list(context.fold_folders.values())[:-1]
        members = np.stack([np.load(folder / SHARED_LOGITS_FILE) for folder in measured])
        match_logit_scale(network, np.load(folders[0] / SHARED_LOGITS_FILE), members)
        return network.eval(), ""
    if len(folders) == 1:
        return network.eval(), ""

    members = np.stack([np.load(folder / SHARED_LOGITS_FILE) for folder in folders])
    logits = compute_logits(network, context.shared_sample, context.pad_id, context.settings)
    correlation = float(np.corrcoef(logits[:, 0], members.mean(0)[:, 0])[0, 1])
    if not correlation >= MIN_AVERAGING_CORRELATION:  # also if it is NaN
        network.load_state_dict(states[0])
        note = (
            f"the mean of the folds' weights disagrees with them (r = {correlation:.2f}): "
            "this is the first fold's network"
        )
        return network.eval(), note
    match_logit_scale(network, logits, members)
    return network.eval(), ""


def match_logit_scale(network: ModerationNetwork, logits: np.ndarray, members: np.ndarray) -> None:
    """Scales the head of a network so that its logits have mean and spread of the members'.

    Between two minima logits are flatter: the mean of weights keeps the order of rows, not the
    spread, and thresholds were chosen on the members' logits. `members` `[folds, n, outputs]` and
    `logits` `[n, outputs]` are of the same rows.
    """
    ratio = members.std(1).mean(0) / np.maximum(logits.std(0), 1e-6)
    scale = torch.tensor(ratio, dtype=torch.float32)
    shift = torch.tensor(members.mean((0, 1)) - ratio * logits.mean(0), dtype=torch.float32)
    with torch.no_grad():
        network.head.weight *= scale[:, None]
        network.head.bias.copy_(network.head.bias * scale + shift)
