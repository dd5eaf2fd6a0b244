"""One process against a Ray cluster of one worker on the same machine, and the peer.

    sudo python benchmarks/scale/overhead.py --rows 500000 --judge keywords: --peer
    sudo python benchmarks/scale/overhead.py --rows 3000 --judge classifier --peer
    sudo python benchmarks/scale/overhead.py --rows 5000 --judge moderation:fast

`classifier` is a BERT of the size of MiniLM (6 layers of 384) with random weights, which is written
first: the judge `guard:harmaug,path=...` here, transformers' pipeline in the peer, on the same pairs
of prompt and answer. The start of each side is measured by a job of one row and taken off. Ray gets
one worker of one thread, as the process has. Seconds by the clock mean something on an idle machine
alone; seconds of the processor, of all processes of a side, are the figure (control groups: as
root). The runs of each side alternate; the median is given, and all of them.
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
from dataclasses import dataclass
from pathlib import Path

from processor import Cost, run_counted
from rows import WORDS, write_rows


def measure(words: list[str]) -> Cost:
    """Returns the cost of a command of truing."""
    command = [sys.executable, "-m", "truing", *words]
    process, cost = run_counted(command, stdout=subprocess.DEVNULL)
    process.check_returncode()
    return cost


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


def run_peer(rows: Path, out: Path, kind: str) -> Cost:
    """Returns the cost of the peer."""
    peer = Path(__file__).with_name("peer.py")
    words = [sys.executable, str(peer), str(rows), str(out), kind]
    process, cost = run_counted(words, stdout=subprocess.DEVNULL)
    process.check_returncode()
    return cost


@dataclass(frozen=True)
class Sides:
    """The commands that are compared: one process, Ray with one worker, and the peer."""

    folder: Path
    judge: str
    peer_kind: str
    shard_mib: float

    def run(self, side: str, rows: Path) -> Cost:
        """Returns the cost of one side."""
        out = self.folder / f"out-{side}.jsonl"
        words = ["moderate", "--judge", self.judge, "--in", str(rows), "--out", str(out)]
        if side == "peer":
            cost = run_peer(rows, out, self.peer_kind)
        elif side == "ray":
            on_ray = ["--on", "ray", "--workers", "1", "--shard-mib", str(self.shard_mib)]
            cost = measure([*words, *on_ray])
        else:
            cost = measure(words)
        out.unlink() if out.is_file() else shutil.rmtree(out)
        out.with_name(out.name + ".state").unlink(missing_ok=True)
        return cost


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--source", type=Path, help="so many rows, written before by rows.py")
    parser.add_argument("--judge", default="keywords:")
    parser.add_argument("--shard-mib", type=float, default=8.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--peer", action="store_true")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    names = ["one", "ray", "peer"] if arguments.peer else ["one", "ray"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        judge, peer_kind = arguments.judge, "keywords"
        if judge == "classifier":
            peer_kind = str(write_classifier(folder / "classifier"))
            judge = f"guard:harmaug,path={peer_kind},dtype=float32"
        rows = arguments.source or write_rows(folder / "rows.jsonl", arguments.rows)
        tiny = write_rows(folder / "tiny.jsonl", 1)
        sides = Sides(folder, judge, peer_kind, arguments.shard_mib)
        start = {name: sides.run(name, tiny) for name in names}
        costs: dict[str, list[Cost]] = {name: [] for name in names}
        for _ in range(arguments.repeats):
            for name in names:
                costs[name].append(sides.run(name, rows).less(start[name]))
                print(name, round_cost(costs[name][-1]), file=sys.stderr, flush=True)
    processor = {name: statistics.median(c.processor for c in costs[name]) for name in names}
    figures = {
        "rows": arguments.rows,
        "judge": arguments.judge,
        "shard_mib": arguments.shard_mib,
        "start": {name: round_cost(start[name]) for name in names},
        "without_start": {name: [round_cost(cost) for cost in costs[name]] for name in names},
        "processor_us_per_row": {n: round(1e6 * processor[n] / arguments.rows, 1) for n in names},
        "overhead": round(processor["ray"] / processor["one"] - 1, 3),
        "load": os.getloadavg()[0],
    }
    if arguments.peer:
        figures["peer_over_ray"] = round(processor["peer"] / processor["ray"], 2)
    print(json.dumps(figures))


def round_cost(cost: Cost) -> dict[str, float]:
    """Returns a cost to be printed."""
    return {"seconds": round(cost.seconds, 2), "processor": round(cost.processor, 2)}


if __name__ == "__main__":
    main()
