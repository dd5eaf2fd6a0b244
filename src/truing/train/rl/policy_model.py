"""The policy in training as a `Model`, so that samples of it are measured by the very same run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from truing.core.lineage import digest
from truing.core.types import Answer, Conversation, Lineage, Message, Sampling, Usage, stream_seed
from truing.hf.chat_tokens import ChatTokenizer
from truing.train.rl.generate import LocalGenerator, streams
from truing.train.rl.policy_models import WRITER, Crew


@dataclass
class _Asked:
    ids: list[int]
    sampling: Sampling
    future: asyncio.Future[list[Answer]]


class PolicyModel:
    """Answers as the actor would now; concurrent calls of like sampling are written together.

    `lineage` names the judges that steer the training, so that a report strikes them out as its measure.
    """

    def __init__(
        self, crew: Crew, turns: ChatTokenizer, ends: frozenset[int], lineage: Lineage
    ) -> None:
        self.crew, self.turns, self.ends, self.lineage = crew, turns, ends, lineage
        self.name = lineage.name
        self._waiting: list[_Asked] = []
        self._task: asyncio.Task[None] | None = None

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """`sampling.n` answers."""
        asked = _Asked(
            self.turns.encode_prompt(conversation.messages),
            sampling,
            asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(asked)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return tuple(await asked.future)

    async def _run(self) -> None:
        await asyncio.sleep(0.01)
        while self._waiting:
            like = self._waiting[0].sampling
            taken = [a for a in self._waiting if a.sampling == like or _alike(a.sampling, like)]
            self._waiting = [a for a in self._waiting if a not in taken]
            try:
                made = await asyncio.to_thread(self._write, taken)
            except Exception as error:
                made = [
                    [Answer.failed(type(error).__name__, str(error))] * a.sampling.n for a in taken
                ]
            for asked, answers in zip(taken, made):
                if not asked.future.done():
                    asked.future.set_result(answers)

    def _write(self, taken: list[_Asked]) -> list[list[Answer]]:
        sampling = taken[0].sampling
        prompts = [a.ids for a in taken for _ in range(a.sampling.n)]
        keys = [
            stream_seed(a.sampling.seed, *map(str, a.ids), k)
            for a in taken
            for k in range(a.sampling.n)
        ]
        with self.crew.role(WRITER) as model:
            draw = LocalGenerator(
                model, self.ends, temperature=sampling.temperature, top_p=sampling.top_p
            )
            made = draw(prompts, streams(0, 0, keys, sampling.max_tokens))
        texts = self.crew.tokenizer.batch_decode(
            [list(i) for i in made.ids], skip_special_tokens=True
        )
        answers = [
            Answer(
                message=Message("assistant", text.strip()),
                finish_reason="stop" if ended else "length",
                usage=Usage(len(p), len(ids)),
            )
            for text, ended, p, ids in zip(texts, made.ended, prompts, made.ids)
        ]
        at, whole = 0, []
        for a in taken:
            whole.append(answers[at : at + a.sampling.n])
            at += a.sampling.n
        return whole


def _alike(a: Sampling, b: Sampling) -> bool:
    return (a.max_tokens, a.temperature, a.top_p) == (b.max_tokens, b.temperature, b.top_p)


def policy_lineage(
    name: str, base: Lineage, judges: tuple[Lineage, ...], prompts: tuple[str, ...], **more: Any
) -> Lineage:
    """Base, prompts and the judges that steer: what the trained folder carries, and what samples carry on the way."""
    every = {j.hash or j.name: j for j in (*judges, *base.judges)}
    return Lineage(
        name=name,
        hash=digest("policy", name, *every),
        base=base.base or base.name,
        base_sha256=base.base_sha256,
        prompts=tuple(sorted({*prompts, *base.prompts})),
        judges=tuple(every.values()),
        **more,
    )
