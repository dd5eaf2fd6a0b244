"""The log has one line per step, also after a resume, and the same numbers in TensorBoard."""

from __future__ import annotations

from pathlib import Path

from truing.train.training_log import TrainingLog, read_last_step, read_log


def test_the_log_has_every_step_once(tmp_path: Path) -> None:
    logged: list[dict[str, object]] = []
    log = TrainingLog(tmp_path, on_log=logged.append)
    for step in (1, 2, 3):
        log.write(step, {"loss": 1 / step, "bad": float("nan"), "none": None})
    log.close()
    log.close()
    with (tmp_path / "log.jsonl").open("ab") as stream:
        stream.write(b'{"step":4,"lo')  # a line that a crash cut off

    resumed = TrainingLog(tmp_path, first=3, tensorboard=False)  # the checkpoint is of step 2
    resumed.write(3, {"loss": 9.0})
    resumed.close()
    rows = list(read_log(tmp_path))
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[2]["loss"] == 9.0 and rows[0]["bad"] == "nan" and "none" not in rows[0]
    assert read_last_step(tmp_path) == 3 and len(logged) == 3
    assert rows[2]["seconds"] >= rows[1]["seconds"]

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [scalar.step for scalar in events.Scalars("loss")] == [1, 2, 3]


def test_a_folder_without_a_log_has_no_steps(tmp_path: Path) -> None:
    assert read_last_step(tmp_path) == 0 and list(read_log(tmp_path)) == []
