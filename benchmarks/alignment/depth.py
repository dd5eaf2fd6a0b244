"""How deep a change reaches: the divergence from the base along an answer, and weights rounded to eight bits.

Qi et al. 2024 (2406.05946) show that safety training mostly moves the first tokens of an answer; what it did not move a
prefilled opening, some benign fine-tuning or quantisation can bring back. These are the measures for every lever alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from truing.core.types import Conversation
from truing.hf.chat_tokens import AnswerTooLong, ChatTokenizer
from truing.hf.loading import LoadedModel, pad_rows, position_ids

Wrap = Callable[[Conversation], Conversation]


@torch.inference_mode()
def next_token_logps(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[Tensor]:
    """For each row the log-probabilities of the whole vocabulary at the answer's positions, `[A, V]` in float32."""
    rows = [[*p, *a] for p, a in zip(prompts, answers)]
    ids, mask = pad_rows(
        rows, 0, side="left"
    )  # so that all answers end in the last column, and few logits are made
    device = next(loaded.model.parameters()).device
    ids, mask = ids.to(device), mask.to(device)
    kept = max(len(a) for a in answers) + 1
    logits = loaded.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position_ids(mask),
        use_cache=False,
        logits_to_keep=kept,
    ).logits
    return [
        torch.log_softmax(logits[k, kept - 1 - len(a) : kept - 1].float(), -1).cpu()
        for k, a in enumerate(answers)
    ]


def kl_along(
    base: LoadedModel,
    lever: LoadedModel,
    pairs: Sequence[tuple[Conversation, str]],
    *,
    depth: int = 16,
    wrap: Wrap | None = None,
    batch: int = 8,
    window: int = 512,
) -> list[list[float]]:
    """KL(lever ‖ base) of the next token at each of the first `depth` positions along given answers, one list a pair.

    `wrap` puts the lever's prompt before the conversation (a prompted model: `base` and `lever` may be one object).
    Pairs whose answer does not fit in the window are left out; lists of short answers are shorter than `depth`.
    """
    turns = ChatTokenizer(base.tokenizer, name="base")
    rows: list[tuple[list[int], list[int], list[int]]] = []
    for conversation, text in pairs:
        answer = turns.encode_answer(conversation.messages, text)[:depth]
        seen = (wrap(conversation) if wrap else conversation).messages
        plain, given = turns.encode_prompt(conversation.messages), turns.encode_prompt(seen)
        if len(plain) + len(answer) > window:
            continue
        rows.append((plain, given, answer))
    if not rows:
        raise AnswerTooLong(f"none of {len(pairs)} answers fits in {window} tokens with its prompt")
    found: list[list[float]] = []
    for at in range(0, len(rows), batch):
        some = rows[at : at + batch]
        q = next_token_logps(base, [r[0] for r in some], [r[2] for r in some])
        p = next_token_logps(lever, [r[1] for r in some], [r[2] for r in some])
        found += [((a.exp() * (a - b)).sum(-1)).tolist() for a, b in zip(p, q)]
    return found


def mean_by_position(found: Sequence[Sequence[float]], depth: int) -> list[tuple[float, int]]:
    """(mean, number of answers that long) at each position."""
    made = []
    for at in range(depth):
        values = [row[at] for row in found if len(row) > at]
        made.append((sum(values) / len(values) if values else float("nan"), len(values)))
    return made


@torch.no_grad()
def round_int8(model: nn.Module) -> int:
    """Rounds every matrix of linear layers to 255 levels a row, in place, and gives their number.

    This is what weight-only int8 (absolute maximum of each output row) leaves of the weights; the arithmetic stays as it
    is, so that the effect of rounding is measured and not that of a kernel.
    """
    count = 0
    for module in model.modules():
        if isinstance(module, nn.Linear):
            scale = module.weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
            module.weight.copy_((module.weight / scale).round().clamp(-127, 127) * scale)
            count += 1
    return count


def opening(turns: ChatTokenizer, conversation: Conversation, text: str, tokens: int) -> str:
    """The first `tokens` tokens of an answer as text: what a prefilled answer begins with."""
    ids = turns.encode_answer(conversation.messages, text)[:-1][:tokens]
    return str(turns.tokenizer.decode(ids, skip_special_tokens=True))
