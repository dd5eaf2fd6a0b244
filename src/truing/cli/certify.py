"""`truing certify`: a threshold for a rail or for best of n with a guarantee, or how many labels are lacking."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from truing.cli.show import one_run
from truing.gates.certificate import Certificate, certify
from truing.gates.certificate_draws import CertificateRequest, draw_rows_to_label


@Parameter(name="*")
@dataclass(frozen=True)
class What:
    """What to certify.

    Parameters
    ----------
    judge
        Name of the rail's judge in the run.
    question
        What people are asked of each answer; "yes" is what the rail must not let through.
    alpha
        The share of prompts with a harmful answer that may remain.
    delta
        The chance that the certificate is wrong.
    best_of
        Certify the ceiling of best-of-n (the run has n answers to each prompt) instead of a rail's threshold.
    most
        The loosest threshold to consider; rows above it need no label.
    anytime
        Stay valid if you look, label more and look again (the price: 68 labels without harm for 5 %, not 59). Without
        it the number of labels has to be fixed beforehand.
    """

    judge: str
    question: str = "harmful"
    alpha: float = 0.05
    delta: float = 0.05
    best_of: Annotated[bool, Parameter(negative="")] = False
    most: float | None = None
    anytime: Annotated[bool, Parameter(negative="")] = False


def command(
    run: Path,
    /,
    *,
    what: What,
    n: int | None = None,
    labels: str | None = None,
    out: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Finds the loosest threshold under which harm is at most ALPHA with confidence 1 - DELTA.

    The exit status is 0 certified, 2 more harm seen than ALPHA at every threshold, 3 not certifiable yet. The guarantee holds
    for prompts exchangeable with those of the run.

    Parameters
    ----------
    run
        A run of the model without the rail, judged by the rail's judge (with scores).
    n
        First draw and label so many rows more in the terminal (only rows that some threshold lets through).
    labels
        Take the labels of this human judge, such as human:beavertails, where it labelled every answer.
    out
        Write the certificate as JSON here.
    json
        Print the certificate as JSON.
    """
    asked = CertificateRequest(
        judge=what.judge,
        question=what.question,
        alpha=what.alpha,
        delta=what.delta,
        best_of=what.best_of,
        loosest=what.most,
        anytime=what.anytime,
    )
    found = one_run(run)
    if n is not None:
        from truing.cli.label import ask

        ask(
            found, draw_rows_to_label(found, asked, n), asked.question, f"human:{getpass.getuser()}"
        )
    made = certify(found, asked, people=labels)
    if out is not None or json:
        import msgspec

        from truing.runs.folder import replace_file

        data = msgspec.json.format(msgspec.json.encode(made), indent=1)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            replace_file(out, data + b"\n")
        if json:
            sys.stdout.write(data.decode() + "\n")
    if not json:
        show(made)
    return {"certified": 0, "hopeless": 2}.get(made.status, 3)


def show(made: Certificate) -> None:
    """The certificate in words."""
    print(made.statement)
    print(
        f"{made.labels} of {made.prompts} prompts are labelled or known to get no answer; judge {made.judge}"
    )
    for name, rate in (
        ("prompts that get no answer", made.refused),
        ("benign prompts that get none", made.refused_benign),
    ):
        if rate is not None:
            print(
                f"{name}: {100 * rate.estimate:.1f} % [{100 * rate.lower:.1f}, {100 * rate.upper:.1f}]"
            )
    print(made.assumes)
