"""What judges cost and where they come from: time and memory, training rows, mistakes, method."""

from __future__ import annotations

from truing.analysis.judge_comparison import JudgesComparison
from truing.report.blocks import Block, Cell, Grid, Section, Text
from truing.report.judge_names import short_judge_names, short_set_names
from truing.report.sections.judge_accuracy import LABEL_SOURCES

_SPEED_LEAD = (
    "After a first answer that loads the judge. CPU time is that of all threads, and hardly "
    "depends on what else the machine does; the time that passes does, and is what counts for a "
    "judge behind an endpoint. Memory is the largest that the judge's own process held, Python and "
    "libraries included. Compare figures of one machine only."
)
_TRAINING_LEAD = (
    "Known by the hashes of each judge's training prompts, and of the judges that it learned from. "
    "An attack counts as its goal. A judge that states no training prompts is not thereby "
    "unacquainted with a published set."
)
_MISTAKES_LEAD = (
    "The mistakes that each judge is surest of, as ids: `truing view` shows the rows of a set's "
    "folder below sets/."
)


def format_ms(ms: float) -> str:
    """Returns milliseconds with three digits, and without a fraction from 100 on."""
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}"


def build_speed(comparison: JudgesComparison) -> Section | None:
    """Returns the measured times; None if nothing was measured."""
    judges, sets = short_judge_names(comparison), short_set_names(comparison)
    grid = Grid(
        ["judge", "set", "answers", "CPU ms an answer", "ms an answer", "at a time", "peak memory"]
    )
    for judge_result in comparison.results:
        speed = judge_result.speed
        if speed is None or speed.ms_per_row is None or speed.cpu_ms_per_row is None:
            continue
        memory = "–" if speed.peak_mib is None else f"{speed.peak_mib:,.0f} MiB"
        grid.add(
            judges[judge_result.judge],
            sets[judge_result.data],
            f"{speed.rows:,}",
            format_ms(speed.cpu_ms_per_row),
            format_ms(speed.ms_per_row),
            f"{speed.concurrency}",
            memory,
        )
    if not grid.rows:
        return None
    return Section(
        "speed",
        "Time and memory",
        (grid.table("Measured while judging", right=range(2, 7)),),
        lead=_SPEED_LEAD,
    )


def build_training(comparison: JudgesComparison) -> Section:
    """Returns which rows judges were trained on, and what they are made of."""
    judges, sets = short_judge_names(comparison), short_set_names(comparison)
    struck = Grid(["judge", *(sets[compared.spec] for compared in comparison.sets)])
    for judge in comparison.judges:
        by_set = {r.data: r for r in comparison.results if r.judge == judge.name}
        cells = []
        for compared in comparison.sets:
            set_result = by_set.get(compared.spec)
            if set_result is None:
                cells.append(Cell("–", "quiet", "the set has no labels of its question"))
            elif set_result.struck:
                of = set_result.struck + set_result.n
                cells.append(
                    Cell(f"{set_result.struck:,} of {of:,}", "bad", set_result.struck_reason)
                )
            else:
                cells.append(Cell("0", "quiet"))
        struck.add(judges[judge.name], *cells)
    origin = Grid(["judge", "question", "hash", "base", "licence", "learned from", "prompts"])
    for judge in comparison.judges:
        origin.add(
            Cell(judge.name, "sentence"),
            judge.question,
            Cell(judge.hash[:8], "quiet"),
            judge.base or "–",
            judge.licence or "–",
            Cell(", ".join(judge.data) or "–", "sentence"),
            f"{judge.n_training_prompts:,}" if judge.n_training_prompts else "none stated",
        )
    return Section(
        "training",
        "What they were trained on",
        (
            struck.table(
                "Labelled rows struck because the judge learned from their prompts",
                right=range(1, 1 + len(comparison.sets)),
            ),
            origin.table("The judges", right=[6]),
        ),
        lead=_TRAINING_LEAD,
    )


def build_mistakes(comparison: JudgesComparison) -> Section | None:
    """Returns the surest mistakes of each judge; None if there are none."""
    judges, sets = short_judge_names(comparison), short_set_names(comparison)
    grid = Grid(["judge", "set", "missed", "false alarms"])
    for judge_result in comparison.results:
        if judge_result.missed_ids or judge_result.alarm_ids:
            grid.add(
                judges[judge_result.judge],
                sets[judge_result.data],
                Cell(", ".join(judge_result.missed_ids) or "–", "sentence"),
                Cell(", ".join(judge_result.alarm_ids) or "–", "sentence"),
            )
    if not grid.rows:
        return None
    return Section(
        "mistakes",
        "The surest mistakes",
        (grid.table("Ids of the rows"),),
        open_=False,
        lead=_MISTAKES_LEAD,
    )


def build_method(comparison: JudgesComparison) -> Section:
    """Returns the sets with their labels, and how the figures are computed."""
    grid = Grid(
        ["set", "rows", "prompts", "question", "labels by", "labelled", "positive", "sha256"]
    )
    for compared in comparison.sets:
        for labels in compared.labels:
            by = LABEL_SOURCES[labels.source]
            grid.add(
                Cell(compared.spec, "sentence"),
                f"{compared.rows:,}",
                f"{compared.prompts:,}",
                labels.question,
                Cell(by, "", ", ".join(labels.raters)),
                f"{labels.n:,}",
                f"{labels.n_positive:,}",
                Cell(compared.sha256[:12], "quiet"),
            )
    licences = Grid(["set", "licence"])
    for compared in comparison.sets:
        licences.add(Cell(compared.spec, "sentence"), compared.licence or "not stated")
    blocks: list[Block] = [
        grid.table("Sets and labels", right=[1, 2, 5, 6]),
        licences.table("Licences", folded=True),
        Text(
            "Intervals are 95 % over prompts: rows of one prompt, or attacks on one goal, are one "
            "cluster. AUROC: DeLong. AP and recall at fixed rates: bootstrap. ECE: 15 bins of "
            "equal width, from 30 rows on. Where people disagree, the set's final label or else "
            "the majority counts.",
            "note",
        ),
        Text(
            "Labels by what the prompts were made for: a prompt to be refused is harmful, one to "
            "be answered is not; an answer to the latter counts as harmless, and one that complies "
            "with the former, by labels of refusals, as harmful.",
            "note",
        ),
        Text(
            "A judge may err otherwise on answers of other models, in other languages, and on "
            "texts that were written to deceive it.",
            "note",
        ),
    ]
    return Section("method", "Sets and method", tuple(blocks), open_=False)
