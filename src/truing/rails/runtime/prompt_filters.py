"""What prompt templates can use: filters that turn a conversation into text, and parsers of what the LLM answers."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any

from truing.rails.runtime.conversation_state import History, flat_text


def colang(events: Any) -> str:
    """A conversation as Colang."""
    return (events if isinstance(events, History) else History(events or ())).colang()


def to_chat_messages(events: Any) -> list[dict[str, Any]]:
    """The user's and the bot's messages, as chat messages."""
    history = events if isinstance(events, History) else History(events or ())
    return [{"role": role, "content": content} for role, content in history.chat]


def user_assistant_sequence(events: Any) -> str:
    """``User: ...`` and ``Assistant: ...`` lines."""
    names = {"user": "User", "assistant": "Assistant"}
    rows = [(m["role"], flat_text(m["content"])) for m in to_chat_messages(events)]
    return "\n".join(f"{names[role]}: {text}" for role, text in rows if role in names)


def remove_text_messages(history: str) -> str:
    """Only the canonical forms."""
    history = re.sub(r'user "[^\n]+"\n {2}', "user ", history)
    history = re.sub(r"^\s*user [^\n]+\n\n", "", history)
    return re.sub(r'bot ([^\n]+)\n {2}"[\s\S]*?"', r"bot \1", history)


def _turn_starts(rows: list[str]) -> list[int]:
    return [
        i
        for i, row in enumerate(rows)
        if row.startswith('user "') or row.startswith("user action: ")
    ]


def first_turns(history: str, n: int) -> str:
    """The first n turns."""
    rows = history.split("\n")
    starts = _turn_starts(rows)
    return "\n".join(rows[: starts[n]] if len(starts) > n else rows)


def last_turns(history: str, n: int) -> str:
    """The last n turns."""
    rows = history.split("\n")
    starts = _turn_starts(rows)
    return "\n".join(rows[starts[-n] :] if 0 < n <= len(starts) else rows)


def verbose_v1(history: str) -> str:
    """Colang with the role of each line spelled out."""
    rows = history.split("\n")
    for i, row in enumerate(rows):
        if row.startswith('user "'):
            rows[i] = 'User message: "' + row[6:]
        elif row.startswith("  ") and i > 0 and rows[i - 1].startswith("User message: "):
            rows[i] = "User intent: " + row.strip()
        elif row.startswith("user "):
            rows[i] = "User intent: " + row[5:].strip()
        elif row.startswith("bot "):
            rows[i] = "Bot intent: " + row[4:]
        elif row.startswith('  "'):
            rows[i] = "Bot message: " + row[2:]
    return "\n".join(rows)


def to_messages(history: str) -> list[dict[str, str]]:
    """Colang as chat messages: what the user said, and all else as the assistant's."""
    messages: list[dict[str, str]] = []
    bot: list[str] = []
    rows = [*history.split("\n"), ""]
    for i, row in enumerate(rows):
        if row.startswith('user "') or not row.strip():
            if bot:
                messages.append({"type": "assistant", "content": "\n".join(bot)})
                bot = []
            if row.strip():
                messages.append({"type": "user", "content": row[6:-1]})
        elif i > 0 and rows[i - 1].startswith('user "'):
            bot.append("User intent: " + row.strip())
        else:
            bot.append(verbose_v1(row))
    return messages


def to_intent_messages(history: str) -> list[dict[str, str]]:
    """Only the canonical forms, as chat messages."""
    made: list[dict[str, str]] = []
    rows = history.split("\n")
    for i, row in enumerate(rows):
        if i > 0 and rows[i - 1].startswith('user "'):
            made.append({"type": "user", "content": "User intent: " + row.strip()})
        elif row.startswith("user ") and not row.startswith('user "'):
            made.append({"type": "user", "content": "User intent: " + row[5:].strip()})
        elif row.startswith("bot "):
            made.append({"type": "assistant", "content": "Bot intent: " + row[4:].strip()})
    return made


