"""What a user would write without truing: Ray Data's readers, `map_batches` and writer.

    python benchmarks/scale/peer.py IN.jsonl OUT keywords

With `keywords` it looks for the words of `keywords:` as regular expressions, one for each category;
with the path of a Hugging Face text classifier it runs transformers' pipeline on pairs of prompt and
answer, cut at the window of the classifier. It cannot be resumed, undoes no disguise of a word, cuts
long texts, and says nothing of what it lost.
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
        self._classify = None
        self._words: dict[str, re.Pattern[str]] = {}
        if kind == "keywords":
            from truing.judges.keywords import BUILTIN

            for category, words in BUILTIN.items():
                phrases = "|".join(map(re.escape, words))
                self._words[category] = re.compile(rf"\b(?:{phrases})\b", re.IGNORECASE)
        else:
            from transformers import pipeline

            self._classify = pipeline("text-classification", model=kind, truncation=True)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Adds the column `flagged`."""
        texts = [str(text) for text in batch["response"]]
        if self._classify is None:
            batch["flagged"] = [
                any(pattern.search(text) for pattern in self._words.values()) for text in texts
            ]
        else:
            pairs = [{"text": str(p), "text_pair": t} for p, t in zip(batch["prompt"], texts)]
            labels = self._classify(pairs, batch_size=32)
            batch["flagged"] = [label["label"] == "LABEL_1" for label in labels]
        return batch


def main() -> None:
    """Runs it and prints the seconds without the start of Ray."""
    import ray
    import ray.data

    source, out, kind = sys.argv[1:4]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    started = time.perf_counter()
    rows = ray.data.read_json(source, lines=True)
    pool = ray.data.ActorPoolStrategy(size=1)
    rows.map_batches(Judge, compute=pool, batch_size=256, fn_constructor_args=(kind,)).write_json(
        out
    )
    print(json.dumps({"seconds": round(time.perf_counter() - started, 2)}))
    ray.shutdown()


if __name__ == "__main__":
    main()
