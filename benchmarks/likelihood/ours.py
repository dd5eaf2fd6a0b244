"""truing's process: scores every choice of a task; writes the sums, CPU time and peak memory."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from pathlib import Path


def main(tasks: Path, name: str, model_path: str, out: Path) -> None:
    """Scores `TASKS/NAME.jsonl` with the model in a folder."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    from truing.models.local import LocalModel

    model = LocalModel.load(model_path, dtype="float32", device="cpu")
    rows = [
        json.loads(line)
        for line in (tasks / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]

    async def score() -> list[list[list[float]]]:
        requests = (model.logprobs(r["query"], [f" {c}" for c in r["choices"]]) for r in rows)
        return list(await asyncio.gather(*requests))

    logprobs = asyncio.run(score())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "cpu": usage.ru_utime + usage.ru_stime,
        "gb": usage.ru_maxrss / 1e6,
        "sums": [[sum(c) for c in row] for row in logprobs],
        "tokens": [[len(c) for c in row] for row in logprobs],
    }
    out.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
