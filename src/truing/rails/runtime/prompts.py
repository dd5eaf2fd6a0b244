"""The prompts of LLM tasks: the built-in ones, and those of a configuration that go before them.

Tasks are general, generate_user_intent, generate_next_steps, generate_bot_message,
generate_intent_steps_message, generate_value, and whatever a library rail or an action asks for.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from truing.core.errors import did_you_mean
from truing.rails.config.entries import ModelEntry, PromptEntry
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.conversation_state import EventHistory
from truing.rails.runtime.prompt_filters import PARSERS
from truing.rails.runtime.templates import PromptError, render_template

Prompt = str | list[dict[str, Any]]
MAX_PROMPT_CHARACTERS = 16_000  # where a prompt of the configuration sets no max_length

_HEAD = "{{ general_instructions }}\n\n"
_SAMPLE = "This is what a conversation can look like:\n{{ sample_conversation }}\n\n"
BUILT_IN_PROMPTS = {
    "generate_user_intent": _HEAD
    + "Each user message has a canonical form: a short phrase that says what the user wants. "
    "Examples:\n{{ examples }}\n"
    "Canonical forms to choose from: {{ potential_user_intents }}\n\nThe conversation:\n"
    "{{ sample_conversation | first_turns(2) }}\n{{ history | colang | last_turns(8) }}\n"
    "Answer with the canonical form of the last user message and nothing else (the user intent):",
    "generate_next_steps": _HEAD
    + "These flows show what the bot does next:\n{{ examples | remove_text_messages }}\n"
    "The conversation, in canonical forms:\n{{ sample_conversation | first_turns(2) | "
    "remove_text_messages }}\n"
    "{{ history | colang | last_turns(8) | remove_text_messages }}\n"
    "Continue with the bot's next step, one line that starts with 'bot ':",
    "generate_bot_message": _HEAD
    + _SAMPLE
    + "{% if relevant_chunks %}Facts to rely on:\n{{ relevant_chunks }}\n\n{% endif %}"
    "These examples show how the bot talks:\n{{ examples }}\nThe conversation:\n"
    "{{ history | colang | last_turns(8) }}\n"
    "Write the text of the bot's message for the last line, in double quotes, and nothing else:",
    "generate_intent_steps_message": _HEAD
    + "{% if relevant_chunks %}Facts to rely on:\n{{ relevant_chunks }}\n\n{% endif %}"
    "For a user message, write three lines: its canonical form, the bot's next step ('bot ' and a "
    "phrase), and the bot's "
    "message in double quotes. Examples:\n{{ examples }}\nCanonical forms to choose from: {{ "
    "potential_user_intents }}\n\n"
    "The conversation:\n{{ sample_conversation | first_turns(2) }}\n{{ history | colang | "
    "last_turns(8) }}",
    "generate_value": _HEAD
    + "These flows show how values are used:\n{{ examples }}\nThe conversation:\n{{ history | "
    "colang | last_turns(8) }}\n"
    "# {{ instructions }}\nWrite only the value, on one line, a text in double quotes:\n${{ "
    "var_name }} =",
}

# Tasks whose replies are read by the parser `verbose_v1`, unless the model is in a group of its own
# below.
_VERBOSE_TASKS = (
    "generate_user_intent",
    "generate_next_steps",
    "generate_bot_message",
    "generate_value",
)
_CHAT_PARSERS = {
    "generate_user_intent": "user_intent",
    "generate_next_steps": "bot_intent",
    "generate_bot_message": "bot_message",
}
_VERBOSE_SINGLE_CALL_MODELS = ("meta/llama-3", "meta/llama3", "usdcode-llama-3", "nemotron")


def built_in_parser(model: str, task: str) -> str | None:
    """Returns the parser of a model's replies to a built-in prompt, or None.

    `model` is ``engine/name`` in lower case, or ``unknown``. The choice is NeMo's, so that a
    recorded reply of a model is read here as it is read there.
    """
    if model in ("unknown", "openai/gpt-3.5-turbo-instruct") or "deepseek" in model:
        return None
    if "openai/gpt-3.5-turbo" in model or "openai/gpt-4" in model:
        return _CHAT_PARSERS.get(task)
    if task in _VERBOSE_TASKS:
        return "verbose_v1"
    if task == "generate_intent_steps_message":
        is_verbose = any(name in model for name in _VERBOSE_SINGLE_CALL_MODELS)
        return "verbose_v1" if is_verbose else None
    return None


def _match_score(entry: PromptEntry, model: str, mode: str) -> float:
    """Returns how well a prompt fits the model and prompting mode, by NeMo's scores; 0: not."""
    score = _model_score(entry.models, model) if entry.models else 0.2
    if score and entry.mode != mode:
        return score * 0.5 if entry.mode == "standard" else 0.0
    return score


