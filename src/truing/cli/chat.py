"""`truing chat`: talk to a model in the terminal, with the rails' decisions beside the answers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from truing.protocols import Closes, Model, Streams
from truing.registry import resolve
from truing.types import Answer, Conversation, Message, Sampling


def command(
    *, model: str | None = None, rails: Path | None = None, system: str | None = None, max_tokens: int = 256,
    temperature: float = 0.0, decisions: bool = False,
) -> int:  # fmt: skip
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
        The longest answer.
    temperature
        0 is greedy.
    decisions
        Show what each rail decided.
    """
    from truing.errors import PlanError

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
        from truing.rails.guarded import Guarded

        talker = Guarded(rails, talker)
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
    return asyncio.run(_talk(talker, system, sampling, decisions))


async def _talk(model: Model, system: str | None, sampling: Sampling, decisions: bool) -> int:
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
            answer = await _answer(model, talk, sampling, decisions)
            if answer.failure is not None:
                print(f"  [{answer.failure.kind}: {answer.failure.message}]", file=sys.stderr)
                talk = Conversation(talk.messages[:-1])
                continue
            talk = talk.then(answer.message)
    finally:
        if isinstance(model, Closes):
            await model.close()


async def _answer(model: Model, talk: Conversation, sampling: Sampling, decisions: bool) -> Answer:
    if isinstance(model, Streams) and not decisions:
        print("bot> ", end="", flush=True)
        pieces = []
        async for piece in model.stream(talk, sampling):
            pieces.append(piece)
            print(piece, end="", flush=True)
        print()
        return Answer.of("".join(pieces))
    answer = (await model.generate(talk, sampling))[0]
    if answer.failure is None:
        print(f"bot> {answer.text}")
    for r in answer.rulings if decisions else ():
        why = f": {r.reason}" if r.reason else ""
        print(f"  [{r.stage} · {r.name} · {r.ruling}{why} · {r.ms:.1f} ms]")
    return answer
