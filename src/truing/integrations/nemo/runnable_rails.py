"""`RunnableRails`: a configuration of rails as a Runnable of LangChain.

`guardrails | llm` puts rails around a model, `guardrails | chain` around a whole chain, as with
NeMo Guardrails' class of the same name. What a chain gets is its input with the text that the
input rails left; what is streamed has passed the rails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.integrations.background_loop import BACKGROUND_LOOP
from truing.integrations.langchain.chat_model import GuardedChatModel
from truing.integrations.langchain.messages import read_content, read_tools
from truing.integrations.langchain.turns import ChatRails
from truing.integrations.nemo.llm_rails import LLMRails
from truing.rails.config.loader import RailsConfig
from truing.specs.extras import needs_extra

with needs_extra("truing.integrations.nemo", "langchain"):
    from langchain_core.language_models import BaseLanguageModel
    from langchain_core.language_models.chat_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
    from langchain_core.messages.utils import convert_to_messages, convert_to_openai_messages
    from langchain_core.prompt_values import ChatPromptValue, StringPromptValue
    from langchain_core.runnables import Runnable, RunnableSequence


@dataclass(slots=True)
class _ChainCall:
    """One call of the chain: its input, its settings, and its output once there is one."""

    chain_input: Any
    settings: Any
    arguments: Mapping[str, Any]
    output: Any = None
    error: Exception | None = None


_UNUSED_ARGUMENTS = {"verbose", "input_blocked_message", "output_blocked_message"}
_CALL: ContextVar[_ChainCall] = ContextVar("truing_chain_call")


class _ChainModel:
    """The model inside the rails: calls the chain with the text that the input rails left."""

    name = "runnable"
    lineage = Lineage(name="runnable")

    def __init__(self, chain: Any, input_key: str, output_key: str) -> None:
        self.chain, self.input_key, self.output_key = chain, input_key, output_key

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns the chain's text; an exception of the chain is a failure."""
        call = _CALL.get()
        text = next(m.content for m in reversed(conversation.messages) if m.role == "user")
        try:
            call.output = await self.chain.ainvoke(
                self._with_text(call.chain_input, text), call.settings, **call.arguments
            )
            return (Answer.of(_text_of(call.output, self.output_key)),)
        except Exception as error:
            call.error = error
            return (Answer.failed("model", type(error).__name__),)

    def _with_text(self, value: Any, text: str) -> Any:
        """Returns the chain's input with the user's text replaced, in its own form."""
        if isinstance(value, str):
            return text
        if isinstance(value, dict) and isinstance(value.get(self.input_key), str):
            return {**value, self.input_key: text}
        if isinstance(value, BaseMessage):
            return value.model_copy(update={"content": text})
        if _user_text(value, self.input_key) != text:
            raise ValueError("the input rails changed a text that stands in no known place")
        return value


