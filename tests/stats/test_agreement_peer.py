"""Krippendorff's alpha against the krippendorff package (GPL-3.0-or-later), in a virtual environment of its own.

The environment is `TRUING_PEERS/krippendorff` where there is one, otherwise it is built for the test; see
benchmarks/engine/peers/README.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from truing.stats.agreement import BootstrapOptions, krippendorff_alpha

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

# Lines of {"matrix": ..., "measurement": ...} in, one JSON array of alphas out; null where the package refuses.
PEER = """
import json, sys
import krippendorff
import numpy as np

def alpha(case):
    data = np.array(case["matrix"], float)
    try:
        return float(krippendorff.alpha(reliability_data=data, level_of_measurement=case["measurement"]))
    except ValueError:
        return None

print(json.dumps([alpha(json.loads(line)) for line in sys.stdin]))
"""


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The python of an environment with krippendorff; skips (or, with CI=true, fails) where it cannot be built."""
    python = Path(os.environ.get("TRUING_PEERS") or ".") / "krippendorff" / "bin" / "python"
    if os.environ.get("TRUING_PEERS") and python.exists():
        return str(python.absolute())
    folder = tmp_path_factory.mktemp("peers") / "krippendorff"
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "krippendorff>=0.8",
    ]
    installed = subprocess.run(install, capture_output=True, text=True)
    if installed.returncode:
        reason = f"krippendorff cannot be installed: {installed.stderr[-500:]}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return str(python)


def random_case(random: np.random.Generator) -> dict[str, object]:
    """Raters who follow a truth more or less, on whole or fractional grades, with up to 60 percent missing."""
    raters, items, grades = random.integers(2, 9), random.integers(2, 40), random.integers(2, 9)
    truth = random.integers(0, grades, items)
    matrix = np.clip(
        np.rint(truth + random.normal(0, random.uniform(0, 2), (raters, items))), 0, grades - 1
    )
    measurement = str(random.choice(["nominal", "ordinal", "interval", "ratio"]))
    if random.random() < 0.3:
        matrix = matrix * 0.37 + 0.11
    if measurement != "ratio" and random.random() < 0.3:
        matrix = matrix - 3
    matrix[random.random((raters, items)) < random.uniform(0, 0.6)] = np.nan
    return {"matrix": matrix.tolist(), "measurement": measurement}


def test_alpha_equals_the_packages(peer: str) -> None:
    random = np.random.default_rng(2011)
    cases = [random_case(random) for _ in range(200)]
    command = [peer, "-W", "ignore", "-c", PEER]
    done = subprocess.run(
        command,
        input="\n".join(map(json.dumps, cases)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = json.loads(done.stdout)
    ours = [
        krippendorff_alpha(
            c["matrix"], c["measurement"], options=BootstrapOptions(draws=1)
        ).estimate
        for c in cases
    ]
    defined = [k for k, alpha in enumerate(ours) if not np.isnan(alpha)]
    assert len(defined) > 190
    assert {cases[k]["measurement"] for k in defined} == {"nominal", "ordinal", "interval", "ratio"}
    for k in defined:
        assert ours[k] == pytest.approx(expected[k], abs=1e-12), cases[k]
