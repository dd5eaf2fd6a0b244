"""What the runtime remembers of the texts that its rails have read.

A text counts as read only under a keyed hash of this process: of the text, the role that it
claims, the rails that read it and the session. A client can neither compute such a key nor bring
one, so a forged history is read like any other new text, and a true one is not read again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Sequence

from msgspec import Struct

from truing.core.types import Ruling

MAX_BYTES = 16 * 2**20
_ENTRY_BYTES = 400  # of a key, a verdict without texts, and their place in the dictionary
_CHARACTER_BYTES = 4  # at most, in Python's strings
_MAX_BEGUN_HASHES = 256
_MAX_BEGUN_CHARACTERS = 2_000  # a role may hold the name that a client gave a tool
_ANSWER_STAGE = "answer of the runtime"  # takes the place of the stage in the keys of answers


class TextVerdict(Struct, frozen=True):
    """What the rails of a stage said about a text.

    `text` is what the model may see in its place; None if a rail objected: then `reply` is what
    the client was told, and `rulings` are the decisions. `UNCHANGED` stands for a text that passed
    unchanged, so that the memory need not hold it.
    """

    text: str | None
    reply: str = ""
    rulings: tuple[Ruling, ...] = ()
    is_unchanged: bool = False

    @property
    def size(self) -> int:
        """The memory that the verdict takes, in bytes, not underestimated."""
        texts = [self.text or "", self.reply]
        for ruling in self.rulings:
            texts += [ruling.reason, ruling.text or "", ruling.evidence or ""]
        ruling_bytes = _ENTRY_BYTES * len(self.rulings)
        return _ENTRY_BYTES + ruling_bytes + _CHARACTER_BYTES * sum(len(text) for text in texts)


UNCHANGED = TextVerdict("", is_unchanged=True)


class CheckedTexts:
    """Verdicts by keyed hash; the least recently used ones are dropped above `max_bytes`."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.size = 0
        self._secret = secrets.token_bytes(32)
        self._verdicts: OrderedDict[bytes, TextVerdict] = OrderedDict()
        # A conversation asks for hundreds of texts that differ in the last part alone.
        self._begun_hashes: dict[tuple[str, ...], hashlib.blake2b] = {}

    def __len__(self) -> int:
        return len(self._verdicts)

    def key(self, session: str, stage: str, rails: Sequence[str], role: str, text: str) -> bytes:
        """Returns the key of a text in a role, as read by the rails of a stage."""
        key_fields = (session, stage, str(len(rails)), *rails, role)
        begun = self._begun_hashes.get(key_fields)
        if begun is None:
            begun = hashlib.blake2b(key=self._secret, digest_size=20)
            for part in key_fields:
                begun.update(_with_length(part))
            if len(self._begun_hashes) >= _MAX_BEGUN_HASHES:
                self._begun_hashes.clear()
            if sum(map(len, key_fields)) <= _MAX_BEGUN_CHARACTERS:
                self._begun_hashes[key_fields] = begun
        keyed_hash = begun.copy()
        keyed_hash.update(_with_length(text))
        return keyed_hash.digest()

    def answer_key(self, session: str, text: str) -> bytes:
        """Returns the key of a text that the runtime itself answered."""
        return self.key(session, _ANSWER_STAGE, (), "assistant", text)

    def get(self, key: bytes) -> TextVerdict | None:
        """Returns the verdict under a key, or None if the text has not been read."""
        verdict = self._verdicts.get(key)
        if verdict is not None:
            self._verdicts.move_to_end(key)
        return verdict

    def put(self, key: bytes, verdict: TextVerdict) -> None:
        """Stores a verdict, and drops old ones above the bound."""
        previous = self._verdicts.pop(key, None)
        if previous is not None:
            self.size -= previous.size
        self._verdicts[key] = verdict
        self.size += verdict.size
        while self.size > self.max_bytes and self._verdicts:
            _, dropped = self._verdicts.popitem(last=False)
            self.size -= dropped.size


def _with_length(part: str) -> bytes:
    """Returns a part behind its length, so that no two lists of parts have the same bytes."""
    encoded = part.encode("utf-8", "surrogatepass")
    return len(encoded).to_bytes(8, "big") + encoded
