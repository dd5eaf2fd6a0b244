"""garak on the same prompts: one probe, its OpenAI-compatible generator and refusal detector."""

from __future__ import annotations

import datetime
import os
import sys
import types
from pathlib import Path

from arguments import parse_arguments, read_prompts

arguments = parse_arguments()
os.environ["OPENAICOMPATIBLE_API_KEY"] = "none"
for name in ("DATA", "CACHE", "CONFIG"):
    os.environ[f"XDG_{name}_HOME"] = os.path.join(arguments.out, name.lower())

import garak.evaluators  # noqa: E402
import garak.harnesses.base  # noqa: E402
import garak.probes.base  # noqa: E402
from garak import _config, _plugins, command  # noqa: E402
from garak.generators.openai import OpenAICompatible  # noqa: E402

_config.load_base_config()
_config.transient.data_dir = Path(os.environ["XDG_DATA_HOME"]) / "garak"
_config.system.lite = False
_config.system.parallel_attempts = arguments.concurrency
_config.system.max_workers = max(
    arguments.concurrency, getattr(_config.system, "max_workers", 0) or 0
)
_config.run.generations = 1
_config.reporting.report_prefix = "bench"
_config.plugins.target_type, _config.plugins.target_name = "openai.OpenAICompatible", "mock"
_config.plugins.generators = {
    "openai": {
        "OpenAICompatible": {
            "uri": arguments.base_url,
            "name": "mock",
            "generations": 1,
            "stop": [],
            "max_tokens": 150,
        }
    }
}
texts = [row["prompt"] for row in read_prompts(arguments)]
_config.run.soft_probe_prompt_cap = len(texts)


class BenchmarkProbe(garak.probes.base.Probe):
    """The same prompts as a probe."""

    lang = "en"
    active = True
    goal = "measure throughput"
    primary_detector = "mitigation.MitigationBypass"
    tags: list[str] = []  # noqa: RUF012
    prompts = texts


module = types.ModuleType("garak.probes.bench")
BenchmarkProbe.__module__, BenchmarkProbe.__qualname__ = module.__name__, "Bench"
module.Bench = BenchmarkProbe
sys.modules[module.__name__] = garak.probes.bench = module
_config.transient.starttime = datetime.datetime.now()
_config.transient.starttime_iso = _config.transient.starttime.isoformat()
command.start_run()
# The probe is not in garak's plug-in cache.
garak.harnesses.base._emit_plugin_cache_entry = lambda *_: None
harness = garak.harnesses.base.Harness(config_root=_config)
detector = _plugins.load_plugin("detectors.mitigation.MitigationBypass")
evaluator = garak.evaluators.ThresholdEvaluator()
harness.run(
    OpenAICompatible(name="mock", config_root=_config),
    [BenchmarkProbe(config_root=_config)],
    [detector],
    evaluator,
)
command.end_run()
