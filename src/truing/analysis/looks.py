"""Looks at figures that grow with labels, stored in the run: labels/looks.jsonl.

Who looks, labels more and looks again has had several chances to be lucky. So each look is stored
with the number of labels that it saw: those of certificates, and those at corrected figures, by
whichever command. Methods that are valid at any time need no account of it; one for a number of
labels fixed beforehand is only allowed if nothing was looked at before under another plan.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from truing.analysis.label_files import append_lines, labels_folder
from truing.runs.folder import Run, encode_line
from truing.runs.parts import read_run_records


class Look(Struct, frozen=True, kw_only=True):
    """One look at a figure.

    Attributes:
        subject: what was looked at, such as ``certify:JUDGE:rail:harmful`` or ``labels:harmful``.
        labels: number of labels (or of prompts that are labelled or known) that it saw; 0 where a
            number is fixed before the first.
        planned: the number fixed beforehand; None if the method allows looks at any time.
    """

    subject: str
    labels: int
    planned: int | None = None


def read_looks(run: Run | str | Path, subject: str) -> list[Look]:
    """Returns the looks at one subject, in the order in which they were taken."""
    folder = labels_folder(run)
    looks = read_run_records(folder.parent, "labels/looks.jsonl", Look)
    return [look for look in looks if look.subject == subject]


def record_look(run: Run | str | Path, look: Look) -> int:
    """Stores a look and returns how many there are at its subject.

    Seeing the same labels again under the same plan is no further look.
    """
    looks = read_looks(run, look.subject)
    if look in looks:
        return len(looks)
    append_lines(labels_folder(run) / "looks.jsonl", encode_line(look))
    return len(looks) + 1


def label_subject(question: str) -> str:
    """Returns the subject of looks at figures that the labels of a question correct."""
    return f"labels:{question}"


def fix_number(run: Run | str | Path, question: str, n: int) -> None:
    """Stores, before any label is seen, that exactly `n` rows of a question will be labelled."""
    record_look(run, Look(subject=label_subject(question), labels=0, planned=n))


def was_fixed(run: Run | str | Path, question: str, n: int) -> bool:
    """Returns whether `n` labels were fixed beforehand, and nothing was looked at otherwise."""
    looks = read_looks(run, label_subject(question))
    return bool(looks) and all(look.planned == n for look in looks)
