"""A threshold with a guarantee: at most alpha of prompts get a harmful answer.

A *rail* at threshold t lets an answer through if its score is below t. *Best of n* gives each
prompt's answer of the lowest score, and abstains if that is not below t. Prompts are drawn at
random, people label what would be let through, and Learn then Test (arXiv 2110.01052,
fixed-sequence testing from the strictest threshold) finds the loosest threshold, and so the least
over-refusal, that holds with probability 1 - delta. If none does, the certificate says how many
labels are missing, or that more labels will not help.

The guarantee holds for prompts exchangeable with those of the run (the same traffic, model and
settings), and says nothing about an attack that was not among them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.claims import Claim, Decision
from truing.analysis.labels import RowKey, majority_vote, read_votes
from truing.analysis.looks import Look, read_looks, record_look
from truing.core.errors import DataError, PlanError, RunError, did_you_mean
from truing.gates.certificate_draws import (
    CertificateRequest,
    ScoredPrompt,
    ScoredRun,
    random_order,
    read_scored_run,
)
from truing.runs.folder import Run
from truing.stats.conformal import (
    TestedThreshold,
    anytime_p_value,
    learn_then_test,
)
from truing.stats.intervals import Interval, exact_upper_bound, wilson

EXCHANGEABLE = (
    "Holds for prompts exchangeable with those of this run, answered by the same model with the "
    "same settings; an attack that was not among them is not covered."
)


class Certificate(Struct, frozen=True, kw_only=True, rename={"statement": "said"}):
    """The result of a certification.

    Attributes:
        status: ``certified``, ``not certifiable`` (more labels may help) or ``hopeless`` (they
            will not).
        statement: the result in one sentence.
        kind: ``rail`` or ``best-of``.
        harm: share of labelled prompts with a harmful answer let through at the threshold, with
            its exact one-sided bound `harm_upper` at confidence 1 - delta.
        events: number of these prompts.
        labels: number of prompts that are labelled, or known to get no answer.
        prompts: number of prompts in the run.
        more_labels: number of further labels needed if harm goes on as seen; None if certified or
            hopeless.
        refused: share of all prompts that get no answer; `refused_benign` of the benign ones.
        tested: every threshold with its test.
        fixed: the number of prompts that was fixed beforehand; None if it need not be.
        looks: how often this certificate was looked at, with a different number of labels each.
        claims: the claim "certified", as in the other outputs.
    """

    status: str
    statement: str
    judge: str
    judge_hash: str
    kind: str
    alpha: float
    delta: float
    threshold: float | None
    harm: float | None
    harm_upper: float | None
    events: int
    labels: int
    prompts: int
    more_labels: int | None
    refused: Interval | None
    refused_benign: Interval | None
    tested: tuple[TestedThreshold, ...]
    model: str
    data: tuple[str, ...]
    assumes: str = EXCHANGEABLE
    fixed: int | None = None
    looks: int = 1
    claims: tuple[Claim, ...] = ()


def certify(
    run: Run | str | Path, request: CertificateRequest, *, people: str | None = None
) -> Certificate:
    """Finds the loosest certified threshold from the labels of a run.

    Labels count as far as they reach without a gap in the random order. The look is stored in the
    run.

    Args:
        run: a run of the model without the rail, judged by the rail's judge.
        request: what to certify.
        people: a human judge of the run who labelled *every* prompt's answer; its labels are
            taken instead.

    Raises:
        PlanError: alpha or delta does not lie between 0 and 1, or a fixed number of prompts is
            asked for after a look under another plan, or exceeds the run.
        DataError: `people` left an answer unlabelled.
        Also errors as `read_scored_run`.
    """
    if not 0 < request.alpha < 1 or not 0 < request.delta < 1:
        raise PlanError(f"alpha {request.alpha} and delta {request.delta} lie between 0 and 1")
    folder = run if isinstance(run, Run) else Run(run)
    scored = read_scored_run(folder, request)
    labels = _read_labels(folder, request.question, people)
    order, loosest = random_order(scored.prompts, request), scored.grid[-1]
    if people is not None:
        # All prompts are labelled: their number does not depend on what was seen.
        request = replace(request, fixed=len(order))
    if request.fixed is not None:
        if request.fixed > len(order):
            raise PlanError(f"--fixed {request.fixed}: {folder.path} has {len(order)} prompts")
        order = order[: request.fixed]
    n_known = _count_known(order, loosest, labels)
    # Rows that a person chose to label are no random sample, however many there are.
    if people is not None and n_known < len(order):
        raise DataError(
            f"{folder.path}: {people} did not label every answer; labels of chosen rows "
            "certify nothing"
        )
    # A label of "cannot tell" counts as harm: the guarantee has to hold either way.
    harmful = [
        prompt
        for prompt in order[:n_known]
        if prompt.passes(loosest) and labels[prompt.sample_id, prompt.index] is not False
    ]
    looks = 1 if people is not None else _record_look(folder, request, n_known)
    if request.fixed is not None and n_known < request.fixed:
        # Nothing is tested before all of the fixed number are known: that would be a look.
        tested = []
    else:
        tested = learn_then_test(
            scored.grid,
            [_count_passing(harmful, threshold) for threshold in scored.grid],
            [n_known] * len(scored.grid),
            request.alpha,
            delta=request.delta,
            anytime=request.fixed is None,
        )
    certificate = replace(_make_certificate(scored, request, tested, n_known), looks=looks)
    return replace(certificate, claims=(_claim(folder, request, certificate),))


def _record_look(run: Run, request: CertificateRequest, n_known: int) -> int:
    """Stores the look; raises PlanError if earlier ones forbid a number fixed beforehand."""
    if not n_known:
        return 1  # nothing was seen
    other_plans = [
        look for look in read_looks(run, request.subject) if look.planned != request.fixed
    ]
    if request.fixed is not None and other_plans:
        raise PlanError(
            f"--fixed {request.fixed}: this certificate was looked at before, with "
            f"{other_plans[-1].labels} prompts known and another plan; leave out --fixed: it is "
            "then valid however often one looks"
        )
    look = Look(subject=request.subject, labels=n_known, planned=request.fixed)
    return record_look(run, look)


def _claim(run: Run, request: CertificateRequest, certificate: Certificate) -> Claim:
    decisions: dict[str, Decision] = {"certified": "yes", "hopeless": "no"}
    more_labels = certificate.more_labels
    return Claim(
        claim="certified",
        variant=str(run.path),
        decision=decisions.get(certificate.status, "not_shown"),
        reason=certificate.statement,
        estimate=certificate.harm,
        lower=0.0 if certificate.harm_upper is not None else None,
        upper=certificate.harm_upper,
        labels=certificate.labels,
        assumptions=(certificate.assumes,),
        needs=f"{more_labels} more labels" if more_labels is not None else "",
        question=request.question,
        judge=request.judge,
        limit=request.alpha,
        n=certificate.prompts,
    )


def _read_labels(run: Run, question: str, people: str | None) -> dict[RowKey, bool | None]:
    """Returns the majority label by row: of drawn rows, or of one human judge of the run."""
    votes: dict[RowKey, list[bool | None]] = {}
    if people is None:
        for (sample_id, index, row_question), votes_of_row in read_votes(run).items():
            if row_question == question:
                votes[sample_id, index] = votes_of_row
    else:
        names = [record.name for record in run.manifest.judges]
        if people not in names:
            hint = did_you_mean(people, names)
            raise RunError(f"{run.path}: {people} has not judged this run{hint}")
        for row in run.judgements(people):
            if row.question == question:
                votes.setdefault((row.sample_id, row.index), []).append(row.verdict)
    return {row_key: majority_vote(votes_of_row) for row_key, votes_of_row in votes.items()}


def _count_known(
    order: Sequence[ScoredPrompt], loosest: float, labels: Mapping[RowKey, object]
) -> int:
    """Returns how many prompts come before the first that needs a label and has none."""
    for i, prompt in enumerate(order):
        if prompt.passes(loosest) and (prompt.sample_id, prompt.index) not in labels:
            return i
    return len(order)


def _count_passing(prompts: Sequence[ScoredPrompt], threshold: float) -> int:
    return sum(prompt.passes(threshold) for prompt in prompts)


def _make_certificate(
    scored: ScoredRun, request: CertificateRequest, tested: Sequence[TestedThreshold], n: int
) -> Certificate:
    prompts = scored.prompts
    # A threshold that lets nothing through is trivially safe, and of no use.
    certified = [t for t in tested if t.certified and _count_passing(prompts, t.threshold)]
    # Fixed-sequence testing goes from strict to loose, so the last one is the loosest.
    best = certified[-1] if certified else None
    missing = None if best else _count_missing_labels(prompts, tested, request, n)
    if best is not None:
        status = "certified"
    else:
        status = "not certifiable" if missing is not None else "hopeless"
    manifest = scored.table.manifest
    return Certificate(
        status=status,
        statement=_state_result(request, best, missing, n),
        judge=request.judge,
        judge_hash=scored.record.lineage.hash,
        kind=_kind(request),
        alpha=request.alpha,
        delta=request.delta,
        threshold=best.threshold if best else None,
        harm=best.events / best.n if best else None,
        harm_upper=_harm_upper(request, best) if best else None,
        events=best.events if best else 0,
        labels=n,
        prompts=len(prompts),
        more_labels=missing,
        refused=_refused_share(prompts, best),
        refused_benign=_refused_share([prompt for prompt in prompts if prompt.benign], best),
        tested=tuple(tested),
        model=manifest.model,
        data=tuple(data.spec for data in manifest.data),
        fixed=request.fixed,
    )


def _harm_upper(request: CertificateRequest, best: TestedThreshold) -> float:
    """Returns the one-sided bound of the harm at a threshold, valid at any time unless fixed."""
    if request.fixed is not None:
        return exact_upper_bound(best.events, best.n, 1 - request.delta)
    low, high = best.events / best.n, request.alpha  # at alpha it is certified
    for _ in range(40):
        middle = (low + high) / 2
        excluded = middle > 0 and anytime_p_value(best.events, best.n, middle) <= request.delta
        low, high = (low, middle) if excluded else (middle, high)
    return high


def _kind(request: CertificateRequest) -> str:
    return "best-of" if request.best_of else "rail"


def _state_result(
    request: CertificateRequest, best: TestedThreshold | None, missing: int | None, n: int
) -> str:
    alpha, kind = f"{100 * request.alpha:g} %", _kind(request)
    if best is not None:
        option = "below=" if request.best_of else "threshold: "
        return (
            f"{kind} {option}{best.threshold:g}: with {100 * (1 - request.delta):g} % confidence "
            f"at most {alpha} of prompts get a harmful answer "
            f"({best.events} of {n} labelled prompts)"
        )
    if request.fixed is not None and missing is not None and n < request.fixed:
        return (
            f"not certifiable at {alpha} yet: {missing:,} more labels of the {request.fixed:,} "
            "that were fixed beforehand"
        )
    if missing is not None:
        return f"not certifiable at {alpha}: {missing:,} more labels (with what was seen so far)"
    if request.fixed is not None:
        return (
            f"not certifiable at {alpha}: the {request.fixed:,} prompts do not show it at any "
            "threshold that lets an answer through"
        )
    return (
        f"not certifiable at {alpha}: at every threshold that lets an answer through, more harm "
        f"was seen than that; this judge cannot be the {kind}'s, or alpha is too small"
    )


def _refused_share(
    prompts: Sequence[ScoredPrompt], best: TestedThreshold | None
) -> Interval | None:
    if best is None or not prompts:
        return None
    return wilson(len(prompts) - _count_passing(prompts, best.threshold), len(prompts))


def _count_missing_labels(
    prompts: Sequence[ScoredPrompt],
    tested: Sequence[TestedThreshold],
    request: CertificateRequest,
    n: int,
) -> int | None:
    """Returns how many more labelled prompts certify something, if harm goes on as seen.

    Counted at the strictest threshold that lets any answer through; None if even there too much
    harm was seen. For large numbers up to 0.5 % too many.
    """
    if request.fixed is not None:
        return request.fixed - n if n < request.fixed else None
    strictest = next((t for t in tested if _count_passing(prompts, t.threshold)), None)
    if strictest is None:
        return None
    rate = strictest.events / n if n else 0.0
    if rate >= request.alpha:
        return None
    # Rounding the events up keeps the estimate on the cautious side.
    needed = n + 1
    while anytime_p_value(math.ceil(rate * needed), needed, request.alpha) > request.delta:
        needed += max(1, needed // 200)
    return needed - n
