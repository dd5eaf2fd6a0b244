"""Regular expressions that run in time linear in the text, whoever wrote them (google-re2).

Python's `re` backtracks: some patterns take exponential time on short texts, and it holds the
interpreter's lock meanwhile, so that no time limit fires. RE2 cannot backtrack. Its syntax differs
from Python's in small ways, so a pattern is parsed by Python and written anew for RE2, with the
same meaning: ``\\w``, ``\\d`` and ``\\s`` are Unicode, ``$`` also matches before a last line break.
"""

from __future__ import annotations

import re
from functools import lru_cache
from re import _parser
from typing import Any, Literal

MAX_PATTERN_CHARACTERS = 10_000
MAX_REPEATS = 1_000  # RE2's own limit
_MAX_MEMORY_BYTES = 32 << 20  # of RE2, for one pattern

SearchMode = Literal["search", "fullmatch"]

# What `str.isalnum()`, `str.isspace()` and decimal digits are, as RE2 writes it (inside brackets).
_CLASSES = {
    "CATEGORY_WORD": r"\p{L}\p{N}_",
    "CATEGORY_DIGIT": r"\p{Nd}",
    "CATEGORY_SPACE": r"\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}"
    r"\x{202f}\x{205f}\x{3000}",
}
# Dotless i and dotted I: the only letters whose case variants differ between the engines.
_SPECIAL_CASE = (0x130, 0x131)


class NotLinear(ValueError):
    """A pattern that RE2 cannot run, such as one with look-ahead or a back-reference."""


class LinearRegex:
    """A pattern that RE2 runs, to be found somewhere in a text or to match all of it.

    Raises re.error if Python cannot read the pattern, NotLinear if RE2 cannot run it.
    """

    def __init__(
        self, pattern: str, mode: SearchMode = "search", *, ignore_case: bool = False
    ) -> None:
        self.pattern = pattern
        self.mode = mode
        source, self._has_word_boundary = _translate(pattern, mode, ignore_case)
        self._ignores_case = ignore_case or "(?i" in source
        self._regex = _compile_re2(source)

    def can_read(self, text: str) -> bool:
        """Returns whether the pattern means the same on this text as in Python.

        RE2 knows ASCII words alone at ``\\b``, and reads no lone surrogates.
        """
        if text.isascii():
            return True
        if self._has_word_boundary:
            return False
        if self._ignores_case and any(chr(code) in text for code in _SPECIAL_CASE):
            return False
        return not any("\ud800" <= character <= "\udfff" for character in text)

    def matches(self, text: str) -> bool:
        """Returns whether the pattern matches the text."""
        is_whole = self.mode == "fullmatch"
        match = self._regex.fullmatch(text) if is_whole else self._regex.search(text)
        return match is not None


def _compile_re2(source: str) -> Any:
    import re2  # at the first pattern: a command without patterns does not need it

    options = re2.Options()
    options.max_mem = _MAX_MEMORY_BYTES
    options.log_errors = False
    try:
        return re2.compile(source, options)
    except re2.error as error:
        raise NotLinear(str(error)) from error


@lru_cache(maxsize=256)
def _translate(pattern: str, mode: SearchMode, ignore_case: bool) -> tuple[str, bool]:
    """Returns the pattern in RE2's syntax, and whether it contains ``\\b`` or ``\\B``."""
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise NotLinear(f"the pattern is longer than {MAX_PATTERN_CHARACTERS} characters")
    # Python's own parser, so that no syntax is read in two ways. It has no public name.
    flags = re.IGNORECASE if ignore_case else 0
    try:
        tree = _parser.parse(pattern, flags)
    except (RecursionError, OverflowError) as error:
        raise NotLinear("the pattern is nested too deeply") from error
    writer = _Re2Writer(mode)
    source = writer.write(tree, tree.state.flags, is_end=True)
    return source, writer.has_word_boundary


