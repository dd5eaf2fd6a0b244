"""Generated configurations on truing and on NeMo Guardrails: equal replies, equal LLM calls.

`TRUING_NEMO_CASES` is the number of cases (default 60), with seeds from `TRUING_NEMO_SEED` on. What
NeMo answers by accident is left out by the generator (`case_generator.QUIRKS`).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from case_generator import generate_case
from peer_truing import run_generated_case
from rails_cases import describe_difference
from tests.peers import peer_python

FOLDER = Path(__file__).parent
pytestmark = pytest.mark.peers


@pytest.mark.timeout(1800)
def test_generated_configurations_behave_the_same(conformance_dir: Path) -> None:
    count = int(os.environ.get("TRUING_NEMO_CASES", "60"))
    first_seed = int(os.environ.get("TRUING_NEMO_SEED", "20000"))
    cases = {case["id"]: case for case in map(generate_case, range(first_seed, first_seed + count))}
    env = {**os.environ, "NEMO_GUARDRAILS_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    process = subprocess.run(
        [peer_python("nemoguardrails-0.24"), str(FOLDER / "peer_nemo.py"), str(conformance_dir)],
        input="\n".join(map(json.dumps, cases.values())),
        text=True,
        capture_output=True,
        env=env,
        check=True,
    )
    peer_results = [json.loads(line) for line in process.stdout.splitlines()]
    assert len(peer_results) == count
    differences: dict[str, str] = {}
    for result in peer_results:
        difference = describe_difference(result, run_generated_case(cases[result["id"]]))
        if difference is not None:
            differences[result["id"]] = difference
    assert differences == {}
    finished = sum("replies" in result for result in peer_results)
    assert finished > 0.8 * count, "NeMo refuses too many of the generated cases"
