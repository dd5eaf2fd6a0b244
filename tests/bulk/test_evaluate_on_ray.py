"""Runs in parts: joined, the files of one process; read by everything that reads a run."""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.bulk.ray_marks import on_ray
from tests.cli.command_line import truing
from tests.requirements import require_package

from truing.analysis import streamed_summary
from truing.analysis.comparison import compare
from truing.analysis.label_draws import draw_rows
from truing.analysis.summary import summarise
from truing.bulk.evaluate_on_ray import (
    EvaluationSpecs,
    EvaluationTask,
    EvaluationWorker,
    evaluate_on_ray,
    judge_on_ray,
)
from truing.bulk.part_visits import PartOutcome, PartVisit
from truing.bulk.ray_cluster import RayOptions
from truing.core.errors import DataError, PlanError, RunError
from truing.core.prices import Price
from truing.core.types import Sampling
from truing.evaluation.evaluate import evaluate, judge_run
from truing.evaluation.options import EvaluateOptions
from truing.evaluation.run_parts import finish_parts, prepare_judging, prepare_parts
from truing.runs.folder import Run
from truing.runs.parts import locate_record_files
from truing.runs.write_lock import acquire_write_lock
from truing.specs.resolve import resolve

MODEL, DATA, JUDGES = "scripted:mixed", "builtin:safety", ("keywords:", "rules:refusal")
OPTIONS = EvaluateOptions(sampling=Sampling(n=2, temperature=1.0), seed=3, limit=12)


def evaluate_parts(
    out: Path, specs: EvaluationSpecs, data: str, part_rows: int, options: Any
) -> Run:
    """What `evaluate_on_ray` does, with the worker in this process."""
    dataset = resolve(data, "data")
    model = resolve(specs.model, "model") if specs.model else None
    attack = resolve(specs.attack, "attack") if specs.attack else None
    judges = [resolve(spec, "judge") for spec in specs.judges]
    prepared = prepare_parts(
        model, dataset, judges, out, attack=attack, options=options, part_rows=part_rows
    )
    task = EvaluationTask(
        out=str(out), specs=specs, options=options, info=dataset.info, sha256=dataset.sha256()
    )
    work_on(prepared.parts, task)
    return finish_parts(out)


def work_on(parts: Any, task: EvaluationTask) -> None:
    worker = EvaluationWorker(task, None)
    for part in reversed(parts):
        visit = msgspec.msgpack.encode(PartVisit(part=part))
        outcome = msgspec.msgpack.decode(worker.work(visit), type=PartOutcome)
        assert outcome == PartOutcome(part=part)


