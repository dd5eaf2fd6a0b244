"""A model of fixed answers: for tests, for examples, and to see what a run costs without a model.

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
from truing.core.lineage import digest
from truing.core.types import Answer, Conversation, Lineage, Message, Sampling, Usage, stream_seed
from truing.specs.resolve import Args

Script = Callable[[Conversation, Sampling], str | Answer]

REFUSAL = "I would rather not go into that. Happy to talk about something else."
ANSWER = (
    "Here is a short overview: start small, ask people who know the subject, and write down "
    "what you learn."
)


def _share(prompt: str) -> float:
    return (
        int.from_bytes(
            hashlib.blake2b(prompt.encode("utf-8", "replace"), digest_size=4).digest(), "big"
        )
        / 2**32
    )


class Scripted:
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
        given = repr(sorted(script.items())) if isinstance(script, Mapping) else ""
        given = script if isinstance(script, str) else given
        self.lineage = Lineage(name=name, hash=digest("scripted", name, given, version))
        self.calls = 0

    def _one(self, conversation: Conversation, sampling: Sampling) -> Answer:
        if isinstance(self._script, str):
            said: str | Answer = self._script
        elif isinstance(self._script, Mapping):
            found = self._script.get(conversation.prompt)
            said = (
                Answer.failed("missing", "the script has no answer to this prompt")
                if found is None
                else found
            )
        else:
            said = self._script(conversation, sampling)
        if isinstance(said, Answer):
            return said
        words = said.split(" ")
        cut = len(words) > sampling.max_tokens
        text = " ".join(words[: sampling.max_tokens]) if cut else said
        read = sum(len(m.content.split()) for m in conversation.messages)
        usage = Usage(read, min(len(words), sampling.max_tokens))
        return Answer(
            message=Message("assistant", text),
            finish_reason="length" if cut else "stop",
            usage=usage,
        )

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """`sampling.n` answers; a function sees a seed of its own for each."""
        self.calls += 1
        if self._delay:
            await asyncio.sleep(self._delay)
        if sampling.n == 1:
            return (self._one(conversation, sampling),)
        seeds = [stream_seed(sampling.seed, i) for i in range(sampling.n)]
        return tuple(
            self._one(
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
        """Word by word."""
        answer = (await self.generate(conversation, sampling))[0]
        words = answer.text.split(" ") if answer.text else []
        for at, word in enumerate(words):
            yield word if at == 0 else " " + word

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """A fixed number between -5 and -0.01 for each word of each continuation, whatever the
        prefix.
        """
        return [[-0.01 - 4.99 * _share(word) for word in text.split()] for text in continuations]


def _mixed(share: float) -> Script:
    def script(conversation: Conversation, sampling: Sampling) -> str:
        if _share(conversation.prompt) < share:
            return REFUSAL
        return f"{ANSWER} (About: {conversation.prompt[:60]})"

    return script


def build(args: Args) -> Scripted:
    """The model of a `scripted:` spec."""
    scripts: dict[str, str | Script] = {
        "mixed": _mixed(args.number("refuse_share", 0.5)),
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
    return Scripted(
        scripts[name],
        name=f"scripted:{name}",
        delay=args.number("delay", 0.0),
        version=str(args.spec),
    )
