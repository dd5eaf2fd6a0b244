"""`truing chat`: a conversation with a model in the terminal, with the decisions of its rails."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from truing.cli.parameters import KeyVariables
from truing.cli.tables import print_text
from truing.core.errors import PlanError
from truing.core.protocols import Closeable, Model, StreamingModel
from truing.core.types import Answer, Conversation, Message, Sampling

_NO_ANSWER = "no answer was returned"


def command(
    *,
    model: str | None = None,
    rails: Path | None = None,
    system: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    decisions: bool = False,
    trust_code: bool = False,
    allow_key_env: KeyVariables = None,
) -> int:
    """Talks to a model. An empty line, /quit or Ctrl-D ends the conversation; /new starts another.

    Parameters
    ----------
    model
        Spec of the model, such as local:smollm2. Default: the `models:` of --rails.
    rails
        A rails configuration that guards the model.
    system
        A system prompt.
    max_tokens
        Maximum tokens of an answer (default: 256, or the value of --rails).
    temperature
        Sampling temperature; 0 is greedy (default: 0, or the value of --rails).
    decisions
        Show what each rail decided.
    trust_code
        Run the code of --rails, such as its actions.py (`truing rails check` lists it).
    allow_key_env
        An environment variable with a key that --rails may send to the address that it names.
    """
    chat_model = _load_model(model, rails, trust_code, allow_key_env or ())
    flags = {"max_tokens": max_tokens, "temperature": temperature}
    explicit = {name: value for name, value in flags.items() if value is not None}
    sampling = replace(Sampling(), **explicit)
    # Only parameters that were given override those of a rails configuration; defaults do not.
    session = ChatSession(
        chat_model, sampling, explicit_fields=frozenset(explicit), show_decisions=decisions
    )
    return asyncio.run(session.run(system))


def _load_model(
    spec: str | None, rails: Path | None, trust_code: bool, key_variables: Sequence[str]
) -> Model:
    """Returns the model of --model, else the main model of --rails, guarded if --rails is given."""
    from truing.specs.resolve import resolve

    if spec is not None:
        model: Model = resolve(spec, "model")
    elif rails is not None:
        from truing.cli.rails_models import load_main_model

        model = load_main_model(rails, trust_code=trust_code, key_variables=key_variables)
    else:
        raise PlanError("chat: give --model, or --rails with a configuration that names its models")
    if rails is None:
        return model
    from truing.rails.guarded import guard_model

    return guard_model(model, rails, trust_code=trust_code, key_variables=key_variables)


class ChatSession:
    """A conversation between standard input and a model."""

    def __init__(
        self,
        model: Model,
        sampling: Sampling,
        *,
        explicit_fields: frozenset[str],
        show_decisions: bool,
    ) -> None:
        self.model = model
        self.sampling = sampling
        self.explicit_fields = explicit_fields
        self.show_decisions = show_decisions

    async def run(self, system: str | None) -> int:
        """Reads lines and prints answers until the user ends the chat; returns exit status 0."""
        from truing.http.limits import close_connections

        start = Conversation((Message("system", system),) if system else ())
        conversation = start
        prompt_user = sys.stdin.isatty()
        try:
            while True:
                if prompt_user:
                    print_text("you> ", end="", flush=True)
                # In a thread: the connections of the model stay alive while the user types.
                line = await asyncio.to_thread(sys.stdin.readline)
                if line.strip() in ("", "/quit", "/exit"):
                    return 0
                if line.strip() == "/new":
                    conversation = start
                    continue
                with_question = conversation.then(Message("user", line.rstrip("\n")))
                answer = await self._answer(with_question)
                if answer.failure is None:
                    conversation = with_question.then(answer.message)
                else:
                    # The question is dropped, so that the user can ask it again.
                    failure = f"{answer.failure.kind}: {answer.failure.message}"
                    print_text(f"  [{failure}]", file=sys.stderr)
        finally:
            if isinstance(self.model, Closeable):
                await self.model.close()
            # Judges of the rails have connections of their own.
            await close_connections()

    async def _answer(self, conversation: Conversation) -> Answer:
        """Prints the answer as it arrives, then the rails' decisions; returns the whole answer."""
        print_text("bot> ", end="", flush=True)
        answer = await self._print_answer(conversation)
        print_text()
        if self.show_decisions:
            for ruling in answer.rulings:
                line = f"  {ruling.stage:<7} {ruling.name:<32} {ruling.ruling:<8}"
                line += f"{ruling.ms:>8.1f} ms  {ruling.reason or ''}"
                print_text(line.rstrip())
        return answer

    async def _print_answer(self, conversation: Conversation) -> Answer:
        from truing.rails.guarded import GuardedModel

        if isinstance(self.model, GuardedModel):
            # A guarded stream ends with the whole answer, which has the decisions.
            answer = None
            async for chunk in self.model.stream_with_answer(
                conversation, self.sampling, explicit_fields=self.explicit_fields
            ):
                if isinstance(chunk, Answer):
                    answer = chunk
                else:
                    print_text(chunk, end="", flush=True)
            return answer or Answer.failed("empty", _NO_ANSWER)
        if isinstance(self.model, StreamingModel):
            return await self._print_stream(self.model, conversation)
        answer = (await self.model.generate(conversation, self.sampling))[0]
        print_text(answer.text, end="")
        return answer

    async def _print_stream(self, model: StreamingModel, conversation: Conversation) -> Answer:
        """Prints a stream of text; returns a failed answer if it breaks off or brings nothing."""
        chunks: list[str] = []
        try:
            async for text in model.stream(conversation, self.sampling):
                chunks.append(text)
                print_text(text, end="", flush=True)
        except ConnectionError as error:
            return Answer.failed("connect", str(error))
        # A stream has no place for a failure: without text, there was one.
        return Answer.of("".join(chunks)) if chunks else Answer.failed("empty", _NO_ANSWER)
