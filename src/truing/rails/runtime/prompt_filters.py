"""Jinja filters that turn a conversation into prompt text, and parsers of LLM replies.

A conversation in Colang has lines of four forms, which the functions here tell apart by their
beginnings::

    user "Hello!"          the user's message
      express greeting     its canonical form (also: user express greeting)
    bot express greeting   the bot's canonical form
      "Hi there!"          the bot's message
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any

from truing.rails.runtime.chat_messages import content_text
from truing.rails.runtime.conversation_state import EventHistory
from truing.rails.runtime.verdict_parsers import VERDICT_PARSERS

MAX_INDENT = 80  # templates are not trusted: no filter may blow up a text


# -- filters -----------------------------------------------------------------------------------


def _as_history(events: Any) -> EventHistory:
    return events if isinstance(events, EventHistory) else EventHistory(events or ())


def render_colang(events: Any) -> str:
    """Returns a conversation as Colang."""
    return _as_history(events).colang()


def to_chat_messages(events: Any) -> list[dict[str, Any]]:
    """Returns the system's, the user's and the bot's messages as chat messages."""
    return [{"role": role, "content": content} for role, content in _as_history(events).chat]


def user_assistant_sequence(events: Any) -> str:
    """Returns ``User: ...`` and ``Assistant: ...`` lines."""
    names = {"user": "User", "assistant": "Assistant"}
    return "\n".join(
        f"{names[m['role']]}: {content_text(m['content'])}"
        for m in to_chat_messages(events)
        if m["role"] in names
    )


def remove_text_messages(history: str) -> str:
    """Returns Colang with only the canonical forms left."""
    # One try a line (the atomic groups): a line may be as long as a message.
    history = re.sub(r'(?m)^(?>([^\n]*?)user ")[^\n]+"\n {2}', r"\1user ", history)
    history = re.sub(r"^\s*user [^\n]+\n\n", "", history)
    return re.sub(r'(?m)^(?>([^\n]*?)bot )([^\n]+)\n {2}"[\s\S]*?"', r"\1bot \2", history)


def _turn_starts(lines: list[str]) -> list[int]:
    return [
        index
        for index, line in enumerate(lines)
        if line.startswith('user "') or line.startswith("user action: ")
    ]


def first_turns(history: str, n: int) -> str:
    """Returns the first n turns of a Colang history."""
    lines = history.split("\n")
    starts = _turn_starts(lines)
    return "\n".join(lines[: starts[n]] if len(starts) > n else lines)


def last_turns(history: str, n: int) -> str:
    """Returns the last n turns of a Colang history."""
    lines = history.split("\n")
    starts = _turn_starts(lines)
    return "\n".join(lines[starts[-n] :] if 0 < n <= len(starts) else lines)


def verbose_v1(history: str) -> str:
    """Returns Colang with the meaning of each line spelled out (``User message: ...``)."""
    lines = history.split("\n")
    for index, line in enumerate(lines):
        if line.startswith('user "'):
            lines[index] = 'User message: "' + line.removeprefix('user "')
        elif line.startswith("  ") and index > 0 and lines[index - 1].startswith("User message: "):
            lines[index] = "User intent: " + line.strip()
        elif line.startswith("user "):
            lines[index] = "User intent: " + line.removeprefix("user ").strip()
        elif line.startswith("bot "):
            lines[index] = "Bot intent: " + line.removeprefix("bot ")
        elif line.startswith('  "'):
            lines[index] = "Bot message: " + line.removeprefix("  ")
    return "\n".join(lines)


def to_messages(history: str) -> list[dict[str, str]]:
    """Returns Colang as chat messages: the user's texts, and all other lines as the assistant's."""
    messages: list[dict[str, str]] = []
    assistant_lines: list[str] = []
    lines = [*history.split("\n"), ""]  # the empty line flushes the last assistant message
    for index, line in enumerate(lines):
        if line.startswith('user "') or not line.strip():
            if assistant_lines:
                messages.append({"type": "assistant", "content": "\n".join(assistant_lines)})
                assistant_lines = []
            if line.strip():
                messages.append({"type": "user", "content": _quoted_user_text(line)})
        elif index > 0 and lines[index - 1].startswith('user "'):
            assistant_lines.append("User intent: " + line.strip())
        else:
            assistant_lines.append(verbose_v1(line))
    return messages


def _quoted_user_text(line: str) -> str:
    return line.removeprefix('user "')[:-1]


