"""Krippendorff's alpha against the krippendorff package, in its own virtual environment.

The package is under GPL-3.0-or-later and no dependency.
"""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
from tests.peers import peer_python

from truing.stats.agreement import krippendorff_alpha
from truing.stats.agreement_intervals import BootstrapOptions

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

# Reads lines of {"matrix": ..., "measurement": ...} and prints one JSON array of alphas, with null
# where the package refuses.
PEER_SCRIPT = """
import json, sys
import krippendorff
import numpy as np

def alpha(case):
    data, level = np.array(case["matrix"], float), case["measurement"]
    try:
        return float(krippendorff.alpha(reliability_data=data, level_of_measurement=level))
    except ValueError:
        return None

print(json.dumps([alpha(json.loads(line)) for line in sys.stdin]))
"""


def random_case(rng: np.random.Generator) -> dict[str, object]:
    """Raters who see a truth with noise, on whole or fractional grades, up to 60 % missing."""
    raters, items, grades = rng.integers(2, 9), rng.integers(2, 40), rng.integers(2, 9)
    truth = rng.integers(0, grades, items)
    matrix = np.clip(
        np.rint(truth + rng.normal(0, rng.uniform(0, 2), (raters, items))), 0, grades - 1
    )
    measurement = str(rng.choice(["nominal", "ordinal", "interval", "ratio"]))
    if rng.random() < 0.3:
        matrix = matrix * 0.37 + 0.11
    if measurement != "ratio" and rng.random() < 0.3:
        matrix = matrix - 3
    matrix[rng.random((raters, items)) < rng.uniform(0, 0.6)] = np.nan
    return {"matrix": matrix.tolist(), "measurement": measurement}


def test_alpha_equals_the_packages() -> None:
    rng = np.random.default_rng(2011)
    cases = [random_case(rng) for _ in range(200)]
    command = [peer_python("krippendorff"), "-W", "ignore", "-c", PEER_SCRIPT]
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
