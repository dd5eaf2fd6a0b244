"""The live view of an RL run."""

from __future__ import annotations

import io

from rich.console import Console

from truing.cli.training_monitor import TrainingMonitor, format_step, sparkline


def test_sparkline() -> None:
    assert sparkline([0.0, 1.0, 2.0]) == "▁▅█"
    assert sparkline([1.0, 1.0]) == "▄▄"
    assert sparkline([]) == ""


def test_the_live_view_shows_metrics_and_warnings() -> None:
    live = TrainingMonitor("ppo-lag:run", 9, threshold=0.1, quiet=True)
    for step in range(1, 4):
        row = {"step": step, "reward_mean": step, "episode_cost": 0.5, "lambda": 1.0 + step}
        live({**row, "warning": "look" if step == 2 else ""})
    console = Console(record=True, width=120)
    console.print(live.render())
    text = console.export_text()
    assert "step 3/9" in text
    assert "! step 2: look" in text
    assert "▁▅█" in text


def test_names_and_warnings_cannot_act_on_the_terminal() -> None:
    live = TrainingMonitor("ppo:\x1b[2Jrun [/red]", 9, quiet=True)
    live({"step": 1, "reward_mean": 1.0, "warning": "\x1b]52;c;eA==\x07"})
    stream = io.StringIO()
    Console(file=stream, width=120, force_terminal=True, color_system=None).print(live.render())
    assert "\x1b[2J" not in stream.getvalue()
    assert "\x1b]52" not in stream.getvalue()
    assert "ppo:\\x1b[2Jrun [/red]" in stream.getvalue()


def test_line_of_a_step() -> None:
    assert (
        format_step({"step": 3, "reward_mean": 1.0, "lambda": 2.0}, 9) == "step 3/9: reward 1, λ 2"
    )
