"""The method: models, data, judges, settings, and what was not tested."""

from __future__ import annotations

from tests.report.rates import cell_texts, find_cell, make_report, make_variant

from truing.analysis.lineage_relations import LineageRelation
from truing.core.types import Lineage
from truing.report.blocks import Table, Text
from truing.report.report_data import Variant
from truing.report.sections.method import build_section
from truing.runs.folder import DataRecord, JudgeRecord, Manifest

CHOOSER = Lineage(name="chooser", hash="c" * 16, data=("labels",), base="base", licence="mit")


def make_measured() -> Variant:
    variant = make_variant("a", not_tested=("over-refusal", "harm"))
    record = DataRecord(spec="builtin:set", n=12, licence="cc0", sha256="ab" * 32)
    judges = [
        JudgeRecord(
            name="chooser", question="harmful", file="f", lineage=CHOOSER, struck="chose the answer"
        ),
        JudgeRecord(name="rules", question="refused", file="g"),
    ]
    lineage = Lineage(name="m", hash="1" * 16, base="llama", judges=(CHOOSER,), red_model="evil")
    variant.manifests = {
        "set": Manifest(
            model="best-of:4",
            lineage=lineage,
            data=[record],
            judges=judges,
            seed=7,
            versions={"truing": "1.0", "python": "3.12"},
        )
    }
    return variant


def test_tables_state_models_data_judges_and_settings() -> None:
    section = build_section(make_report(make_measured(), notes=("a remark",)))
    models, data, judges, settings, untested, always, remark = section.blocks
    assert isinstance(models, Table) and isinstance(data, Table)
    assert cell_texts(models) == [
        ["a", "best-of:4 (trained towards harm: evil)", "llama", "chooser", "–"]
    ]
    assert cell_texts(data) == [["set", "builtin:set", "12", "cc0", "abababababab"]]
    assert isinstance(judges, Table)
    assert cell_texts(judges) == [
        ["chooser", "harmful", "cccccccc", "labels, base", "mit", "a: chose the answer"],
        ["rules", "refused", "–", "rules", "–", "–"],
    ]
    assert find_cell(judges, 0, "may not measure").kind == "quiet"
    assert isinstance(settings, Table)
    assert cell_texts(settings) == [["seed", "7"], ["python", "3.12"], ["truing", "1.0"]]
    assert untested == Text("Not tested: over-refusal; harm.")
    assert isinstance(always, Text) and always.text.startswith("Also not tested, ever")
    assert remark == Text("a remark", "note")


def test_every_report_has_the_section() -> None:
    section = build_section(make_report(make_variant("a")))
    captions = [block.caption for block in section.blocks if isinstance(block, Table)]
    assert captions == ["Models", "Data", "Judges"]
    assert not section.open_


def test_what_judges_and_prompts_share_is_one_table() -> None:
    relation = LineageRelation(
        kind="judge and judge", judge="a", other="b", consequence="warn", text="a and b share x"
    )
    section = build_section(make_report(make_variant("v", lineage=(relation,))))
    tables = [b for b in section.blocks if isinstance(b, Table)]
    shared = next(t for t in tables if t.caption.startswith("What judges"))
    assert cell_texts(shared) == [
        [
            "set",
            "v",
            "judge and judge",
            "a and b share x",
            "a second judge of another origin is asked for",
        ]
    ]


def test_a_limited_run_says_that_it_took_the_first_rows() -> None:
    variant = make_measured()
    variant.manifests["set"].plan = {"limit": 12}
    table = build_section(make_report(variant)).blocks[1]
    assert isinstance(table, Table)
    assert cell_texts(table)[0][2] == "12 (the first ones, no random sample)"


def test_a_limited_run_says_how_its_rows_were_drawn() -> None:
    variant = make_measured()
    variant.manifests["set"].plan = {"limit": 12, "sample": "random"}
    variant.manifests["set"].notes["sample"] = "12 of 168 rows, drawn by prompt with seed 0"
    table = build_section(make_report(variant)).blocks[1]
    assert isinstance(table, Table)
    assert cell_texts(table)[0][2] == "12 of 168 rows, drawn by prompt with seed 0"
