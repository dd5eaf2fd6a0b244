"""The process of lm-evaluation-harness, in its own environment: the same figures and files."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path


def main(tasks: Path, name: str, model_path: str, out: Path, batch: str) -> None:
    """Evaluates `TASKS/NAME.yaml` with the model in a folder."""
    os.environ.update(
        HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=str(tasks / "cache"), TOKENIZERS_PARALLELISM="true"
    )
    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = HFLM(pretrained=model_path, dtype="float32", device="cpu", batch_size=int(batch))
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    result = lm_eval.simple_evaluate(
        model=model,
        tasks=[name],
        task_manager=manager,
        num_fewshot=0,
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = sorted(result["samples"][name], key=lambda s: s["doc_id"])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "cpu": usage.ru_utime + usage.ru_stime,
        "gb": usage.ru_maxrss / 1e6,
        "sums": [
            [float(r[0][0]) if isinstance(r[0], (list, tuple)) else float(r[0]) for r in s["resps"]]
            for s in samples
        ],
        "acc": [s["acc"] for s in samples],
        "acc_norm": [s["acc_norm"] for s in samples],
        "version": lm_eval.__version__,
    }
    out.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]), sys.argv[5])
