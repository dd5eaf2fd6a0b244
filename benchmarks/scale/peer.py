"""What a user would write without truing: Ray Data's readers, `map_batches` and writer.

    python benchmarks/scale/peer.py IN.jsonl OUT keywords

With `keywords` it looks for the same words as a regular expression; with the path of a Hugging Face
text classifier it runs transformers' pipeline. It cannot be resumed, and says nothing of what it lost.
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any


class Judge:
    """The callable of `map_batches`."""

    def __init__(self, kind: str) -> None:
        self._words = re.compile(r"\b(steal|murder|poison|bomb)\b", re.IGNORECASE)
        self._classify = None
        if kind != "keywords":
            from transformers import pipeline

            self._classify = pipeline("text-classification", model=kind, truncation=True)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Adds the column `flagged`."""
        texts = [str(text) for text in batch["response"]]
        if self._classify is None:
            batch["flagged"] = [bool(self._words.search(text)) for text in texts]
        else:
            batch["flagged"] = [label["label"] for label in self._classify(texts, batch_size=32)]
        return batch


def main() -> None:
    """Runs it and prints the seconds without the start of Ray."""
    import ray
    import ray.data

    source, out, kind = sys.argv[1:4]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    started = time.perf_counter()
    rows = ray.data.read_json(source, lines=True)
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=2)
    rows.map_batches(Judge, compute=pool, batch_size=256, fn_constructor_args=(kind,)).write_json(
        out
    )
    print(json.dumps({"seconds": round(time.perf_counter() - started, 2)}))
    ray.shutdown()


if __name__ == "__main__":
    main()
