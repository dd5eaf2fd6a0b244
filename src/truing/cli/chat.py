"""`truing chat`: talk to a model in the terminal, with the rails' decisions beside the answers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from truing.core.protocols import Closeable, Model, StreamingModel
from truing.core.types import Answer, Conversation, Message, Sampling
from truing.specs.resolve import resolve


def command(
    *,
    model: str | None = None,
    rails: Path | None = None,
    system: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    decisions: bool = False,
) -> int:
    """Talks to a model; an empty line, /quit or Ctrl-D ends, /new starts again.

    Parameters
    ----------
    model
        Spec of the model, such as local:smollm2. Without it the `models:` of --rails are used.
    rails
        A rails configuration to put before it.
    system
        A system prompt.
    max_tokens
        The longest answer (256, or what --rails says).
    temperature
        0 is greedy (0, or what --rails says).
    decisions
        Show what each rail decided.
    """
    from truing.core.errors import PlanError

    if model is None and rails is None:
        raise PlanError("chat: give --model, or --rails with a configuration that names its models")
    talker: Model
    if model is not None:
        talker = resolve(model, "model")
    else:
        from truing.cli.rails_models import main_model

        assert rails is not None
        talker = main_model(rails)
    if rails is not None:
        from truing.rails.guarded import GuardedModel

        talker = GuardedModel(rails, talker)
    # what is not given stays at its default, and there the parameters of a configuration hold
    given = {"max_tokens": max_tokens, "temperature": temperature}
    sampling = Sampling(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    asked = frozenset(name for name, value in given.items() if value is not None)
    return asyncio.run(_talk(talker, system, sampling, asked, decisions))


async def _talk(
    model: Model, system: str | None, sampling: Sampling, asked: frozenset[str], decisions: bool
) -> int:
    start = Conversation((Message("system", system),) if system else ())
    talk = start
    tty = sys.stdin.isatty()
    try:
        while True:
            if tty:
                print("you> ", end="", flush=True)
            line = await asyncio.to_thread(sys.stdin.readline)
            if not line or line.strip() in ("", "/quit", "/exit"):
                return 0
            if line.strip() == "/new":
                talk = start
                continue
            talk = talk.then(Message("user", line.rstrip("\n")))
            answer = await _answer(model, talk, sampling, asked, decisions)
            if answer.failure is not None:
                print(f"  [{answer.failure.kind}: {answer.failure.message}]", file=sys.stderr)
                talk = Conversation(talk.messages[:-1])
                continue
            talk = talk.then(answer.message)
    finally:
        if isinstance(model, Closeable):
            await model.close()


async def _answer(
    model: Model, talk: Conversation, sampling: Sampling, asked: frozenset[str], decisions: bool
) -> Answer:
    from truing.rails.guarded import GuardedModel

    print("bot> ", end="", flush=True)
    answer = None
    pieces: list[str] = []
    if isinstance(model, GuardedModel):
        async for piece in model.stream_with_answer(talk, sampling, explicit_fields=asked):
            if isinstance(piece, Answer):
                answer = piece
            else:
                print(piece, end="", flush=True)
    elif isinstance(model, StreamingModel):
        async for text in model.stream(talk, sampling):
            pieces.append(text)
            print(text, end="", flush=True)
        answer = Answer.of("".join(pieces))
    else:
        answer = (await model.generate(talk, sampling))[0]
        print(answer.text, end="")
    print()
    answer = answer or Answer.failed("empty", "no answer came back")
    for r in answer.rulings if decisions else ():
        print(
            f"  {r.stage:<7} {r.name:<32} {r.ruling:<8}{r.ms:>8.1f} ms  {r.reason or ''}".rstrip()
        )
    return answer
