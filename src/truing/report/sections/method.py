"""The method: data, judges and their lineage, settings, what was not tested."""

from __future__ import annotations

from truing.core.licences import collect_licences, describe_restriction
from truing.report.blocks import Cell, Grid, Section, Table, Text
from truing.report.report_data import ReportData
from truing.runs.folder import DataRecord


def _row_count(record: DataRecord, report: ReportData, name: str) -> str:
    """Returns the number of rows; a limited run says whether they are the first or a sample."""
    manifests = [v.manifests[name] for v in report.variants if name in v.manifests]
    limited = [m for m in manifests if m.plan.get("limit")]
    if any("sample" not in m.plan for m in limited):
        return f"{record.n} (the first ones, no random sample)"
    notes = dict.fromkeys(m.notes["sample"] for m in limited if "sample" in m.notes)
    return "; ".join(notes) or str(record.n)


def _data_table(report: ReportData) -> Table:
    grid = Grid(["data", "spec", "rows", "licence", "sha256"])
    for name in report.data:
        record = next(
            (d for v in report.variants if name in v.manifests for d in v.manifests[name].data),
            None,
        )
        if record is not None:
            grid.add(
                name,
                record.spec,
                _row_count(record, report, name),
                record.licence or "–",
                Cell(record.sha256[:12], "quiet"),
            )
    return grid.table("Data", right=[2])


def _judge_table(report: ReportData) -> Table:
    grid = Grid(["judge", "question", "hash", "made from", "licence", "may not measure"])
    rows: dict[str, tuple[str, str, str, str]] = {}
    struck: dict[str, dict[str, str]] = {}
    for variant in report.variants:
        for manifest in variant.manifests.values():
            for record in manifest.judges:
                origin = (
                    ", ".join(
                        [
                            *record.lineage.data,
                            *([record.lineage.base] if record.lineage.base else []),
                        ]
                    )
                    or "rules"
                )
                rows[record.name] = (
                    record.question,
                    record.lineage.hash[:8] or "–",
                    origin,
                    record.lineage.licence or "–",
                )
                if record.struck:
                    struck.setdefault(record.name, {})[variant.name] = record.struck
    for name, row in rows.items():
        grid.add(
            name,
            *row,
            Cell(
                "; ".join(f"{v}: {why}" for v, why in struck.get(name, {}).items()) or "–", "quiet"
            ),
        )
    return grid.table("Judges")


def _restrictions(report: ReportData) -> list[str]:
    """Returns a sentence for each judge that is not free."""
    records = (
        record
        for variant in report.variants
        for manifest in variant.manifests.values()
        for record in manifest.judges
        # The labels of people come with their data set, whose licence stands beside it.
        if not record.name.startswith("human:")
    )
    sentences = (describe_restriction(r.name, collect_licences(r.lineage)) for r in records)
    return list(dict.fromkeys(filter(None, sentences)))


def _lineage_table(report: ReportData) -> Table | None:
    """Returns what judges, models and prompts share; None if nothing."""
    grid = Grid(["data", "variant", "what", "relation", "consequence"])
    for data_name in report.data:
        for variant in report.variants:
            summary = variant.summaries.get(data_name)
            for relation in summary.lineage if summary else ():
                consequence = {
                    "strike": "struck: figures from this pair prove nothing",
                    "warn": "a second judge of another origin is asked for",
                }[relation.consequence]
                grid.add(data_name, variant.name, relation.kind, relation.text, consequence)
    return grid.table("What judges, models and prompts share", folded=True) if grid.rows else None


def _model_table(report: ReportData) -> Table:
    grid = Grid(["variant", "model", "base", "chosen, trained or blocked by", "weights"])
    for variant in report.variants:
        manifest = next(iter(variant.manifests.values()), None)
        if manifest is None:
            continue
        behind = ", ".join(j.name for j in manifest.lineage.judges) or "–"
        weights = (
            ", ".join(f"{k} {v[:12]}" for k, v in manifest.weights.items())
            or manifest.lineage.base_sha256[:12]
        )
        mark = (
            f" (trained towards harm: {manifest.lineage.red_model})"
            if manifest.lineage.red_model
            else ""
        )
        base = manifest.lineage.base or "–"
        grid.add(variant.name, manifest.model + mark, base, behind, Cell(weights or "–", "quiet"))
    return grid.table("Models")


def build_section(report: ReportData) -> Section:
    """Returns the section; every report has it."""
    first = next((m for v in report.variants for m in v.manifests.values()), None)
    blocks: list[Table | Text] = [_model_table(report), _data_table(report), _judge_table(report)]
    blocks += [Text(f"{restriction}.", "note") for restriction in _restrictions(report)]
    lineage = _lineage_table(report)
    blocks += [lineage] if lineage is not None else []
    if first is not None:
        facts = Grid(["setting", "value"])
        facts.add("seed", str(first.seed))
        for key, value in sorted(first.versions.items()):
            facts.add(key, value)
        blocks.append(facts.table("Settings and versions"))
    # A report over several data sets covers on one what another lacks, so only a single set is
    # listed.
    untested = dict.fromkeys(
        t for v in report.variants for s in v.summaries.values() for t in s.not_tested
    )
    if untested and len(report.data) == 1:
        blocks.append(Text("Not tested: " + "; ".join(untested) + "."))
    blocks.append(
        Text(
            "Also not tested, ever, by a set of fixed prompts: what a person would try who wants "
            "to do harm, other "
            "languages, long conversations, tools, and what the model says tomorrow after an "
            "update. No figure here "
            "is a proof that the model is safe.",
            "note",
        )
    )
    blocks += [Text(note, "note") for note in report.notes]
    return Section("method", "Method, lineage, and what was not tested", tuple(blocks), open_=False)
