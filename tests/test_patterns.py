"""Every regular expression of the package reads long adversarial texts in about linear time."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from truing.annotation.redaction import redact
from truing.judges.refusal import refusal_probabilities
from truing.judges.rubric import parse_verdict
from truing.rails.library.jailbreak_patterns import find_jailbreak_sign
from truing.rails.library.pii import find_spans
from truing.rails.runtime.llm_client import split_thinking
from truing.rails.runtime.prompt_filters import remove_text_messages
from truing.rails.runtime.templates import dollar_to_jinja
from truing.rails.runtime.verdict_parsers import is_content_safe

SOURCE = Path(__file__).resolve().parents[1] / "src" / "truing"
# Generous: a pattern that is linear takes milliseconds, a quadratic one minutes.
LONG, LONG_SECONDS = 100_000, 5.0
# Patterns that are only used from the start of a text (`match`, `fullmatch`).
ANCHORED = (
    "http/retry.py",  # durations of a rate limit: fullmatch
    "rails/colang/statements.py",  # one line of a flow: match, fullmatch
)
ANCHORED_PATTERNS = (
    r"\W*(yes|no)\b",
    r"\s*(yes|no)\b",
    r"\s*(?:(?:the )?answer(?: is)?:?\s*)?\(?([A-Za-z])[).:]?(?:\s|$)",
)


def _read_flags(node: ast.Call, names: dict[str, int]) -> int:
    flags = 0
    texts = [ast.unparse(argument) for argument in [*node.args, *(k.value for k in node.keywords)]]
    for text in texts:
        flags |= next((f for n, f in names.items() if re.fullmatch(rf"re\.{n}", text)), 0)
    return flags


FLAG_NAMES = {
    "I": re.I,
    "IGNORECASE": re.I,
    "S": re.S,
    "DOTALL": re.S,
    "M": re.M,
    "MULTILINE": re.M,
}


def collect_patterns(modules: Iterable[str]) -> dict[tuple[str, int], str]:
    """Returns (pattern, flags) -> file of all that modules compile or write as literals."""
    patterns: dict[tuple[str, int], str] = {}
    for module in modules:
        try:
            namespace = vars(importlib.import_module(module))
        except Exception:
            continue  # an extra that is not installed
        file = Path(namespace.get("__file__") or SOURCE)
        name = file.relative_to(SOURCE).as_posix()
        for value in namespace.values():
            for pattern in _find_compiled(value, 0):
                patterns.setdefault((pattern.pattern, pattern.flags & ~re.UNICODE), name)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and ast.unparse(node.func.value) == "re"
                and node.func.attr not in ("compile", "escape")
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and isinstance(node.args[0].value, str)
            ):
                patterns[node.args[0].value, int(_read_flags(node, FLAG_NAMES))] = name
    return patterns


def all_modules() -> list[str]:
    names = [module.name for module in pkgutil.walk_packages([str(SOURCE)], "truing.")]
    return [name for name in names if "migrations" not in name and "__main__" not in name]


def _find_compiled(value: Any, depth: int) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
        yield value
    elif depth < 3 and isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _find_compiled(item, depth + 1)
    elif depth < 3 and isinstance(value, dict):
        yield from _find_compiled(list(value.values()), depth)


def write_example(nodes: Any) -> str:
    """Returns a text that a parsed pattern matches in most cases: the seed of adversarial texts."""
    text = ""
    for operator, argument in nodes:
        name = str(operator)
        if name == "LITERAL":
            text += chr(argument)
        elif name == "NOT_LITERAL" or name == "ANY":
            text += "a" if argument != ord("a") else "b"
        elif name == "IN":
            text += _choose_character(argument)
        elif name == "BRANCH":
            text += write_example(max(argument[1], key=len))
        elif name == "SUBPATTERN":
            text += write_example(argument[3])
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            text += write_example(argument[2]) * max(1, min(argument[0], 20))
        elif name == "ATOMIC_GROUP":
            text += write_example(argument)
    return text


def _choose_character(items: Any) -> str:
    kind, argument = items[0]
    if str(kind) == "NEGATE":
        excluded = {chr(a) for k, a in items if str(k) == "LITERAL"}
        return next(character for character in "a-1 _x" if character not in excluded)
    if str(kind) == "RANGE":
        return chr(argument[0])
    if str(kind) == "LITERAL":
        return chr(argument)
    return {"CATEGORY_DIGIT": "1", "CATEGORY_SPACE": " "}.get(str(argument), "a")


def adversarial_texts(pattern: str, flags: int, length: int) -> Iterator[str]:
    """Yields long texts that begin to match at many places and never do, built from an example."""
    example = write_example(importlib.import_module("re._parser").parse(pattern, flags))[:200]
    cuts = sorted({len(example) * k // 8 for k in range(1, 9)} | {1, 2, 3, 4})
    seeds = [example[:cut] for cut in cuts] + [example[cut:] for cut in cuts[:-1]]
    seeds += ["\n", " ", "a", "a ", "0", "A", "a.", "0-", '"', "<", "[", "({", "\\", "_", "•"]
    seeds += [seed.strip() + mark for seed in seeds for mark in ("-", " ", "\n")]
    for seed in dict.fromkeys(seed for seed in seeds if seed):
        yield seed * (length // len(seed)) + "\x01"
        yield example[: len(example) // 2] + seed[-1] * length + "\x01"


class TooSlow(BaseException):
    """Not an Exception: nothing between the handler and the test may catch it."""


def _raise_too_slow(signum: int, frame: object) -> None:
    raise TooSlow


def find_slow_patterns(modules: Iterable[str], length: int, seconds: float) -> list[str]:
    slow: list[str] = []
    previous = signal.signal(signal.SIGVTALRM, _raise_too_slow)
    try:
        for (pattern, flags), file in collect_patterns(modules).items():
            regex = re.compile(pattern, flags)
            is_anchored = file.endswith(ANCHORED) or pattern in ANCHORED_PATTERNS
            for text in adversarial_texts(pattern, flags, length):
                try:
                    # The time of this process alone, so that a busy machine does not matter.
                    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
                    if is_anchored:
                        regex.match(text)
                        regex.fullmatch(text)
                    else:
                        regex.findall(text)
                except TooSlow:
                    slow.append(f"{file}: {pattern[:80]!r} on {text[:40]!r}...")
                    break
                finally:
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, previous)
    return slow


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (refusal_probabilities, "\n" * 20_000),
        (redact, "a." * 50_000),
        (redact, "a@" * 50_000),
        (parse_verdict, "\n" * 100_000),
        (parse_verdict, "reason:" + "* " * 50_000 + "x"),
        (remove_text_messages, "bot " * 25_000),
        (remove_text_messages, 'user "' * 16_000),
        (split_thinking, "</think>" + "<think>" * 14_000),
        (find_jailbreak_sign, "ignore " * 14_000),
        (lambda text: find_spans(text, ["JWT", "PRIVATE_KEY"]), "eyJ-" * 25_000),
        (is_content_safe, "no, " * 25_000),
        (dollar_to_jinja, "$" * 100_000),
    ],
)
def test_texts_that_took_minutes_take_moments(read: Callable[[str], object], text: str) -> None:
    start = time.process_time()
    read(text)
    assert time.process_time() - start < 5


def test_a_slow_pattern_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truing.judges.refusal._LIST", re.compile(r"(a+)+b"))
    assert "(a+)+b" in str(find_slow_patterns(["truing.judges.refusal"], 100, 0.2))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_pattern_of_the_package_is_slow_on_very_long_texts() -> None:
    assert find_slow_patterns(all_modules(), LONG, LONG_SECONDS) == []
