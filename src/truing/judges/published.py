"""Published reward models in the Hugging Face layout: a decoder with a `score` head of one output
(TRL, OpenRLHF, ...).

`reward:ORG/MODEL` and `reward:FOLDER` read them; the score is the one at the answer's last real
token, found by the mask and not by the pad token's id, so that pad = eos moves nothing.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from truing.core.errors import UserError
from truing.hf.loading import ScalarModel, load_tokenizer, select_device, select_dtype
from truing.hf.pretrained import load_config, load_model
from truing.hf.weights import Weights


def load_published_model(weights: Weights, *, dtype: str, device: str) -> tuple[ScalarModel, Any]:
    """Returns the body and head of a sequence classifier with one output, and its tokenizer.

    Raises UserError for other models.
    """
    config = load_config(weights.path, weights.name)
    names = [str(n) for n in getattr(config, "architectures", None) or []]
    if not any(n.endswith("ForSequenceClassification") for n in names):
        architectures_text = ", ".join(names) or "nothing"
        raise UserError(
            f"{weights.name}: no truing.json, and config.json names {architectures_text}, no "
            "sequence classifier, so this is "
            f"no reward or cost model (an unfinished `truing train` leaves such a folder too)"
        )
    if config.num_labels != 1:
        raise UserError(
            f"{weights.name}: gives {config.num_labels} numbers; a reward or cost model gives one"
        )
    target_device = select_device(device)
    model = load_model(
        "AutoModelForSequenceClassification",
        weights.path,
        weights.name,
        dtype=select_dtype(dtype, target_device),
    )
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise UserError(
            f"{weights.name}: has no `score` head on its last token (encoders pool); such models "
            "are not read"
        )
    # The head in float32: bfloat16 has about three digits, and close rewards would tie.
    scalar_model = ScalarModel(model.base_model, head=head.float()).requires_grad_(False)
    return scalar_model.to(target_device).eval(), load_tokenizer(weights.path)
