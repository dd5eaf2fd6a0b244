"""`truing certify`: finds a threshold with a guarantee for a rail or for best-of-n."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from cyclopts import Parameter

from truing.cli.parameters import Flag
from truing.cli.tables import print_json, print_text
from truing.core.errors import UserError
from truing.core.private_files import create_folder, replace_file

if TYPE_CHECKING:
    from truing.gates.certificate import Certificate


@Parameter(name="*")
@dataclass(frozen=True)
class CertifyFlags:
    """What to certify.

    Parameters
    ----------
    judge
        Name of the rail's judge in the run.
    question
        What people are asked about each answer; "yes" is what the rail must block.
    alpha
        Share of prompts with a harmful answer that is tolerated.
    delta
        Probability that the certificate is wrong.
    best_of
        Certify the ceiling of best-of-n (the run has n answers to each prompt), not a rail's
        threshold.
    most
        Loosest threshold to consider; rows above it need no label.
    fixed
        The number of prompts, labelled or known to get no answer, that you fix before you look:
        59 without harm certify 5 %. Without it the certificate stays valid if you look, label more
        and look again, and takes 68.
    anytime
        The default, kept for old scripts.
    """

    judge: str
    question: str = "harmful"
    alpha: float = 0.05
    delta: float = 0.05
    best_of: Flag = False
    most: float | None = None
    fixed: int | None = None
    anytime: Flag = False


def command(
    run: Path,
    /,
    *,
    flags: CertifyFlags,
    n: int | None = None,
    labels: str | None = None,
    out: Path | None = None,
    json: Flag = False,
) -> int:
    """Finds the loosest threshold under which harm is at most ALPHA with confidence 1 - DELTA.

    The exit status is 0 certified, 2 more harm than ALPHA at every threshold, 3 not certifiable
    yet. The guarantee holds for prompts exchangeable with those of the run.

    Parameters
    ----------
    run
        A run of the model without the rail, judged by the rail's judge (with scores).
    n
        First draw N more rows and label them in the terminal (only rows that some threshold
        passes).
    labels
        Use the labels of this human judge, such as human:beavertails, if it labelled every answer.
    out
        Write the certificate as JSON to this file.
    json
        Print the certificate as JSON.
    """
    from truing.cli.run_folders import open_run
    from truing.gates.certificate import certify
    from truing.gates.certificate_draws import CertificateRequest, draw_rows_to_label

    if flags.fixed is not None and (flags.anytime or flags.fixed < 1):
        raise UserError(
            f"--fixed {flags.fixed}: at least 1, and not with --anytime, which allows any number"
        )
    request = CertificateRequest(
        judge=flags.judge,
        question=flags.question,
        alpha=flags.alpha,
        delta=flags.delta,
        best_of=flags.best_of,
        loosest=flags.most,
        fixed=flags.fixed,
    )
    opened = open_run(run)
    if n is not None:
        from truing.cli.label import ask_for_labels

        draws = draw_rows_to_label(opened, request, n)
        ask_for_labels(opened, draws, request.question, f"human:{getpass.getuser()}")
    certificate = certify(opened, request, people=labels)
    content = msgspec.json.format(msgspec.json.encode(certificate), indent=1)
    if out is not None:
        create_folder(out.parent)
        replace_file(out, content + b"\n")
    if json:
        print_json(content)
    else:
        print_certificate(certificate)
    # hopeless: more labels would not help, as harm exceeds ALPHA at every threshold.
    return {"certified": 0, "hopeless": 2}.get(certificate.status, 3)


def print_certificate(certificate: Certificate) -> None:
    """Prints the certificate in words, with its assumptions."""
    print_text(certificate.statement)
    print_text(
        f"{certificate.labels} of {certificate.prompts} prompts are labelled or known to get no "
        f"answer; judge {certificate.judge}"
    )
    for name, rate in (
        ("prompts that get no answer", certificate.refused),
        ("benign prompts that get none", certificate.refused_benign),
    ):
        if rate is not None:
            estimate, lower, upper = (100 * x for x in (rate.estimate, rate.lower, rate.upper))
            print_text(f"{name}: {estimate:.1f} % [{lower:.1f}, {upper:.1f}]")
    print_text(certificate.assumes)