def to_intent_messages(history: str) -> list[dict[str, str]]:
    """Returns only the canonical forms of a Colang history, as chat messages."""
    messages: list[dict[str, str]] = []
    lines = history.split("\n")
    for index, line in enumerate(lines):
        if index > 0 and lines[index - 1].startswith('user "'):
            messages.append({"type": "user", "content": "User intent: " + line.strip()})
        elif line.startswith("user ") and not line.startswith('user "'):
            intent = line.removeprefix("user ").strip()
            messages.append({"type": "user", "content": "User intent: " + intent})
        elif line.startswith("bot "):
            messages.append(_bot_intent_message(line))
    return messages


def to_intent_messages_2(history: str) -> list[dict[str, str]]:
    """Returns the user's texts and the bot's canonical forms and texts, as chat messages."""
    messages: list[dict[str, str]] = []
    for line in history.split("\n"):
        if line.startswith('user "'):
            messages.append({"type": "user", "content": _quoted_user_text(line)})
        elif line.startswith("bot "):
            messages.append(_bot_intent_message(line))
        elif line.startswith('  "'):
            text = line.removeprefix("  ").strip()
            messages.append({"type": "assistant", "content": "Bot message: " + text})
    return messages


def _bot_intent_message(line: str) -> dict[str, str]:
    intent = line.removeprefix("bot ").strip()
    return {"type": "assistant", "content": "Bot intent: " + intent}


def _indent(text: str, n: int = 4) -> str:
    return textwrap.indent(text, " " * min(int(n), MAX_INDENT))


FILTERS: dict[str, Callable[..., Any]] = {
    "colang": render_colang,
    "colang_without_identifiers": render_colang,
    "remove_text_messages": remove_text_messages,
    "first_turns": first_turns,
    "last_turns": last_turns,
    "user_assistant_sequence": user_assistant_sequence,
    "to_messages": to_messages,
    "to_intent_messages": to_intent_messages,
    "to_intent_messages_2": to_intent_messages_2,
    "to_chat_messages": to_chat_messages,
    "verbose_v1": verbose_v1,
    "indent": _indent,
}


# -- parsers -----------------------------------------------------------------------------------


def _replace_prefix(text: str, prefix: str, replacement: str) -> str:
    if not text.startswith(prefix):
        return text
    return replacement + text.removeprefix(prefix).strip()


def parse_verbose_v1(text: str) -> str:
    """Returns Colang for a reply in the form of `verbose_v1`; the labels may be in lower case."""
    replacements = (
        ("User message: ", "user "),
        ("Bot message: ", "  "),
        ("User intent: ", "  "),
        ("Bot intent: ", "bot "),
    )
    lines = [line.strip() for line in text.split("\n")]
    for index, line in enumerate(lines):
        for prefix, replacement in replacements:
            line = _replace_prefix(line, prefix, replacement)
            line = _replace_prefix(line, prefix.lower(), replacement)
        lines[index] = line
    return "\n".join(lines)


# Parsers that turn a reply into text; those of verdicts are in `verdict_parsers`.
TEXT_PARSERS: dict[str, Callable[[str], str]] = {
    "user_intent": lambda text: _replace_prefix(text.strip(), "User intent: ", "  "),
    "bot_intent": lambda text: _replace_prefix(text.strip(), "Bot intent: ", "bot "),
    "bot_message": lambda text: _replace_prefix(text.strip(), "Bot message: ", "  "),
    "verbose_v1": parse_verbose_v1,
}
PARSERS: dict[str, Callable[[str], Any]] = {**TEXT_PARSERS, **VERDICT_PARSERS}


def first_nonempty_line(text: str) -> str | None:
    """Returns the first line that is not empty, stripped."""
    return next((line.strip() for line in text.split("\n") if line.strip()), None)


def first_code_lines(text: str, k: int) -> list[str]:
    """Returns the first k lines that are neither empty nor comments, stripped."""
    lines = [line.strip() for line in text.split("\n")]
    return [line for line in lines if line and not line.startswith("#")][:k]


def extract_bot_message(text: str) -> str:
    """Returns the bot's message in a completion.

    It ends at a line that ends with a quote, or where the LLM goes on with a turn of the user.
    Empty lines are left out.
    """
    lines: list[str] = []
    for line in text.split("\nuser")[0].split("\n"):
        line = line.strip()
        if line:
            lines.append(line)
            if line.endswith('"'):
                break
    return "\n".join(lines)


def strip_quotes(text: str) -> str:
    """Returns the text without the double quotes around it, or without an opening one alone."""
    if text.startswith('"'):
        return text[1:-1] if text[-1] == '"' else text[1:]
    return text