def _model_score(names: Sequence[str], model: str) -> float:
    """Returns the score of the first name in a prompt's `models` that fits ``engine/name``."""
    path = model.partition("/")[2] or model
    for name in names:
        if name == model:
            return 1.0
        if "/" in name and path.startswith(name):
            return 0.8 if name == path else 0.9
        if model.startswith(name + "/"):
            return 0.5
        if model.endswith("/" + name):
            return 0.8
        if name in model:
            return 0.4
    return 0.0


class PromptManager:
    """Renders the prompts of tasks and parses the replies; actions get it as `llm_task_manager`.

    `extra_context` holds variables that `register_prompt_context` added to all prompts (values or
    functions).
    """

    def __init__(self, config: RailsConfig) -> None:
        self.config = config
        self.parsers: dict[str, Callable[[str], Any]] = dict(PARSERS)
        self.extra_context: dict[str, Any] = {}
        self._entries: dict[str, PromptEntry | None] = {}

    def _model_name(self, task: str) -> str:
        models: Sequence[ModelEntry] = self.config.models
        entry = next((m for m in models if m.type == task), None)
        if entry is None:
            entry = next((m for m in models if m.type == "main"), None)
        return f"{entry.engine}/{entry.model}".lower() if entry else "unknown"

    def find_entry(self, task: str) -> PromptEntry | None:
        """Returns the configured prompt of a task that fits the model best (the last of equals)."""
        if task not in self._entries:
            model, mode = self._model_name(task), self.config.prompting_mode
            best_score, best = 0.0, None
            for entry in self.config.prompts:
                if entry.task == task:
                    score = _match_score(entry, model, mode)
                    if score and score >= best_score:
                        best_score, best = score, entry
            self._entries[task] = best
        return self._entries[task]

    def has_prompt(self, task: str) -> bool:
        """Returns whether the task has a prompt."""
        return self.find_entry(task) is not None or task in BUILT_IN_PROMPTS or task == "general"

    def parser_name(self, task: str) -> str | None:
        """Returns the name of the parser of the task's replies, or None."""
        entry = self.find_entry(task)
        if entry is not None:
            return entry.output_parser
        return built_in_parser(self._model_name(task), task)

    # The names and arguments of the methods below are those of NeMo's LLMTaskManager, which actions
    # call.

    def parse_task_output(
        self, task: str, output: str, forced_output_parser: str | None = None
    ) -> Any:
        """Returns the parsed reply; the reply itself if the task has no parser.

        Raises PromptError for a parser that does not exist: its reply must not pass unread.
        """
        name = forced_output_parser or self.parser_name(str(task))
        if not name:
            return output
        if name not in self.parsers:
            hint = did_you_mean(name, self.parsers)
            raise PromptError(f"the task {task!r} names no known output_parser: {name!r}{hint}")
        return self.parsers[name](output)

    def has_output_parser(self, task: str) -> bool:
        """Returns whether the task names a parser."""
        return self.parser_name(str(task)) is not None

    def get_stop_tokens(self, task: str) -> list[str] | None:
        """Returns the texts at which the reply ends, or None."""
        entry = self.find_entry(str(task))
        return list(entry.stop) or None if entry is not None else None

    def get_max_tokens(self, task: str) -> int | None:
        """Returns the largest number of tokens of the reply, or None."""
        entry = self.find_entry(str(task))
        return entry.max_tokens if entry is not None else None

    def template_text(self, task: str) -> str:
        """Returns the prompt of a task as the configuration has it; empty if it has none."""
        entry = self.find_entry(task)
        if entry is None:
            return ""
        return "\n".join([entry.content or "", *(template for _, template in entry.messages)])

    def render_task_prompt(
        self,
        task: str,
        context: Mapping[str, Any] | None = None,
        events: Any = None,
        force_string_to_message: bool = False,
    ) -> Prompt:
        """Returns the prompt of a task: a text, or chat messages.

        The oldest events are left out where the prompt would be longer than its limit. Raises
        PromptError if the task has no prompt, or if the prompt is too long even without events.
        """
        task = str(getattr(task, "value", task))  # NeMo's Task is an enum
        context = context or {}
        prompt_entry = self.find_entry(task)
        history = events
        if events is not None and not isinstance(events, EventHistory):
            history = EventHistory(events)
        if prompt_entry is None and task == "general":
            return self._render_general(history, context)
        if prompt_entry is None and task not in BUILT_IN_PROMPTS:
            raise PromptError(f"there is no prompt for the task {task!r}; add it to prompts")
        limit = prompt_entry.max_length if prompt_entry is not None else MAX_PROMPT_CHARACTERS
        prompt = self._render(task, prompt_entry, context, history)
        while _prompt_length(prompt) > limit:
            if not history:
                raise PromptError(
                    f"the prompt of {task!r} is longer than {limit} characters even without history"
                )
            history = _drop_oldest_events(history, _prompt_length(prompt) - limit)
            prompt = self._render(task, prompt_entry, context, history)
        if force_string_to_message and isinstance(prompt, str):
            return [{"type": "user", "content": prompt}]
        return prompt

    def _render(
        self, task: str, prompt_entry: PromptEntry | None, context: Mapping[str, Any], history: Any
    ) -> Prompt:
        extra = {k: v() if callable(v) else v for k, v in self.extra_context.items()}
        variables = {
            "history": history if history is not None else EventHistory(),
            "general_instructions": self.config.instructions,
            "sample_conversation": self.config.sample_conversation,
            "sample_conversation_two_turns": self.config.sample_conversation,
            **context,
            **extra,
        }
        if prompt_entry is None:
            return render_template(BUILT_IN_PROMPTS[task], variables)
        if prompt_entry.content is not None:
            return render_template(prompt_entry.content, variables)
        messages: list[dict[str, Any]] = []
        for role, template in prompt_entry.messages:
            text = render_template(template, variables)
            if role:
                if text.strip():
                    messages.append({"type": role, "content": text})
                continue
            # An entry without a role is a template that renders to a list of messages.
            try:
                messages.extend(literal_eval(text))
            except (SyntaxError, ValueError) as error:
                raise PromptError(f"the messages of the prompt {task!r} are no list") from error
        return messages

    def _render_general(self, history: Any, context: Mapping[str, Any]) -> Prompt:
        """Returns the plain chat: instructions as system message, then the newest that fit."""
        system = self.config.instructions
        if context.get("relevant_chunks"):
            system += f"\n\nFacts to rely on:\n{context['relevant_chunks']}"
        budget = MAX_PROMPT_CHARACTERS - len(system)
        newest_first = list[dict[str, Any]]()
        for role, content in reversed(history.chat if history else ()):
            budget -= len(str(content))
            if budget < 0 and newest_first:
                break
            newest_first.append({"type": role, "content": content})
        return [{"type": "system", "content": system}, *reversed(newest_first)]


def _prompt_length(prompt: Prompt) -> int:
    """Returns the length in characters."""
    if isinstance(prompt, str):
        return len(prompt)
    return sum(len(str(message.get("content", ""))) for message in prompt)


def _drop_oldest_events(history: EventHistory, characters: int) -> EventHistory:
    """Returns a copy without the oldest events, of about `characters` characters (at least one)."""
    count = dropped = 0
    while count < len(history) and dropped < characters:
        event = history[count]
        text = event.get("text") or event.get("script") or event.get("intent") or ""
        dropped += len(str(text)) + 2
        count += 1
    return EventHistory(history[max(count, 1) :])
