"""Which judges a page may start: shipped ones that read nothing else, and those of the operator.

A spec can name a program, a file, an address and the variable of a key, and whoever reaches the
pages may write one. So nothing is searched for what is dangerous; a spec is started if it is one of
a few harmless shapes, or if the operator named it when the server was started.
"""

from __future__ import annotations

from collections.abc import Iterable

from truing.annotation.store import RequestRejected
from truing.core.errors import SpecError, UserError
from truing.specs.parser import Spec, parse_spec

MAX_SPEC_CHARACTERS = 2_000
_CLASSIFIERS = ("default", "fast", "research")
SUGGESTED = ("rules:refusal", "rules:degenerate", "moderation:default", "keywords:")
# Kind -> arguments whose values are short words or numbers, and are never read as a spec or a path.
_PLAIN_ARGUMENTS = {
    "rules": frozenset({"cut"}),
    "moderation": frozenset({"question", "threshold"}),
    "keywords": frozenset[str](),
}


class JudgeChoices:
    """The judges that a form may name; `named` are the specs that the operator allows as well."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        self._named: dict[str, Spec] = {}
        for text in named:
            spec = parse_spec(text)
            # By the form without secrets, which is what a page shows and sends back.
            if self._named.setdefault(str(spec), spec) != spec:
                raise UserError(f"--judge {spec}: two judges differ only in a secret")

    @property
    def named(self) -> tuple[str, ...]:
        """The judges of the operator as a page shows them, without secrets."""
        return tuple(self._named)

    def read(self, text: str) -> Spec:
        """Returns the judge that a form names; raises RequestRejected for one that is not allowed.

        A judge of the operator is the whole spec: with other arguments it is another judge.
        """
        text = text.strip()
        if not 0 < len(text) <= MAX_SPEC_CHARACTERS:
            raise RequestRejected("invalid", "Give the spec of a judge, such as rules:refusal.")
        try:
            spec = parse_spec(text)
        except (SpecError, RecursionError) as error:
            raise RequestRejected("invalid", f"That is no spec of a judge: {error}") from error
        named = self._named.get(str(spec))
        if named is not None:
            return named
        if is_harmless(spec):
            return spec
        raise RequestRejected(
            "invalid",
            "From a page, rules:NAME, moderation:NAME (a shipped classifier) and keywords: can be "
            "started. Others read files, keys or addresses, or run code: the operator allows one "
            "with truing ui --judge SPEC, or starts it on the command line.",
        )


def is_harmless(spec: Spec) -> bool:
    """Returns whether a judge needs no file, no key, no address and no code but truing's own."""
    allowed = _PLAIN_ARGUMENTS.get(spec.kind)
    if allowed is None or spec.address is not None:
        return False
    # A value that is a spec, or holds a secret, is no text.
    if not all(key in allowed and isinstance(value, str) for key, value in spec.args.items()):
        return False
    if spec.kind == "moderation":
        return spec.name in _CLASSIFIERS
    return spec.kind == "rules" or not spec.name
