"""One process against a Ray cluster of one worker on the same machine, and the peer; seconds.

    python benchmarks/scale/overhead.py --rows 500000 --judge keywords: --peer
    python benchmarks/scale/overhead.py --rows 3000 --judge classifier --peer
    python benchmarks/scale/overhead.py --rows 5000 --judge moderation:fast

`classifier` is a BERT of the size of MiniLM (6 layers of 384) with random weights, which is written
first: the judge `guard:harmaug,path=...` here, transformers' pipeline in the peer, on the same pairs
of prompt and answer. The start of each side is measured by a job of one row and taken off. Ray gets
one worker of one thread, as the process has. Run it on an idle machine; with a load it shows that
the scripts run. The runs of each side alternate; the median is given, and all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows import WORDS, write_rows


def measure(words: list[str]) -> float:
    """Returns the seconds of a command of truing."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "truing", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def write_classifier(folder: Path) -> Path:
    """Writes a classifier of two labels with random weights, and a tokenizer of words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", ",", *sorted({w.strip(",") for w in WORDS})]
    raw = Tokenizer(models.WordLevel({n: i for i, n in enumerate(names)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=512,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(names),
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=12,
        num_labels=2,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def run_peer(rows: Path, out: Path, kind: str) -> float:
    """Returns the seconds of the peer, without the start of Ray."""
    peer = Path(__file__).with_name("peer.py")
    words = [sys.executable, str(peer), str(rows), str(out), kind]
    printed = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds: float = json.loads(printed.splitlines()[-1])["seconds"]
    return seconds


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--judge", default="keywords:")
    parser.add_argument("--shard-mib", type=float, default=8.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--peer", action="store_true")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        judge, peer_kind = arguments.judge, "keywords"
        if judge == "classifier":
            peer_kind = str(write_classifier(folder / "classifier"))
            judge = f"guard:harmaug,path={peer_kind},dtype=float32"
        rows = write_rows(folder / "rows.jsonl", arguments.rows)
        tiny = write_rows(folder / "tiny.jsonl", 1)
        on_ray = ["--on", "ray", "--workers", "1", "--shard-mib", str(arguments.shard_mib)]

        def moderate(source: Path, *flags: str) -> float:
            out = folder / ("out" if flags else "out.jsonl")
            seconds = measure(
                ["moderate", "--judge", judge, "--in", str(source), "--out", str(out), *flags]
            )
            out.unlink() if out.is_file() else shutil.rmtree(out)
            out.with_name(out.name + ".state").unlink(missing_ok=True)
            return seconds

        start_one, start_ray = moderate(tiny), moderate(tiny, *on_ray)
        start_peer = run_peer(tiny, folder / "peer-tiny", peer_kind) if arguments.peer else 0.0
        one: list[float] = []
        ray: list[float] = []
        peer: list[float] = []
        for number in range(arguments.repeats):
            one.append(moderate(rows) - start_one)
            ray.append(moderate(rows, *on_ray) - start_ray)
            if arguments.peer:
                seconds = run_peer(rows, folder / f"peer-{number}", peer_kind)
                peer.append(round(seconds - start_peer, 2))
        figures = {
            "rows": arguments.rows,
            "judge": arguments.judge,
            "shard_mib": arguments.shard_mib,
            "start_s": [round(start_one, 1), round(start_ray, 1), round(start_peer, 1)],
            "one_process_s": [round(seconds, 2) for seconds in one],
            "ray_one_worker_s": [round(seconds, 2) for seconds in ray],
            "overhead": round(statistics.median(ray) / statistics.median(one) - 1, 3),
            "load": os.getloadavg()[0],
        }
        if peer:
            figures["peer_s"] = peer
            figures["peer_over_ray"] = round(statistics.median(peer) / statistics.median(ray), 2)
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
