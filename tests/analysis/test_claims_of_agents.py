"""What is claimed of agents, whose injected tasks are attacked and whose harmful ones are plain."""

from __future__ import annotations

from pathlib import Path

import truing


def test_a_question_that_no_attacked_prompt_asks_is_decided_on_plain_ones(tmp_path: Path) -> None:
    before, after = (
        truing.evaluate(
            f"agent,of=(scripted-agent,follow=0.5,harm={harm})",
            "builtin:agents,world=mail",
            ["state:harm"],
            tmp_path / f"harm{harm}",
        )
        for harm in (1, 0)
    )
    fell = next(c for c in truing.compare(before, after).claims if c.claim == "fell")
    assert fell.question == "attack_success"
    assert "on plain prompts" in fell.reason
    assert fell.estimate == -1.0