def work_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the cluster of a command by one worker in this process."""

    def map_shards(ray: Any, shards: Any, build_worker: Any, *others: Any) -> Any:
        worker = build_worker(None)
        return (worker.work(shard) for shard in shards)

    module = "truing.bulk.evaluate_on_ray"
    monkeypatch.setattr(f"{module}.connect_ray", lambda cluster: contextlib.nullcontext())
    monkeypatch.setattr(f"{module}.map_shards", map_shards)


def joined(run: Path, name: str) -> bytes:
    return b"".join(path.read_bytes() for path in locate_record_files(run, name) if path.exists())


def assert_equal_runs(one: Path, parts: Path) -> None:
    manifest, of_parts = Run(one).manifest, Run(parts).manifest
    names = ["samples.jsonl", "responses.jsonl", *(record.file for record in manifest.judges)]
    for name in names:
        assert joined(parts, name) == (one / name).read_bytes(), name
    for field in ("plan", "plan_hash", "model", "lineage", "data", "judges", "seed", "complete"):
        assert getattr(of_parts, field) == getattr(manifest, field), field
    assert manifest.notes == of_parts.notes
    assert msgspec.json.encode(summarise(parts)) == msgspec.json.encode(summarise(one))


@pytest.mark.parametrize("part_rows", [1, 5])
def test_the_bytes_of_one_process(tmp_path: Path, part_rows: int) -> None:
    judges = [resolve(spec, "judge") for spec in JUDGES]
    evaluate(
        resolve(MODEL, "model"), resolve(DATA, "data"), judges, tmp_path / "one", options=OPTIONS
    )
    specs = EvaluationSpecs(model=MODEL, judges=JUDGES)
    run = evaluate_parts(tmp_path / "parts", specs, DATA, part_rows, OPTIONS)
    assert_equal_runs(tmp_path / "one", tmp_path / "parts")
    assert [r.sample_id for r in run.responses()] == [
        r.sample_id for r in Run(tmp_path / "one").responses()
    ]
    # The same command finds nothing to do.
    before = joined(run.path, "responses.jsonl")
    evaluate_parts(tmp_path / "parts", specs, DATA, part_rows, OPTIONS)
    assert joined(run.path, "responses.jsonl") == before


def test_what_the_parts_cost_is_added_up(tmp_path: Path) -> None:
    options = msgspec.structs.replace(OPTIONS, price=Price(input=2.0, output=8.0))
    evaluate(resolve(MODEL, "model"), resolve(DATA, "data"), [], tmp_path / "one", options=options)
    run = evaluate_parts(tmp_path / "parts", EvaluationSpecs(model=MODEL), DATA, 5, options)
    spending = run.manifest.spending
    assert spending is not msgspec.UNSET and (spending.money or 0) > 0
    assert spending == Run(tmp_path / "one").manifest.spending
    # Further judges change nothing of it.
    assert finish_parts(run.path).manifest.spending == spending


def test_an_attack_and_further_judges(tmp_path: Path) -> None:
    attack = "rot13:"
    resolved = resolve(attack, "attack")
    options = msgspec.structs.replace(OPTIONS, authorised="test")
    one, parts = tmp_path / "one", tmp_path / "parts"
    evaluate(
        resolve(MODEL, "model"), resolve(DATA, "data"), [], one, attack=resolved, options=options
    )
    evaluate_parts(parts, EvaluationSpecs(model=MODEL, attack=attack), DATA, 8, options)
    assert_equal_runs(one, parts)
    judge_run(one, [resolve(spec, "judge") for spec in JUDGES])
    names = prepare_judging(parts, [resolve(spec, "judge") for spec in JUDGES])
    work_on(
        names,
        EvaluationTask(
            out=str(parts), specs=EvaluationSpecs(judges=JUDGES), options=EvaluateOptions()
        ),
    )
    finish_parts(parts)
    assert_equal_runs(one, parts)


def write_recorded(path: Path) -> str:
    rows: list[dict[str, Any]] = [
        {"id": str(i), "prompt": f"p{i}", "response": ["murder", "hello"][i % 2]} for i in range(9)
    ]
    rows.insert(0, {"id": "without", "prompt": "p"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"file:{path}"


def test_recorded_answers(tmp_path: Path) -> None:
    data = write_recorded(tmp_path / "rows.jsonl")
    judges = [resolve("keywords:", "judge")]
    evaluate(None, resolve(data, "data"), judges, tmp_path / "one")
    evaluate_parts(
        tmp_path / "parts", EvaluationSpecs(judges=("keywords:",)), data, 1, EvaluateOptions()
    )
    assert_equal_runs(tmp_path / "one", tmp_path / "parts")


def test_comparisons_and_draws_read_parts(tmp_path: Path) -> None:
    runs = {}
    for name, model in (("a", "scripted:comply"), ("b", "scripted:mixed")):
        judges = [resolve(spec, "judge") for spec in JUDGES]
        evaluate(
            resolve(model, "model"), resolve(DATA, "data"), judges, tmp_path / name, options=OPTIONS
        )
        specs = EvaluationSpecs(model=model, judges=JUDGES)
        evaluate_parts(tmp_path / f"{name}-parts", specs, DATA, 6, OPTIONS)
        runs[name] = tmp_path / name
    one = compare(tmp_path / "a", tmp_path / "b")
    parts = compare(tmp_path / "a-parts", tmp_path / "b-parts")
    mixed = compare(tmp_path / "a", tmp_path / "b-parts")
    assert parts.deltas == one.deltas == mixed.deltas
    assert parts.flips == one.flips
    drawn = [draw_rows(tmp_path / name, 5) for name in ("a", "a-parts")]
    assert drawn[0] == drawn[1]
    assert (tmp_path / "a-parts/labels/draws.jsonl").exists()


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders `one` and `parts` with the same run, each called `mixed`, in the two layouts."""
    root = tmp_path_factory.mktemp("layouts")
    judges = [resolve(spec, "judge") for spec in JUDGES]
    data, model = resolve(DATA, "data"), resolve(MODEL, "model")
    evaluate(model, data, judges, root / "one" / "mixed", options=OPTIONS)
    specs = EvaluationSpecs(model=MODEL, judges=JUDGES)
    evaluate_parts(root / "parts" / "mixed", specs, DATA, 5, OPTIONS)
    evaluate(resolve("scripted:comply", "model"), data, judges, root / "base", options=OPTIONS)
    (root / "rules.toml").write_text('[[rule]]\ncheck = "harmful.upper < 0.9"\n')
    return root