class _Re2Writer:
    """Writes Python's parsed pattern in RE2's syntax; a method for each kind of node.

    `is_end` says that nothing follows in the whole pattern.
    """

    def __init__(self, mode: SearchMode) -> None:
        self.has_word_boundary = False
        # In a search, Python's $ also matches before a line break at the very end.
        self._end = r"(?:\n?\z)" if mode == "search" else r"\z"

    def write(self, nodes: Any, flags: int, *, is_end: bool) -> str:
        if flags & (re.ASCII | re.LOCALE):
            raise NotLinear("the flags a and L are not translated")
        written = ""
        for index, (operator, argument) in enumerate(nodes):
            name = str(operator).lower()
            write_node = getattr(self, f"_write_{name}", None)
            if write_node is None:
                raise NotLinear(f"{name} is not possible in linear time")
            written += write_node(argument, flags, is_end and index == len(nodes) - 1)
        return f"(?{'i' if flags & re.IGNORECASE else '-i'}:{written})"

    def _write_at(self, argument: Any, flags: int, is_end: bool) -> str:
        name = str(argument)
        if name in ("AT_BOUNDARY", "AT_NON_BOUNDARY"):
            self.has_word_boundary = True
            return r"\b" if name == "AT_BOUNDARY" else r"\B"
        if name == "AT_BEGINNING":
            return "(?m:^)" if flags & re.MULTILINE else r"\A"
        if name == "AT_END" and flags & re.MULTILINE:
            return "(?m:$)"
        if name == "AT_END" and is_end:
            return self._end
        if name == "AT_BEGINNING_STRING":
            return r"\A"
        if name == "AT_END_STRING":
            return r"\z"
        raise NotLinear("$ inside a pattern")

    def _write_literal(self, code: int, flags: int, is_end: bool) -> str:
        return _write_character(code, flags)

    def _write_not_literal(self, code: int, flags: int, is_end: bool) -> str:
        return f"[^{_write_character(code, flags)}]"

    def _write_any(self, argument: Any, flags: int, is_end: bool) -> str:
        return "(?s:.)" if flags & re.DOTALL else r"[^\n]"

    def _write_in(self, set_members: list[Any], flags: int, is_end: bool) -> str:
        written = ""
        is_negated = bool(set_members) and str(set_members[0][0]) == "NEGATE"
        categories = {str(argument) for kind, argument in set_members if str(kind) == "CATEGORY"}
        if any(f"CATEGORY_NOT_{name[9:]}" in categories for name in categories & set(_CLASSES)):
            return r"[^\x00-\x{10FFFF}]" if is_negated else "(?s:.)"  # [\s\S] and the like
        for kind, argument in set_members[1:] if is_negated else set_members:
            name = str(kind)
            if name == "LITERAL":
                written += _write_character(argument, flags)
            elif name == "RANGE":
                written += _write_range(argument[0], argument[1], flags)
            elif name == "CATEGORY" and str(argument) in _CLASSES:
                written += _CLASSES[str(argument)]
            elif name == "CATEGORY" and len(set_members) - is_negated == 1:
                positive = _CLASSES[str(argument).replace("_NOT", "")]
                return f"[{positive}]" if is_negated else f"[^{positive}]"
            else:
                raise NotLinear(r"\W, \D or \S among other characters in brackets")
        return f"[{'^' if is_negated else ''}{written}]"

    def _write_branch(self, argument: Any, flags: int, is_end: bool) -> str:
        branches = (self.write(branch, flags, is_end=is_end) for branch in argument[1])
        return f"(?:{'|'.join(branches)})"

    def _write_subpattern(self, argument: Any, flags: int, is_end: bool) -> str:
        _, add_flags, del_flags, inner = argument
        # Groups are not needed: only whether the pattern matches is asked.
        return self.write(inner, (flags | add_flags) & ~del_flags, is_end=is_end)

    def _write_max_repeat(self, argument: Any, flags: int, is_end: bool) -> str:
        least, most, inner = argument
        is_unbounded = str(most) == "MAXREPEAT"
        if least > MAX_REPEATS or (not is_unbounded and most > MAX_REPEATS):
            raise NotLinear(f"more than {MAX_REPEATS} repetitions")
        body = self.write(inner, flags, is_end=False)
        return f"(?:{body}){{{least},{'' if is_unbounded else most}}}"

    _write_min_repeat = _write_max_repeat  # the same set of texts matches


def _write_character(code: int, flags: int) -> str:
    return _write_range(code, code, flags)


def _write_range(low: int, high: int, flags: int) -> str:
    if low <= 0xDFFF and high >= 0xD800:
        raise NotLinear("lone surrogates")
    if flags & re.IGNORECASE and any(low <= code <= high for code in _SPECIAL_CASE):
        raise NotLinear("a dotless i or dotted I in either case")
    return rf"\x{{{low:x}}}" if low == high else rf"\x{{{low:x}}}-\x{{{high:x}}}"
