"""What Ray Data is told before it is imported; shards on a cluster: `test_moderate_on_ray`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.bulk.ray_marks import on_ray
from tests.requirements import require_package

CLAIM = "RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S"
READ_CLAIM = """
from truing.bulk.ray_shards import _import_ray_data
_import_ray_data()
from ray.data._internal.cluster_autoscaler import default_cluster_autoscaler_v2 as autoscaler
print(autoscaler.DefaultClusterAutoscalerV2.AUTOSCALING_REQUEST_EXPIRE_TIME_S)
"""


@on_ray
@pytest.mark.parametrize(("set_by_user", "seconds"), [({}, "30"), ({CLAIM: "77"}, "77")])
def test_the_claim_of_a_dead_driver_ends_soon(
    root: Path, set_by_user: dict[str, str], seconds: str
) -> None:
    """Ray Data reads the setting when it is imported; one of the user's own stays."""
    require_package("ray")
    environment = {k: value for k, value in os.environ.items() if k != CLAIM}
    environment |= {"PYTHONPATH": str(root / "src"), **set_by_user}
    words = [sys.executable, "-c", READ_CLAIM]
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-1] == seconds
