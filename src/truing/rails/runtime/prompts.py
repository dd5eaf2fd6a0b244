"""The prompts of the built-in tasks, in our own words, and the choice between them and a configuration's own.

Tasks: general, generate_user_intent, generate_next_steps, generate_bot_message, generate_intent_steps_message,
generate_value, and whatever a library rail or an action asks for.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from truing.rails.config.entries import ModelEntry, PromptEntry
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.conversation_state import History
from truing.rails.runtime.prompt_filters import PARSERS
from truing.rails.runtime.templates import PromptError, render

Prompt = str | list[dict[str, Any]]

_HEAD = "{{ general_instructions }}\n\n"
_SAMPLE = "This is what a conversation can look like:\n{{ sample_conversation }}\n\n"
BUILT_IN = {
    "generate_user_intent": _HEAD
    + "Each user message has a canonical form: a short phrase that says what the user wants. Examples:\n{{ examples }}\n"
    "Canonical forms to choose from: {{ potential_user_intents }}\n\nThe conversation:\n"
    "{{ sample_conversation | first_turns(2) }}\n{{ history | colang | last_turns(8) }}\n"
    "Answer with the canonical form of the last user message and nothing else (the user intent):",
    "generate_next_steps": _HEAD
    + "These flows show what the bot does next:\n{{ examples | remove_text_messages }}\n"
    "The conversation, in canonical forms:\n{{ sample_conversation | first_turns(2) | remove_text_messages }}\n"
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
    "For a user message, write three lines: its canonical form, the bot's next step ('bot ' and a phrase), and the bot's "
    "message in double quotes. Examples:\n{{ examples }}\nCanonical forms to choose from: {{ potential_user_intents }}\n\n"
    "The conversation:\n{{ sample_conversation | first_turns(2) }}\n{{ history | colang | last_turns(8) }}",
    "generate_value": _HEAD
    + "These flows show how values are used:\n{{ examples }}\nThe conversation:\n{{ history | colang | last_turns(8) }}\n"
    "# {{ instructions }}\nWrite only the value, on one line, a text in double quotes:\n${{ var_name }} =",
}

_VERBOSE = ("generate_user_intent", "generate_next_steps", "generate_bot_message", "generate_value")
_CHAT = {
    "generate_user_intent": "user_intent",
    "generate_next_steps": "bot_intent",
    "generate_bot_message": "bot_message",
}


def built_in_parser(model: str, task: str) -> str | None:
    """How the answer of a model (engine/name, or unknown) to a built-in prompt is read."""
    if model in ("unknown", "openai/gpt-3.5-turbo-instruct") or "deepseek" in model:
        return None
    if "openai/gpt-3.5-turbo" in model or "openai/gpt-4" in model:
        return _CHAT.get(task)
    if task in _VERBOSE:
        return "verbose_v1"
    chatty = ("meta/llama-3", "meta/llama3", "usdcode-llama-3", "nemotron")
    return (
        "verbose_v1"
        if task == "generate_intent_steps_message" and any(c in model for c in chatty)
        else None
    )


def _score(entry: PromptEntry, model: str, mode: str) -> float:
    score = 0.2
    if entry.models:
        score = 0.0
        path = model.partition("/")[2] or model
        for wanted in entry.models:
            if wanted == model:
                score = 1.0
            elif "/" in wanted and path.startswith(wanted):
                score = 0.8 if wanted == path else 0.9
            elif model.startswith(wanted + "/"):
                score = 0.5
            elif model.endswith("/" + wanted):
                score = 0.8
            elif wanted in model:
                score = 0.4
            if score:
                break
    if score and entry.mode != mode:
        score = score * 0.5 if entry.mode == "standard" else 0.0
    return score


class Prompts:
    """Renders the prompt of a task and reads what came back; actions know it as `llm_task_manager`."""

    def __init__(self, config: RailsConfig) -> None:
        self.config = config
        self.parsers: dict[str, Callable[[str], Any]] = dict(PARSERS)
        self.extra: dict[str, Any] = {}
        self._chosen: dict[str, PromptEntry | None] = {}

    def _model(self, task: str) -> str:
        entries: Sequence[ModelEntry] = self.config.models
        found = next((m for m in entries if m.type == task), None) or next(
            (m for m in entries if m.type == "main"), None
        )
        return f"{found.engine}/{found.model}".lower() if found else "unknown"

    def entry(self, task: str) -> PromptEntry | None:
        """The configuration's own prompt of a task that fits the model, or none."""
        if task not in self._chosen:
            model, best, chosen = self._model(task), 0.0, None
            for entry in self.config.prompts:
                if entry.task == task:
                    score = _score(entry, model, self.config.prompting_mode)
                    if score and score >= best:
                        best, chosen = score, entry
            self._chosen[task] = chosen
        return self._chosen[task]

    def has(self, task: str) -> bool:
        """Whether the task has a prompt."""
        return self.entry(task) is not None or task in BUILT_IN or task == "general"

    def parser(self, task: str) -> str | None:
        """The name of the parser of the task's answers."""
        entry = self.entry(task)
        return (
            entry.output_parser if entry is not None else built_in_parser(self._model(task), task)
        )

    def parse_task_output(
        self, task: str, output: str, forced_output_parser: str | None = None
    ) -> Any:
        """What the answer says."""
        parse = self.parsers.get(forced_output_parser or self.parser(str(task)) or "")
        return parse(output) if parse is not None else output

    def has_output_parser(self, task: str) -> bool:
        """Whether the task names a parser."""
        return self.parser(str(task)) is not None

    def get_stop_tokens(self, task: str) -> list[str] | None:
        """The texts at which the answer ends."""
        entry = self.entry(str(task))
        return list(entry.stop) or None if entry is not None else None

    def get_max_tokens(self, task: str) -> int | None:
        """The longest answer."""
        entry = self.entry(str(task))
        return entry.max_tokens if entry is not None else None

    def render_task_prompt(
        self,
        task: str,
        context: Mapping[str, Any] | None = None,
        events: Any = None,
        force_string_to_message: bool = False,
    ) -> Prompt:
        """The prompt of a task: a text, or chat messages. Old turns are left out where it would be too long."""
        task = str(getattr(task, "value", task))
        entry = self.entry(task)
        history = events if isinstance(events, History) or events is None else History(events)
        if entry is None and task == "general":
            return self._general(history, context or {})
        if entry is None and task not in BUILT_IN:
            raise PromptError(f"there is no prompt for the task {task!r}; add it to prompts")
        longest = entry.max_length if entry is not None else 16_000
        made = self._render(task, entry, context or {}, history)
        while _size(made) > longest:
            if not history:
                raise PromptError(
                    f"the prompt of {task!r} is longer than {longest} characters even without history"
                )
            history = _shorter(history, _size(made) - longest)
            made = self._render(task, entry, context or {}, history)
        if force_string_to_message and isinstance(made, str):
            return [{"type": "user", "content": made}]
        return made

    def _render(
        self, task: str, entry: PromptEntry | None, context: Mapping[str, Any], history: Any
    ) -> Prompt:
        known = {
            "history": history if history is not None else History(),
            "general_instructions": self.config.instructions,
            "sample_conversation": self.config.sample_conversation,
            "sample_conversation_two_turns": self.config.sample_conversation,
            **context,
            **{k: v() if callable(v) else v for k, v in self.extra.items()},
        }
        if entry is None:
            return render(BUILT_IN[task], known)
        if entry.content is not None:
            return render(entry.content, known)
        rows: list[dict[str, Any]] = []
        for role, text in entry.messages:
            said = render(text, known)
            if role:
                rows += [{"type": role, "content": said}] if said.strip() else []
                continue
            try:
                rows.extend(literal_eval(said))
            except (SyntaxError, ValueError) as error:
                raise PromptError(f"the messages of the prompt {task!r} are no list") from error
        return rows

    def _general(self, history: Any, context: Mapping[str, Any]) -> Prompt:
        """The plain chat: instructions as the system message, then the conversation."""
        system = self.config.instructions
        if context.get("relevant_chunks"):
            system += f"\n\nFacts to rely on:\n{context['relevant_chunks']}"
        chat = [
            {"type": role, "content": content}
            for role, content in (history.chat if history else ())
        ]
        budget, kept = 16_000 - len(system), list[dict[str, Any]]()
        for row in reversed(chat):
            budget -= len(str(row["content"]))
            if budget < 0 and kept:
                break
            kept.append(row)
        return [{"type": "system", "content": system}, *reversed(kept)]


def _size(prompt: Prompt) -> int:
    return (
        len(prompt)
        if isinstance(prompt, str)
        else sum(len(str(m.get("content", ""))) for m in prompt)
    )


def _shorter(history: History, over: int) -> History:
    """A copy without as many of the oldest events as give back `over` characters."""
    at = gone = 0
    while at < len(history) and gone < over:
        event = history[at]
        gone += len(str(event.get("text") or event.get("script") or event.get("intent") or "")) + 2
        at += 1
    return History(history[max(at, 1) :])