class RunnableRails(Runnable[Any, Any]):
    """`config` around `llm`, or around the Runnable `runnable`.

    `tools` become actions by their names; `input_key` and `output_key` are those of dictionaries.
    `verbose` and the two messages for blocked turns are accepted and, as in NeMo Guardrails, not
    used: the configuration words its refusals.
    """

    def __init__(
        self,
        config: RailsConfig,
        llm: Any = None,
        tools: Sequence[Any] | None = None,
        passthrough: bool = True,
        runnable: Any = None,
        *,
        input_key: str = "input",
        output_key: str = "output",
        **unused: Any,
    ) -> None:
        unknown = sorted(unused.keys() - _UNUSED_ARGUMENTS)
        if unknown:
            raise TypeError(f"RunnableRails: no argument is called {unknown[0]!r}")
        self.config, self.llm, self.runnable = config, llm, runnable
        self.tools, self.passthrough = list(tools or ()), passthrough and not tools
        self.input_key, self.output_key = input_key, output_key
        self._chat: Any = None
        self.rails: LLMRails | None = None
        self._build()

    def _build(self) -> None:
        config: Any = replace(self.config, passthrough=self.passthrough)
        if self.runnable is not None:
            model = _ChainModel(self.runnable, self.input_key, self.output_key)
            self.rails = LLMRails(replace(config, passthrough=True), llm=model)
        elif _is_chat_model(self.llm) and self.passthrough:
            self._chat = _guard_chat_model(self.llm, config)
        elif self.llm is not None or any(entry.type == "main" for entry in config.models):
            self.rails = LLMRails(config, llm=self.llm)
        if self.rails is not None:
            for tool in self.tools:
                self.rails.register_action(tool.func or tool.ainvoke, tool.name)

    def __or__(self, other: Any) -> Any:
        """Returns rails around a model or a chain; after that, a sequence."""
        if isinstance(other, BaseLanguageModel) or _is_chat_model(other):
            return self._with(llm=other)
        if isinstance(other, Runnable) and self.runnable is None and self.llm is None:
            return self._with(runnable=other)
        return RunnableSequence(self, other)

    def _with(self, llm: Any = None, runnable: Any = None) -> RunnableRails:
        return type(self)(
            self.config,
            llm or self.llm,
            self.tools,
            self.passthrough,
            runnable or self.runnable,
            input_key=self.input_key,
            output_key=self.output_key,
        )

    # -- calls ---------------------------------------------------------------------------------

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """Returns the answer in the form of the input: a text, a message or a dictionary.

        Raises ValueError for an input in no known form, and what the model or the chain raised.
        """
        if self.runnable is not None:
            return await self._invoke_chain(input, config, kwargs)
        messages, context = self._read_input(input)
        if self._chat is not None and not context:
            answer = await self._chat.ainvoke(messages, config, **kwargs)
            return self._format(input, answer)
        if self.rails is None:
            raise ValueError("RunnableRails has no model: guardrails | llm, or llm=")
        rows = [{"role": "context", "content": context}] if context else []
        rows += convert_to_openai_messages(messages)
        reply = await self.rails.generate_async(messages=rows)
        assert isinstance(reply, dict), "without options the answer is a message"
        return self._format(input, AIMessage(str(reply["content"])))

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """As `ainvoke`, outside of async code."""
        return BACKGROUND_LOOP.run(self.ainvoke(input, config, **kwargs))

    async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Yields the answer in chunks of the input's form; a chain's answer comes as a whole."""
        if self._chat is None:
            yield await self.ainvoke(input, config, **kwargs)
            return
        messages, context = self._read_input(input)
        if context:
            yield await self.ainvoke(input, config, **kwargs)
            return
        async for chunk in self._chat.astream(messages, config, **kwargs):
            yield self._format(input, chunk)

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
        """As `astream`, outside of async code."""
        return BACKGROUND_LOOP.iterate(self.astream(input, config, **kwargs))

    async def _invoke_chain(self, value: Any, settings: Any, arguments: Mapping[str, Any]) -> Any:
        assert self.rails is not None, "a chain has rails around it"
        call = _ChainCall(value, settings, arguments)
        token = _CALL.set(call)
        try:
            rows = [{"role": "user", "content": _user_text(value, self.input_key)}]
            reply = await self.rails.generate_async(messages=rows)
        except ConnectionError:
            if call.error is not None:
                raise call.error from None
            raise
        finally:
            _CALL.reset(token)
        assert isinstance(reply, dict), "without options the answer is a message"
        text = str(reply["content"])
        output = call.output
        if isinstance(output, str):
            return text
        if isinstance(output, BaseMessage):
            return output.model_copy(update={"content": text})
        return {**(output or {}), self.output_key: text}

    # -- forms of input and output ---------------------------------------------------------------

    def _read_input(self, chain_input: Any) -> tuple[list[Any], dict[str, Any]]:
        """Returns the messages of an input, and the variables in its `context`."""
        if isinstance(chain_input, Mapping):
            content = chain_input.get(self.input_key, chain_input.get("input"))
            context = chain_input.get("context") or {}
            if content is None or not isinstance(context, Mapping):
                raise ValueError(
                    f"expected {self.input_key!r} (and a mapping as context) in the input; "
                    f"it has {sorted(map(str, chain_input))}"
                )
            return self._read_input(content)[0], dict(context)
        if isinstance(chain_input, ChatPromptValue | StringPromptValue):
            return chain_input.to_messages(), {}
        if isinstance(chain_input, str):
            return [HumanMessage(chain_input)], {}
        if isinstance(chain_input, BaseMessage):
            return [chain_input], {}
        if isinstance(chain_input, list) and chain_input:
            return convert_to_messages(chain_input), {}
        raise ValueError(
            f"an input of type {type(chain_input).__name__}: expected a text, messages, a prompt, "
            "or a dictionary with one of them"
        )

    def _format(self, value: Any, answer: Any) -> Any:
        """Returns an answer (a message or a chunk of one) in the form of the input."""
        if isinstance(value, str | StringPromptValue):
            return read_content(answer.content, is_model=True)
        if not isinstance(value, Mapping):
            return answer
        content = value.get(self.input_key, value.get("input"))
        if isinstance(content, list) and all(isinstance(row, dict) for row in content):
            text = read_content(answer.content, is_model=True)
            return {self.output_key: {"role": "assistant", "content": text}}
        return {self.output_key: self._format(content, answer)}


def _is_chat_model(value: Any) -> bool:
    """Returns whether a value is a chat model, or one with tools bound."""
    return isinstance(value, BaseChatModel) or isinstance(
        getattr(value, "bound", None), BaseChatModel
    )


def _guard_chat_model(llm: Any, config: RailsConfig) -> GuardedChatModel:
    rails = ChatRails(config)
    if isinstance(llm, BaseChatModel):
        return GuardedChatModel(llm, rails)
    # A binding, as `llm.bind_tools` returns it: the rails must know the tools.
    tools = tuple(read_tools(llm.kwargs.get("tools") or ()))
    return GuardedChatModel(llm.bound, rails, bound_model=llm, bound_tools=tools)


def _user_text(chain_input: Any, input_key: str) -> str:
    """Returns the text of a chain's input that the input rails read."""
    if isinstance(chain_input, Mapping):
        return (
            _user_text(chain_input[input_key], input_key)
            if input_key in chain_input
            else str(chain_input)
        )
    if isinstance(chain_input, BaseMessage):
        return read_content(chain_input.content)
    if isinstance(chain_input, ChatPromptValue | StringPromptValue):
        return str(chain_input.to_string())
    return chain_input if isinstance(chain_input, str) else str(chain_input)


def _text_of(output: Any, output_key: str) -> str:
    """Returns the text of a chain's output. Raises ValueError where it has none."""
    if isinstance(output, BaseMessage):
        return read_content(output.content, is_model=True)
    text = output.get(output_key) if isinstance(output, Mapping) else output
    if not isinstance(text, str):
        raise ValueError(f"the chain's output has no text under {output_key!r}")
    return text
