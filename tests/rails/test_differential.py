"""Generated configurations on truing and on NeMo Guardrails: equal replies, equal LLM calls.

`TRUING_NEMO_PYTHON` is the python of an environment with nemoguardrails 0.24.1;
`TRUING_NEMO_CASES` the number of cases (default 60), with seeds from `TRUING_NEMO_SEED` on. What
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
from tests.requirements import require_variable, skip_or_fail

FOLDER = Path(__file__).parent
pytestmark = pytest.mark.peers


@pytest.fixture
def nemo_python() -> str:
    python = require_variable("TRUING_NEMO_PYTHON")
    if not Path(python).is_file():
        skip_or_fail(f"TRUING_NEMO_PYTHON names no python with nemoguardrails: {python}")
    return python


@pytest.mark.timeout(1800)
def test_generated_configurations_behave_the_same(nemo_python: str, conformance_dir: Path) -> None:
    count = int(os.environ.get("TRUING_NEMO_CASES", "60"))
    first_seed = int(os.environ.get("TRUING_NEMO_SEED", "20000"))
    cases = {case["id"]: case for case in map(generate_case, range(first_seed, first_seed + count))}
    env = {**os.environ, "NEMO_GUARDRAILS_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    process = subprocess.run(
        [nemo_python, str(FOLDER / "peer_nemo.py"), str(conformance_dir)],
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
