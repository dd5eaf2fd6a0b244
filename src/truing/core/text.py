"""Makes untrusted text safe to print and to tokenise; finds the ends of sentences."""

from __future__ import annotations

import re

# C0 and C1 controls but tab and newline, lone surrogates, line and paragraph separators, and the
# controls of writing direction (which make text read differently from what it says).
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def escape_controls(text: str) -> str:
    """Returns the text with its control characters written out, such as ``\\x1b``.

    A terminal acts on them: an escape sequence can clear the screen, hide text, or put a command
    into the clipboard (OSC 52). Tabs and newlines stay. Applied to each piece of a stream by
    itself, the result is the same.
    """
    return _CONTROL.sub(lambda match: _written_out(match.group()), text)


def escape_json_controls(json_text: str) -> str:
    """Returns a JSON text in which strings hold control characters as JSON's own escapes.

    Encoders escape those below U+0020 only; a terminal acts on others too.
    """
    return _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", json_text)


def _written_out(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def replace_surrogates(text: str) -> str:
    """Replaces lone surrogates, the trace of invalid UTF-8, on which tokenizers fail."""
    return text.encode("utf-8", "replace").decode("utf-8")


MAX_SENTENCE_CHARACTERS = 600
"""A text without sentence ends, such as a table, counts as ended after so many characters."""

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s|[。！？؟।\n]")


def ends_sentence(text: str) -> bool:
    """Returns whether a text contains the end of a sentence or line, or is very long.

    A full stop counts only with white space after it: "3." may go on as "3.5".
    """
    return len(text) > MAX_SENTENCE_CHARACTERS or _SENTENCE_END.search(text) is not None
