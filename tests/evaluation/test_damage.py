"""A damaged run folder: the lines are named and kept aside, what they held is asked again."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.model_stand_ins import EvenJudge, MemoryDataset, SeedModel

from truing.core.errors import RunError
from truing.evaluation.evaluate import evaluate, judge_run
from truing.runs.folder import Run, judgement_file

N = 40
JUDGE = judgement_file(EvenJudge().name, EvenJudge().lineage.hash)


def run_into(out: Path) -> Run:
    return evaluate(SeedModel(), MemoryDataset.of_size(N), [EvenJudge()], out)


def contents(folder: Path) -> dict[str, bytes]:
    """The records of a run; the manifest, which notes the damage, is left out."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jsonl")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_into(tmp_path_factory.mktemp("whole") / "run").path


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def zero_block(path: Path, start: int = 700, length: int = 500) -> None:
    data = bytearray(path.read_bytes())
    data[start : start + length] = bytes(len(data[start : start + length]))
    path.write_bytes(data)


def garble(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[7] = random.Random(1).randbytes(90).replace(b"\n", b"") + b"\n"
    path.write_bytes(b"".join(lines))


def drop_quote(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"index"', b'"index', 1))


def change_id(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"sample_id":"', b'"sample_id":"x', 1))


def change_index(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"index":0', b'"index":9999', 1))


def fuse_lines(path: Path) -> None:
    """Two parts of lines that are valid JSON together: a key occurs twice."""
    path.write_bytes(path.read_bytes().replace(b'"index":0,', b'"index":0,"index":0,', 1))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def repeat_lines(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], *lines[2:]]))


LINE_DAMAGE = (zero_block, garble, drop_quote, change_id, change_index, fuse_lines)
SILENT_DAMAGE = (cut_off, empty, repeat_lines)


@pytest.mark.parametrize("file", ["responses.jsonl", JUDGE])
@pytest.mark.parametrize("damage", [*LINE_DAMAGE, *SILENT_DAMAGE])
def test_the_same_command_restores_every_record(
    damage: Callable[[Path], None],
    file: str,
    run: Path,
    whole: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    damage(run / file)
    with caplog.at_level(logging.WARNING):
        run_into(run)
    assert contents(run) == contents(whole)
    assert Run(run).manifest.complete
    if damage in LINE_DAMAGE:
        assert f"{file}:" in caplog.text
        assert file in Run(run).manifest.notes["damaged"]
        assert str(run) not in Run(run).manifest.notes["damaged"]
        assert (run / f"{file}.damaged").stat().st_size > 0
        assert (run / f"{file}.damaged").stat().st_mode & 0o077 == 0
    else:
        assert not (run / f"{file}.damaged").exists()


@pytest.mark.parametrize("damage", [zero_block, garble, cut_off, empty])
def test_damaged_samples_are_read_from_the_data_set_again(
    damage: Callable[[Path], None], run: Path, whole: Path
) -> None:
    damage(run / "samples.jsonl")
    run_into(run)
    assert contents(run) == contents(whole)
    assert (run / "samples.jsonl.damaged").exists()


def test_only_what_was_damaged_is_asked_again(run: Path) -> None:
    asked: list[str] = []

    class Counting(SeedModel):
        async def generate(self, conversation, sampling):  # type: ignore[no-untyped-def]
            asked.append(conversation.prompt)
            return await super().generate(conversation, sampling)

    garble(run / "responses.jsonl")
    evaluate(Counting(), MemoryDataset.of_size(N), [EvenJudge()], run)
    assert len(asked) == 1


def test_damaged_lines_are_kept_as_they_were(run: Path) -> None:
    path = run / "responses.jsonl"
    garble(path)
    line = path.read_bytes().splitlines(keepends=True)[7]
    run_into(run)
    assert (run / "responses.jsonl.damaged").read_bytes() == line


def test_the_file_of_another_run_is_refused(run: Path) -> None:
    before = (run / "responses.jsonl").read_bytes().replace(b'"sample_id":"', b'"sample_id":"0')
    (run / "responses.jsonl").write_bytes(before)
    with pytest.raises(RunError, match=r"responses\.jsonl:1: .*the file is that of another run"):
        run_into(run)
    assert (run / "responses.jsonl").read_bytes() == before


def test_judging_names_damaged_answers_and_judges_damaged_judgements_again(
    run: Path, whole: Path
) -> None:
    zero_block(run / JUDGE)
    judge_run(run, EvenJudge())
    assert contents(run) == contents(whole)
    garble(run / "responses.jsonl")
    with pytest.raises(RunError, match=r"responses\.jsonl:8: .*The command that wrote the run"):
        judge_run(run, EvenJudge())
    with pytest.raises(RunError, match=r"responses\.jsonl:8: "):
        list(Run(run).responses())