@pytest.mark.parametrize(
    "streams",
    [
        False,
        pytest.param(True, id="part by part"),
    ],
)
@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("show RUN", ()),
        ("show RUN --json", ()),
        ("gate RUN RULES", ()),
        ("gate RUN RULES --json", ()),
        ("compare BASE RUN --out OUT/report.html --json", ()),
        ("report RUN --out OUT", ("report.md",)),
        ("export inspect RUN OUT/log.eval", ("log.eval",)),
        ("evaluate --model answers:RUN --data DATA --judge keywords: --out OUT/again --json", ()),
    ],
)
def test_commands_read_both_layouts(
    layouts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    files: tuple[str, ...],
    streams: bool,
) -> None:
    """Also where the sharded run is so large that it is summarised part by part."""
    if streams:
        monkeypatch.setattr(streamed_summary, "STREAMED_SAMPLES", 10)
    printed, written = {}, {}
    for layout in ("one", "parts"):
        out = tmp_path / layout
        out.mkdir()
        words = {
            "RUN": str(layouts / layout / "mixed"),
            "BASE": str(layouts / "base"),
            "RULES": str(layouts / "rules.toml"),
            "OUT": str(out),
            "DATA": DATA,
        }
        line = re.sub("[A-Z]{3,}", lambda match, of=words: of[match.group()], command)
        result = truing(line)
        assert result.status in (0, 2, 3), result.err
        printed[layout] = re.sub(f"{layouts / layout}|{out}", "FOLDER", result.out)
        written[layout] = [_read_output(out / name, layouts / layout) for name in files]
    if streams:
        # What is left out, the notes say; the counts stand in both.
        assert "summarised part by part" in printed["parts"] or "show" not in command
        return
    assert printed["one"] == printed["parts"]
    assert written["one"] == written["parts"]


def _read_output(path: Path, layout: Path) -> object:
    if path.suffix != ".eval":
        return path.read_text().replace(str(layout), "FOLDER")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith("samples/")]
        assert names
        samples = {name: json.loads(archive.read(name)) for name in names}
    # All but the times, which are those of the run.
    return {
        name: ([m["content"] for m in s["messages"]], s["output"]["choices"], sorted(s["scores"]))
        for name, s in samples.items()
    }


def test_other_answers_in_a_part_are_another_model(tmp_path: Path) -> None:
    specs = EvaluationSpecs(model=MODEL, judges=JUDGES)
    run = evaluate_parts(tmp_path / "run", specs, DATA, 5, OPTIONS).path
    model, sha256 = resolve(f"answers:{run}", "model"), resolve(f"run:{run}", "data").sha256()
    stored = run / "parts/part-000001/responses.jsonl"
    lines = stored.read_text().splitlines(keepends=True)
    stored.write_text("".join(lines[:-1]))
    assert resolve(f"answers:{run}", "model").lineage != model.lineage
    assert resolve(f"run:{run}", "data").sha256() != sha256


def test_a_crash_while_the_data_set_is_read(tmp_path: Path) -> None:
    class Broken:
        def __init__(self, of: Any) -> None:
            self.info, self.sha256 = of.info, of.sha256
            self._of = of

        def rows(self) -> Any:
            for number, row in enumerate(self._of.rows()):
                if number == 20:
                    raise DataError("row 21: broken")
                yield row

    dataset = resolve(DATA, "data")
    model = resolve(MODEL, "model")
    options = EvaluateOptions(seed=3)
    with pytest.raises(DataError, match="row 21"):
        prepare_parts(model, Broken(dataset), [], tmp_path / "run", options=options, part_rows=5)
    assert not (tmp_path / "run").exists()
    # A process that was killed leaves parts without the file that names them.
    prepare_parts(model, dataset, [], tmp_path / "run", options=options, part_rows=5)
    (tmp_path / "run/parts.json").unlink()
    prepared = prepare_parts(model, dataset, [], tmp_path / "run", options=options, part_rows=9)
    assert len(prepared.parts) == len(list((tmp_path / "run/parts").iterdir()))
    assert len(list(Run(tmp_path / "run").samples())) == len(list(dataset.rows()))