def to_intent_messages_2(history: str) -> list[dict[str, str]]:
    """What the user said, and the bot's canonical forms and messages, as chat messages."""
    made: list[dict[str, str]] = []
    for row in history.split("\n"):
        if row.startswith('user "'):
            made.append({"type": "user", "content": row[6:-1]})
        elif row.startswith("bot "):
            made.append({"type": "assistant", "content": "Bot intent: " + row[4:].strip()})
        elif row.startswith('  "'):
            made.append({"type": "assistant", "content": "Bot message: " + row[2:].strip()})
    return made


FILTERS: dict[str, Callable[..., Any]] = {
    "colang": colang,
    "colang_without_identifiers": colang,
    "remove_text_messages": remove_text_messages,
    "first_turns": first_turns,
    "last_turns": last_turns,
    "user_assistant_sequence": user_assistant_sequence,
    "to_messages": to_messages,
    "to_intent_messages": to_intent_messages,
    "to_intent_messages_2": to_intent_messages_2,
    "to_chat_messages": to_chat_messages,
    "verbose_v1": verbose_v1,
    "indent": lambda text, n=4: textwrap.indent(text, " " * min(int(n), 80)),
}


# -- parsers -----------------------------------------------------------------------------------------------------------


def _prefix(text: str, prefix: str, into: str) -> str:
    return into + text[len(prefix) :].strip() if text.startswith(prefix) else text


def _verbose(text: str) -> str:
    rows = text.split("\n")
    pairs = (
        ("User message: ", "user "),
        ("Bot message: ", "  "),
        ("User intent: ", "  "),
        ("Bot intent: ", "bot "),
    )
    for i, row in enumerate(rows):
        rows[i] = row.strip()
        for prefix, into in pairs:
            rows[i] = _prefix(_prefix(rows[i], prefix, into), prefix.lower(), into)
    return "\n".join(rows)


def is_content_safe(text: str) -> list[Any]:
    """[True] or [False, violations...] from a yes/no or safe/unsafe answer; anything unclear is unsafe."""
    plain = re.sub(r"\W+", " ", text.lower().strip())
    first = plain.split(" ")[:2]
    if "safe" in first:
        return [True]
    if "unsafe" in first:
        kept = re.sub(r"\W+", " ", text.strip())
        at = kept.lower().find("unsafe")
        return [False, *kept[at + 6 :].split()]
    if "yes" in first:
        return [False]
    return [True] if "no" in first else [False]


PARSERS: dict[str, Callable[[str], Any]] = {
    "user_intent": lambda s: _prefix(s.strip(), "User intent: ", "  "),
    "bot_intent": lambda s: _prefix(s.strip(), "Bot intent: ", "bot "),
    "bot_message": lambda s: _prefix(s.strip(), "Bot message: ", "  "),
    "verbose_v1": _verbose,
    "is_content_safe": is_content_safe,
}


def first_line(text: str) -> str | None:
    """The first line that is not empty, stripped."""
    return next((row.strip() for row in text.split("\n") if row.strip()), None)


def first_lines(text: str, k: int) -> list[str]:
    """The first k lines that are neither empty nor comments, stripped."""
    rows = [row.strip() for row in text.split("\n")]
    return [row for row in rows if row and not row.startswith("#")][:k]


def message_text(text: str) -> str:
    """The bot's message in a completion: up to a line that ends with a quote or a new user turn, empty lines left out."""
    text = text.split("\nuser")[0]
    kept: list[str] = []
    for row in text.split("\n"):
        row = row.strip()
        if row:
            kept.append(row)
            if row.endswith('"'):
                break
    return "\n".join(kept)


def unquoted(text: str) -> str:
    """Without the quotes around it; an opening quote alone goes too."""
    if text.startswith('"'):
        return text[1:-1] if text[-1] == '"' else text[1:]
    return text
