"""How often workers have died of a part of a run: Ray gives it to the next worker without end.

A file in the part has a byte for each attempt, until one ends, with or without a fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from truing.bulk.moderation_job import MAX_ATTEMPTS
from truing.core.errors import RunError
from truing.core.private_files import private_opener
from truing.runs.parts import file_bytes
from truing.runs.run_files import locate_run_file

_ATTEMPTS_FILE = "attempts"


@contextmanager
def count_attempt(part: Path) -> Iterator[None]:
    """Counts an attempt at the folder of a part, until the work on it ends.

    Raises RunError if `MAX_ATTEMPTS` workers have died of it.
    """
    path = locate_run_file(part, _ATTEMPTS_FILE)
    if file_bytes(path) >= MAX_ATTEMPTS:
        raise RunError(
            f"ended its worker {MAX_ATTEMPTS} times; does a prompt or an answer need more memory "
            "than a worker has? Give fewer workers a machine, or a lower --concurrency"
        )
    with open(path, "ab", opener=private_opener) as file:
        file.write(b"x")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def forget_attempts(out: Path, parts: Iterable[str]) -> None:
    """Lets the next command try all parts of a run again."""
    for part in parts:
        locate_run_file(out / "parts" / part, _ATTEMPTS_FILE).unlink(missing_ok=True)
