"""How deep a change is: its divergence from the base along an answer, and rounded weights.

Qi et al. 2024 (2406.05946) show that safety training mostly changes the first tokens of an answer.
A prefilled opening, a little benign fine-tuning or quantisation can then bring the old answers
back. The functions here measure that in the same way for every lever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from truing.core.types import Conversation
from truing.hf.chat_tokens import AnswerTooLong, ChatTokenizer
from truing.hf.loading import LoadedModel, pad_rows, position_ids

PromptWrapper = Callable[[Conversation], Conversation]


@torch.inference_mode()
def next_token_logps(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Returns the log-probabilities of the whole vocabulary at each answer position.

    One tensor [answer tokens, vocabulary] in float32 for each row.
    """
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers)]
    # Padding on the left makes all answers end in the last column, so few logits are computed.
    ids, mask = pad_rows(rows, 0, side="left")
    device = next(loaded.model.parameters()).device
    ids, mask = ids.to(device), mask.to(device)
    columns = max(len(answer) for answer in answers) + 1
    logits = loaded.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position_ids(mask),
        use_cache=False,
        logits_to_keep=columns,
    ).logits
    # The logits at a position predict the next token: hence one column earlier than the answer.
    return [
        torch.log_softmax(logits[k, columns - 1 - len(answer) : columns - 1].float(), -1).cpu()
        for k, answer in enumerate(answers)
    ]


def kl_by_position(
    base: LoadedModel,
    lever: LoadedModel,
    pairs: Sequence[tuple[Conversation, str]],
    *,
    depth: int = 16,
    wrap: PromptWrapper | None = None,
    batch: int = 8,
    window: int = 512,
) -> list[list[float]]:
    """Returns KL(lever ‖ base) of the next token at the first `depth` positions of each answer.

    The answers are given, not sampled; values are in nats. `wrap` puts the lever's prompt before
    the conversation (for a prompted model, `base` and `lever` may be one object). Pairs whose
    answer does not fit in the window are left out; lists of short answers are shorter than
    `depth`. Raises AnswerTooLong if no pair fits.
    """
    tokenizer = ChatTokenizer(base.tokenizer, name="base")
    base_prompts: list[list[int]] = []
    lever_prompts: list[list[int]] = []
    answers: list[list[int]] = []
    for conversation, text in pairs:
        answer = tokenizer.encode_answer(conversation.messages, text)[:depth]
        prompt = tokenizer.encode_prompt(conversation.messages)
        if len(prompt) + len(answer) > window:
            continue
        wrapped = wrap(conversation) if wrap else conversation
        base_prompts.append(prompt)
        lever_prompts.append(tokenizer.encode_prompt(wrapped.messages))
        answers.append(answer)
    if not answers:
        raise AnswerTooLong(f"none of {len(pairs)} answers fits in {window} tokens with its prompt")

    result: list[list[float]] = []
    for start in range(0, len(answers), batch):
        rows = slice(start, start + batch)
        base_logps = next_token_logps(base, base_prompts[rows], answers[rows])
        lever_logps = next_token_logps(lever, lever_prompts[rows], answers[rows])
        for log_p, log_q in zip(lever_logps, base_logps):
            result.append((log_p.exp() * (log_p - log_q)).sum(-1).tolist())
    return result


def mean_by_position(values: Sequence[Sequence[float]], depth: int) -> list[tuple[float, int]]:
    """Returns (mean, number of answers that long) at each position; NaN where there is none."""
    means = []
    for position in range(depth):
        column = [row[position] for row in values if len(row) > position]
        means.append((sum(column) / len(column) if column else float("nan"), len(column)))
    return means


@torch.no_grad()
def round_int8(model: nn.Module) -> int:
    """Rounds the weights of all linear layers to 255 levels per row, in place.

    Returns the number of layers. This is what weight-only int8 quantisation (absolute maximum of
    each output row) leaves of the weights. The arithmetic stays as it is, so that the effect of
    rounding is measured and not that of a kernel.
    """
    count = 0
    for module in model.modules():
        if isinstance(module, nn.Linear):
            scale = module.weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
            module.weight.copy_((module.weight / scale).round().clamp(-127, 127) * scale)
            count += 1
    return count


def answer_opening(
    tokenizer: ChatTokenizer, conversation: Conversation, text: str, count: int
) -> str:
    """Returns the first `count` tokens of an answer as text, to prefill an answer with."""
    ids = tokenizer.encode_answer(conversation.messages, text)[:-1][:count]  # without end token
    return str(tokenizer.tokenizer.decode(ids, skip_special_tokens=True))
