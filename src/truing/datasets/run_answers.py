"""`run:DIR`: the answers of a finished run as a data set, and as preference pairs by a judge.

    run:runs/base                        samples with their answers and judgements
    run:runs/base,by=rules:check         pairs: that judge's best answer, chosen over its worst
    run:runs/a|runs/b,by=cost:DIR        the same, over the answers of several runs

It is the training data of `truing train sft|reward|dpo --data run:DIR`. The judges that chose or
ranked the answers are recorded in the lineage of the trained model, so that none of them can later
evaluate it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from truing.core.errors import DataError, did_you_mean
from truing.core.judgement_scores import (
    HARM_QUESTIONS,
    LOWER_IS_BETTER_QUESTIONS,
    judgement_score,
)
from truing.core.licences import join_licences
from truing.core.types import (
    DataInfo,
    Dimension,
    Judgement,
    Lineage,
    Preference,
    Response,
    Row,
    Sample,
)
from truing.datasets.base import Half, assign_half
from truing.runs.folder import Run
from truing.runs.parts import locate_record_files
from truing.specs.resolve import Args

_EXCLUDED_FINISH_REASONS = ("error", "abstained", "blocked")


class RunDataset:
    """One or more finished runs as one `Dataset`."""

    def __init__(
        self,
        runs: list[Run],
        spec: str,
        *,
        by: str | None = None,
        prefer: Literal["high", "low"] | None = None,
        half: Half = "",
        limit: int | None = None,
        gap: float = 0.0,
    ) -> None:
        self.runs, self.by, self.half, self.limit, self.gap = runs, by, half, limit, gap
        self.question = self._question()
        low = self.question in LOWER_IS_BETTER_QUESTIONS
        self.sign = -1 if (prefer or ("low" if low else "high")) == "low" else 1
        manifests = [r.manifest for r in runs]
        # Answers are also subject to the licence of the model that wrote them.
        licences = [
            text for m in manifests for text in (*(d.licence for d in m.data), m.lineage.licence)
        ]
        red = any("red-team" in d.spec for m in manifests for d in m.data)
        self.info = DataInfo(
            spec=spec,
            title="answers of a run",
            source=", ".join(dict.fromkeys(m.model for m in manifests)),
            licence=join_licences(*licences),
            red_team=red,
        )

    @property
    def judges(self) -> tuple[Lineage, ...]:
        """Returns the judges in the lineage of the answers, and those that order or label them.

        `by` orders the pairs. Without it the verdicts of every judge of the run may serve as
        labels.
        """
        lineages: dict[str, Lineage] = {}
        for run in self.runs:
            manifest = run.manifest
            run_lineages = [
                *manifest.lineage.judges,
                *(
                    record.lineage
                    for record in manifest.judges
                    if record.name == self.by
                    or (self.by is None and not record.name.startswith("human:"))
                ),
            ]
            # Equal judges of several runs are listed once; a judge without a hash goes by its
            # name.
            lineages |= {j.hash or j.name: j for j in run_lineages}
        return tuple(lineages.values())

    def _question(self) -> str:
        if self.by is None:
            return ""
        question_by_judge = {j.name: j.question for run in self.runs for j in run.manifest.judges}
        if self.by not in question_by_judge:
            raise DataError(
                f"run: has no judgements of {self.by!r}{did_you_mean(self.by, question_by_judge)}"
            )
        return question_by_judge[self.by]

    def sha256(self) -> str:
        """Returns the hash of the answers and of the judgements in use."""
        digest = hashlib.sha256()
        for run in self.runs:
            files = [r.file for r in run.manifest.judges if r.name == self.by]
            for name in ("samples.jsonl", "responses.jsonl", *files):
                # Only the judgements that order the pairs: a judge added to the run later changes
                # no pair.
                for path in filter(Path.is_file, locate_record_files(run.path, name)):
                    with path.open("rb") as stream:
                        while chunk := stream.read(1 << 20):
                            digest.update(chunk)
        return digest.hexdigest()

    def rows(self) -> Iterator[Row]:
        """Yields the samples of all runs with all their answers, which are numbered anew.

        A sample keeps the place of the first run that has it.
        """
        samples: dict[str, Sample] = {}
        answers: dict[str, list[Response]] = {}
        judgements: dict[str, list[Judgement]] = {}
        for run in self.runs:
            # Indexes of this run start after the answers of the earlier runs.
            first = {key: len(listed) for key, listed in answers.items()}
            for sample in run.samples():
                samples.setdefault(sample.id, sample)
            for response in run.responses():
                shift = first.get(response.sample_id, 0)
                answers.setdefault(response.sample_id, []).append(
                    replace(response, index=response.index + shift)
                )
            for judgement in run.judgements():
                shift = first.get(judgement.sample_id, 0)
                judgements.setdefault(judgement.sample_id, []).append(
                    replace(judgement, index=judgement.index + shift)
                )
        count = 0
        for key, sample in samples.items():
            # By the pair where there is one, so that a prompt and its twin share a half (as in
            # `builtin:`).
            if self.half and assign_half(sample.pair or sample.prompt) != self.half:
                continue
            if count == self.limit:
                return
            count += 1
            usable = tuple(
                r
                for r in answers.get(key, [])
                if r.failure is None and r.finish_reason not in _EXCLUDED_FINISH_REASONS
            )
            yield Row(sample=sample, responses=usable, judgements=tuple(judgements.get(key, [])))

    def preferences(self) -> Iterator[Preference]:
        """Yields a pair for each sample: its best answer as chosen, its worst as rejected.

        Samples whose best and worst scores differ by at most `gap` yield none.

        Without a judge (`by`) there are no pairs.
        """
        if self.by is None:
            return
        dimension: Dimension = "safe" if self.question in HARM_QUESTIONS else "helpful"
        for row in self.rows():
            scores = {
                j.index: v
                for j in row.judgements
                if j.judge == self.by and (v := judgement_score(j)) is not None
            }
            verdicts = {j.index: j.verdict for j in row.judgements if j.judge == self.by}
            scored = [
                (self.sign * scores[r.index], r)
                for r in row.responses
                if r.index in scores and r.text.strip()
            ]
            if not scored:
                continue
            # Ties go to the earlier answer, so that the pairs do not depend on the order in the
            # file.
            best = max(scored, key=lambda s: (s[0], -s[1].index))
            worst = min(scored, key=lambda s: (s[0], -s[1].index))
            if best[0] - worst[0] <= self.gap:
                continue
            signs = None
            if (
                dimension == "safe"
                and verdicts[best[1].index] is not None
                and verdicts[worst[1].index] is not None
            ):
                signs = (
                    -1 if verdicts[best[1].index] else 1,
                    -1 if verdicts[worst[1].index] else 1,
                )
            yield Preference(
                conversation=row.sample.conversation,
                chosen=best[1].message,
                rejected=worst[1].message,
                dimension=dimension,
                signs=signs,
                source=row.sample.source or "run",
                harms=row.sample.harms,
            )


def build(args: Args) -> RunDataset:
    """`run:DIR[|DIR...][,by=JUDGE][,prefer=high|low][,half=train|report][,limit=N][,gap=X]`."""
    if not args.name:
        raise args.fault("give a run folder: run:DIR")
    ends: dict[str | None, Literal["high", "low"] | None] = {
        None: None,
        "high": "high",
        "low": "low",
    }
    halves: dict[str, Half] = {"": "", "train": "train", "report": "report"}
    prefer, half = args.text("prefer"), args.text("half", "")
    if prefer not in ends:
        raise args.fault(f"prefer={prefer!r} is neither 'high' nor 'low'")
    if half not in halves:
        raise args.fault(f"half={half!r} is neither 'train' nor 'report'")
    return RunDataset(
        [Run(Path(p)) for p in args.name.split("|")],
        str(args.spec),
        by=args.text("by"),
        prefer=ends[prefer],
        half=halves[half],
        limit=args.integer("limit"),
        gap=args.number("gap", 0.0),
    )
