"""A model with fixed answers: for tests, examples, and to measure a run without its model.

scripted:mixed          refuses half of the prompts (by their hash), answers the others;
`refuse_share=0.3` scripted:refuse         always refuses            scripted:comply   always
answers, mildly scripted:echo           the prompt again          scripted:empty    nothing
scripted:fail           a failure each time       scripted:say,text="any text"
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from truing.core.errors import SpecError, did_you_mean
from truing.core.ids import stream_seed
from truing.core.lineage import digest
from truing.core.types import Answer, Conversation, Lineage, Message, Sampling, Usage
from truing.specs.resolve import Args

Script = Callable[[Conversation, Sampling], str | Answer]

REFUSAL = "I would rather not go into that. Happy to talk about something else."
ANSWER = (
    "Here is a short overview: start small, ask people who know the subject, and write down "
    "what you learn."
)


def _hash_to_unit(prompt: str) -> float:
    """Returns a number in [0, 1) that depends on the text alone."""
    # 32 bits of a hash instead of Python's hash(), which differs in each process.
    return (
        int.from_bytes(
            hashlib.blake2b(prompt.encode("utf-8", "replace"), digest_size=4).digest(), "big"
        )
        / 2**32
    )


class ScriptedModel:
    """Answers by a text, a mapping of prompts to texts, or a function; deterministic if the
    function is.
    """

    def __init__(
        self,
        script: str | Mapping[str, str] | Script,
        *,
        name: str = "scripted",
        delay: float = 0.0,
        version: str = "",
    ) -> None:
        self.name = name
        self._script = script
        self._delay = delay
        content = repr(sorted(script.items())) if isinstance(script, Mapping) else ""
        content = script if isinstance(script, str) else content
        self.lineage = Lineage(name=name, hash=digest("scripted", name, content, version))
        self.calls = 0

    def _answer(self, conversation: Conversation, sampling: Sampling) -> Answer:
        if isinstance(self._script, str):
            reply: str | Answer = self._script
        elif isinstance(self._script, Mapping):
            reply = self._script.get(
                conversation.prompt,
                Answer.failed("missing", "the script has no answer to this prompt"),
            )
        else:
            reply = self._script(conversation, sampling)
        if isinstance(reply, Answer):
            return reply
        # Words stand in for tokens, so that `max_tokens` and usage behave as in a real model.
        words = reply.split(" ")
        cut = len(words) > sampling.max_tokens
        text = " ".join(words[: sampling.max_tokens]) if cut else reply
        read = sum(len(m.content.split()) for m in conversation.messages)
        usage = Usage(read, min(len(words), sampling.max_tokens))
        return Answer(
            message=Message("assistant", text),
            finish_reason="length" if cut else "stop",
            usage=usage,
        )

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers; a function gets a seed of its own for each."""
        self.calls += 1
        if self._delay:
            await asyncio.sleep(self._delay)
        if sampling.n == 1:
            return (self._answer(conversation, sampling),)
        seeds = [stream_seed(sampling.seed, i) for i in range(sampling.n)]
        return tuple(
            self._answer(
                conversation,
                Sampling(
                    max_tokens=sampling.max_tokens,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    seed=s,
                ),
            )
            for s in seeds
        )

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Yields the answer word by word; raises ConnectionError for a scripted failure."""
        answer = (await self.generate(conversation, sampling))[0]
        if answer.failure is not None:
            raise ConnectionError(answer.failure.message)
        words = answer.text.split(" ") if answer.text else []
        for i, word in enumerate(words):
            yield word if i == 0 else " " + word

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """A fixed number between -5 and -0.01 for each word of each continuation, whatever the
        prefix.
        """
        return [
            [-0.01 - 4.99 * _hash_to_unit(word) for word in text.split()] for text in continuations
        ]


def _mixed_script(refuse_share: float) -> Script:
    def script(conversation: Conversation, sampling: Sampling) -> str:
        if _hash_to_unit(conversation.prompt) < refuse_share:
            return REFUSAL
        return f"{ANSWER} (About: {conversation.prompt[:60]})"

    return script


def build(args: Args) -> ScriptedModel:
    """Returns the model of a `scripted:` spec."""
    scripts: dict[str, str | Script] = {
        "mixed": _mixed_script(args.number("refuse_share", 0.5)),
        "refuse": REFUSAL,
        "comply": ANSWER,
        "echo": lambda conversation, sampling: conversation.prompt,
        "empty": "",
        "fail": lambda conversation, sampling: Answer.failed(
            "scripted", "this model fails on purpose"
        ),
        "say": args.text("text", ANSWER),
    }
    name = args.name or "mixed"
    if name not in scripts:
        raise SpecError(
            f"spec '{args.spec}': there is no script {name!r}{did_you_mean(name, scripts)}"
        )
    return ScriptedModel(
        scripts[name],
        name=f"scripted:{name}",
        delay=args.number("delay", 0.0),
        # Functions have no content to hash: the spec stands for them in the lineage.
        version=str(args.spec),
    )
