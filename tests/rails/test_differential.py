"""Generated configurations on truing and on NeMo Guardrails in its own environment: every turn and every LLM call the same.

`TRUING_NEMO_PYTHON` names the python of an environment with nemoguardrails 0.24.1; `TRUING_NEMO_CASES` how many cases
(default 60), from seed `TRUING_NEMO_SEED` on. What NeMo answers by accident is left out by the generator (`QUIRKS`).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from generate import case
from peer_truing import run
from rails_cases import difference

HERE = Path(__file__).parent
pytestmark = pytest.mark.peers


@pytest.fixture
def peer() -> str:
    python = os.environ.get("TRUING_NEMO_PYTHON", "")
    if not python or not Path(python).is_file():
        word = "TRUING_NEMO_PYTHON names no python with nemoguardrails"
        if os.environ.get("CI") == "true":
            pytest.fail(word)
        pytest.skip(word)
    return python


@pytest.mark.timeout(1800)
def test_generated_configurations_behave_the_same(peer: str, conformance_dir: Path) -> None:
    count, seed = (
        int(os.environ.get("TRUING_NEMO_CASES", "60")),
        int(os.environ.get("TRUING_NEMO_SEED", "20000")),
    )
    cases = {made["id"]: made for made in map(case, range(seed, seed + count))}
    env = {**os.environ, "NEMO_GUARDRAILS_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        [peer, str(HERE / "peer_nemo.py"), str(conformance_dir)],
        input="\n".join(map(json.dumps, cases.values())),
        text=True,
        capture_output=True,
        env=env,
        check=True,
    )
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(theirs) == count
    found = {t["id"]: difference(t, run(cases[t["id"]])) for t in theirs}
    assert {k: v for k, v in found.items() if v is not None} == {}
    finished = sum("said" in t for t in theirs)
    assert finished > 0.8 * count, "the peer refuses too much of what is generated"
