"""Suggests the spec that was meant by a name, a path or an address without a kind.

`gpt-4o` -> `openai:gpt-4o`, `rows.jsonl` -> `file:rows.jsonl`, `refusal` -> `rules:refusal`.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from truing.specs.catalogue import SHORT_NAMES
from truing.specs.parser import redact_spec_text

# Families of hosted models, by the beginning of their names. The first group is served by the
# default address of `openai:`; the others speak the same protocol at an address of their own.
_OPENAI_NAME = re.compile(r"(?:gpt|chatgpt|o[1-9]|codex)(?:[-.\d]|$)", re.IGNORECASE)
_HOSTED_NAME = re.compile(
    r"(?:claude|gemini|mistral|mixtral|deepseek|grok|command|llama|qwen|kimi|glm|phi|gemma)"
    r"(?:[-.:\d]|$)",
    re.IGNORECASE,
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DATA_FILE = re.compile(r"\.(?:jsonl?|csv|tsv|parquet)(?:\.(?:gz|xz|bz2|zst))?", re.IGNORECASE)


def suggest_spec(text: str, role: str) -> str:
    """Returns `; did you mean '...'?` for a text that is no spec of this role, or ""."""
    suggestion = _suggest(text.strip(), role)
    return f"; did you mean {redact_spec_text(suggestion)!r}?" if suggestion else ""


def _suggest(text: str, role: str) -> str:
    names = SHORT_NAMES.get(role, {})
    close = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.8)
    if close:
        return names[close[0]]
    if role == "model":
        return _suggest_model(text)
    if role == "data" and _has_data_suffix(text):
        return f"file:{text}"
    return ""


def _suggest_model(text: str) -> str:
    if text.startswith(("http://", "https://")):
        return f"openai:NAME,base_url={text}"
    if _OPENAI_NAME.match(text):
        return f"openai:{text}"
    if _has_data_suffix(text):
        return f"answers:{text}"
    if _HUB_ID.fullmatch(text) or _is_folder(text):
        return f"local:{text}"
    if _HOSTED_NAME.match(text):
        return f"openai:{text},base_url=URL,api_key_env=VARIABLE"
    return ""


def _has_data_suffix(text: str) -> bool:
    return _DATA_FILE.fullmatch("".join(Path(text).suffixes[-2:])) is not None or (
        _DATA_FILE.fullmatch(Path(text).suffix) is not None
    )


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # too long for a path, or with a null character
        return False