def test_the_two_layouts_are_not_mixed(tmp_path: Path) -> None:
    model, dataset = resolve(MODEL, "model"), resolve(DATA, "data")
    prepare_parts(model, dataset, [], tmp_path / "parts", options=OPTIONS)
    with pytest.raises(RunError, match="is a sharded run; continue it, or judge it, with --on ray"):
        evaluate(model, dataset, [], tmp_path / "parts", options=OPTIONS)
    evaluate(model, dataset, [], tmp_path / "one", options=OPTIONS)
    with pytest.raises(RunError, match="is a run of one process; continue it without --on"):
        prepare_parts(model, dataset, [], tmp_path / "one", options=OPTIONS)
    with pytest.raises(RunError, match="is a run of one process; judge it without --on"):
        prepare_judging(tmp_path / "one", [])
    changed = msgspec.structs.replace(OPTIONS, seed=4)
    with pytest.raises(RunError, match="holds a run of another plan"):
        prepare_parts(model, dataset, [], tmp_path / "parts", options=changed)


def test_a_stopping_rule_needs_one_process(tmp_path: Path) -> None:
    from truing.analysis.stopping_rule import parse_stopping_rule

    judges = [resolve("keywords:", "judge")]
    options = EvaluateOptions(until=parse_stopping_rule("harm(width<0.05)", judges))
    with pytest.raises(PlanError, match="--until needs one process"):
        prepare_parts(
            resolve(MODEL, "model"), resolve(DATA, "data"), judges, tmp_path, options=options
        )


def test_a_worker_with_another_model_is_a_fault(tmp_path: Path) -> None:
    dataset = resolve(DATA, "data")
    prepared = prepare_parts(
        resolve(MODEL, "model"), dataset, [], tmp_path / "run", options=OPTIONS
    )
    task = EvaluationTask(
        out=str(tmp_path / "run"),
        specs=EvaluationSpecs(model="scripted:comply"),
        options=OPTIONS,
        info=dataset.info,
        sha256=dataset.sha256(),
    )
    worker = EvaluationWorker(task, None)
    result = worker.work(msgspec.msgpack.encode(PartVisit(part=prepared.parts[0])))
    assert "holds a run of another plan (model:" in msgspec.msgpack.decode(result)["fault"]
    assert not finish_parts(tmp_path / "run").manifest.complete


def test_a_second_command_on_the_same_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it asks for or changes anything: both together would spend a budget twice."""
    dataset, specs = resolve(DATA, "data"), EvaluationSpecs(model=MODEL, judges=JUDGES)
    work_in_this_process(monkeypatch)
    first = EvaluationSpecs(model=MODEL)
    evaluate_on_ray(first, dataset, tmp_path, RayOptions(), options=OPTIONS)
    manifest = (tmp_path / "manifest.json").read_bytes()
    with acquire_write_lock(tmp_path / "parts"):
        with pytest.raises(RunError, match="another process is writing"):
            evaluate_on_ray(specs, dataset, tmp_path, RayOptions(), options=OPTIONS)
        with pytest.raises(RunError, match="another process is writing"):
            judge_on_ray(tmp_path, ["keywords:"], RayOptions(), options=EvaluateOptions())
    assert (tmp_path / "manifest.json").read_bytes() == manifest


def test_a_command_keeps_others_out_until_its_run_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_in_this_process(monkeypatch)
    finished: list[str] = []

    def finish(out: Path, **options: Any) -> Run:
        with pytest.raises(RunError, match="another process is writing"):
            acquire_write_lock(out / "parts")
        finished.append(out.name)
        return finish_parts(out, **options)

    monkeypatch.setattr("truing.bulk.evaluate_on_ray.finish_parts", finish)
    out, specs = tmp_path / "run", EvaluationSpecs(model=MODEL)
    for _ in range(2):  # a new run, and one that goes on
        evaluate_on_ray(specs, resolve(DATA, "data"), out, RayOptions(), options=OPTIONS)
    judge_on_ray(out, ["keywords:"], RayOptions(), options=EvaluateOptions())
    assert finished == ["run"] * 3
    acquire_write_lock(out / "parts").close()


@on_ray
def test_on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    require_package("ray")
    monkeypatch.setenv("PYTHONPATH", str(root / "src"))
    cluster = RayOptions(workers=2, cpus=0.5, rate=200)
    evaluate(
        resolve(MODEL, "model"),
        resolve(DATA, "data"),
        [resolve("keywords:", "judge")],
        tmp_path / "one",
        options=OPTIONS,
    )
    specs = EvaluationSpecs(model=MODEL, judges=("keywords:",))
    evaluate_on_ray(
        specs, resolve(DATA, "data"), tmp_path / "parts", cluster, options=OPTIONS, part_rows=8
    )
    assert_equal_runs(tmp_path / "one", tmp_path / "parts")
    judge_run(tmp_path / "one", [resolve("rules:refusal", "judge")])
    judge_on_ray(tmp_path / "parts", ["rules:refusal"], cluster, options=EvaluateOptions())
    assert_equal_runs(tmp_path / "one", tmp_path / "parts")
