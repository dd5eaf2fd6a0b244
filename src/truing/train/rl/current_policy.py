"""The policy in training as a `Model`, so that an evaluation can measure it during the run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from truing.core.ids import stream_seed
from truing.core.lineage import digest
from truing.core.types import Answer, Conversation, Lineage, Message, Sampling, Usage
from truing.hf.chat_tokens import ChatTokenizer
from truing.train.rl.generate import LocalGenerator, uniform_draws
from truing.train.rl.policy_models import ROLLOUT, PolicyModels

# How long the first call waits for others to be decoded in the same batch.
_BATCH_WINDOW_SECONDS = 0.01


@dataclass
class _PendingRequest:
    prompt_ids: list[int]
    sampling: Sampling
    future: asyncio.Future[list[Answer]]


class CurrentPolicy:
    """Answers with the current weights; concurrent calls with like sampling are batched.

    `lineage` names the judges that reward the policy, so that a report does not measure by them.
    """

    def __init__(
        self, models: PolicyModels, turns: ChatTokenizer, end_ids: frozenset[int], lineage: Lineage
    ) -> None:
        self.models = models
        self.turns = turns
        self.end_ids = end_ids
        self.lineage = lineage
        self.name = lineage.name
        self._pending: list[_PendingRequest] = []
        self._batch_task: asyncio.Task[None] | None = None

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers."""
        request = _PendingRequest(
            self.turns.encode_prompt(conversation.messages),
            sampling,
            asyncio.get_running_loop().create_future(),
        )
        self._pending.append(request)
        if self._batch_task is None or self._batch_task.done():
            self._batch_task = asyncio.create_task(self._answer_pending())
        return tuple(await request.future)

    async def _answer_pending(self) -> None:
        """Answers pending requests in batches of like sampling until none is left."""
        await asyncio.sleep(_BATCH_WINDOW_SECONDS)
        while self._pending:
            sampling = self._pending[0].sampling
            batch = [r for r in self._pending if _same_decoding(r.sampling, sampling)]
            self._pending = [r for r in self._pending if r not in batch]
            try:
                answers = await asyncio.to_thread(self._decode, batch)
            except Exception as error:
                failed = Answer.failed(type(error).__name__, str(error))
                answers = [[failed] * request.sampling.n for request in batch]
            for request, request_answers in zip(batch, answers):
                if not request.future.done():  # the caller may have been cancelled
                    request.future.set_result(request_answers)

    def _decode(self, batch: list[_PendingRequest]) -> list[list[Answer]]:
        """Returns the answers of each request of a batch."""
        sampling = batch[0].sampling
        draws = [(request, k) for request in batch for k in range(request.sampling.n)]
        prompts = [request.prompt_ids for request, _ in draws]
        # The random stream depends on the prompt and not on the batch, so that the answers do too.
        keys = [
            stream_seed(request.sampling.seed, *map(str, request.prompt_ids), k)
            for request, k in draws
        ]
        with self.models.active(ROLLOUT) as model:
            generator = LocalGenerator(
                model, self.end_ids, temperature=sampling.temperature, top_p=sampling.top_p
            )
            generated = generator(prompts, uniform_draws(0, 0, keys, sampling.max_tokens))
        texts = self.models.tokenizer.batch_decode(
            [list(ids) for ids in generated.ids], skip_special_tokens=True
        )
        answers = iter(
            Answer(
                message=Message("assistant", text.strip()),
                finish_reason="stop" if ended else "length",
                usage=Usage(len(prompt), len(ids)),
            )
            for text, ended, prompt, ids in zip(texts, generated.ended, prompts, generated.ids)
        )
        return [[next(answers) for _ in range(request.sampling.n)] for request in batch]


def _same_decoding(a: Sampling, b: Sampling) -> bool:
    """Whether two requests can share a batch: n and seed may differ."""
    return (a.max_tokens, a.temperature, a.top_p) == (b.max_tokens, b.temperature, b.top_p)


def policy_lineage(
    name: str,
    base: Lineage,
    judges: tuple[Lineage, ...],
    prompts: tuple[str, ...],
    **fields: Any,
) -> Lineage:
    """Returns the lineage of a policy: its base, its prompts and the judges that reward it."""
    all_judges = {judge.hash or judge.name: judge for judge in (*judges, *base.judges)}
    return Lineage(
        name=name,
        hash=digest("policy", name, *all_judges),
        base=base.base or base.name,
        base_sha256=base.base_sha256,
        prompts=tuple(sorted({*prompts, *base.prompts})),
        judges=tuple(all_judges.values()),
        **fields,
    )
