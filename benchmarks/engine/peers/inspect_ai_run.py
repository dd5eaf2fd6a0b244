"""Inspect AI on the same prompts: generate() and a string scorer, its normal log."""

from __future__ import annotations

from arguments import parse_arguments, read_prompts
from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

arguments = parse_arguments(("--no-realtime", {"action": "store_true"}))
data = MemoryDataset(
    [Sample(id=r["id"], input=r["prompt"], target="can't help") for r in read_prompts(arguments)]
)
model = get_model(
    "openai-api/mock/mock", base_url=arguments.base_url, api_key="none", memoize=False
)
options = {"log_realtime": False} if arguments.no_realtime else {}
(log,) = inspect_eval(
    Task(dataset=data, solver=generate(), scorer=includes(), name="bench"),
    model=model,
    max_connections=arguments.concurrency,
    max_samples=arguments.concurrency,
    log_dir=arguments.out,
    display="none",
    **options,
)
assert log.status == "success", log.error
assert log.results is not None
assert log.results.completed_samples == len(data)
