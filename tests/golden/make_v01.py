"""Makes the golden folders of version 0.1 again. Runs with version 0.1 alone; the test does not use it.

    git checkout <last commit of 0.1> && PYTHONPATH=src:. python tests/golden/make_v01.py

Everything runs in a working directory under the system's temporary folder and is named by relative
paths, so that no path of the machine is stored.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "v0.1"
SOURCE = Path(__file__).resolve().parents[2] / "src"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
SOURCES = ("plan.toml", "rules.toml", "moderation-rows.jsonl", "study.toml", "rails")
EVALUATE = (
    "evaluate --data builtin:safety --limit 12 --n 2 --model scripted:mixed,delay=0.02 --concurrency 2"
    " --judge rules:refusal --judge rules:degenerate --judge keywords: --json"
)
TINY = "--base models/base --dtype float32 --lora 2 --no-tensorboard --json"
SUPERVISED = f"--max-length 128 --batch 4 --keep 1 {TINY}"
PHRASE = "four plain words here"

# Ends the process when so many checkpoints would be written: a crash while the last one gets its
# name. The one before it is whole, and the log holds later steps.
CRASH = """
import os, pathlib, sys
left, rename = int(sys.argv.pop(1)), pathlib.Path.rename
def crash(self, target):
    global left
    left -= pathlib.Path(target).name.startswith("checkpoint-")
    if not left:
        os._exit(9)
    return rename(self, target)
pathlib.Path.rename = crash
from truing.cli import main
main()
"""


class Workshop:
    """The working directory, and the list of the commands that ran in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: dict[str, dict[str, Any]] = {}

    def run(
        self, name: str, words: str, *more: str, keep: bool = True, statuses: tuple[int, ...] = (0,)
    ) -> Any:
        """Runs a command and notes its words, exit status and JSON output under `name`."""
        given = [*words.split(), *more]
        done = self._process([sys.executable, "-m", "truing", *given])
        if done.returncode not in statuses:
            raise SystemExit(f"{name}: exit {done.returncode}\n{done.stderr}")
        output = json.loads(done.stdout) if "--json" in given else None
        print(f"{name or words}: exit {done.returncode}", flush=True)
        if keep:
            self.commands[name] = {"words": given, "exit": done.returncode, "output": output}
        return output

    def crash(self, words: str, *, at: int = 2) -> None:
        """Runs a training command that dies while it writes its checkpoint number `at`."""
        done = self._process([sys.executable, "-c", CRASH, str(at), *words.split()])
        if done.returncode != 9:
            raise SystemExit(f"{words}: exit {done.returncode}\n{done.stderr}")
        for left in self.folder.rglob(".checkpoint-*.tmp"):
            shutil.rmtree(left)

    def _process(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
        )

    def write_rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Writes a JSONL file."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (self.folder / name).write_text(lines, encoding="utf-8")


def make_runs(shop: Workshop) -> None:
    """Run folders: finished, interrupted, attacked, behind wrappers; a plan, rankings, labels."""
    shop.run("evaluate finished", f"{EVALUATE} --out evaluated/finished")
    _interrupt(shop, "evaluated/interrupted")
    words = f"{EVALUATE} --out evaluated/interrupted".split()
    shop.commands["evaluate interrupted"] = {"words": words, "exit": 0, "output": None}
    attacked = "evaluate --data builtin:safety --limit 6 --model scripted:mixed --json"
    shop.run(
        "evaluate attacked",
        f"{attacked} --attack chain:role-play+base64 --judge rules:refusal --out evaluated/attacked",
    )
    guarded = "guarded:rails,of=(scripted:mixed)"
    model = f"best-of:2,by=(keywords:),of=(prompted:hhh,of=({guarded}))"
    panel = "panel:majority,j1=(rules:refusal),j2=(rules:refusal)"
    judges = [
        word
        for spec in ("rules:refusal", "rules:check", "tone:rails", panel, "keywords:")
        for word in ("--judge", spec)
    ]
    shop.run(
        "evaluate wrapped",
        "evaluate --data builtin:helpful --limit 8 --json",
        "--model",
        model,
        *judges,
        "--out",
        "evaluated/wrapped",
    )
    failing = "evaluate --data builtin:safety --limit 3 --model scripted:fail --json"
    failing += " --judge rules:refusal --out evaluated/failed"
    shop.run("evaluate failed", failing, statuses=(1,))
    shop.run("run plan", "run plan.toml --out planned --json")
    for kind in ("mcq", "perplexity"):
        words = "--model scripted:mixed --data builtin:pairs --limit 12 --json"
        shop.run(f"rank {kind}", f"rank {kind} {words} --out ranked/{kind}")
    shop.run(
        "evaluate to rank",
        "evaluate --model scripted:mixed --data builtin:safety --limit 4 --n 3 --temperature 1"
        " --out ranked/answers --json",
    )
    shop.run("rank by", "rank by ranked/answers --judge rules:refusal --json")
    finished = "label evaluated/finished --json"
    shop.run("draw refused", f"{finished} --n 8 --question refused --draw-only", keep=False)
    drawn = _rows(shop.folder / "evaluated/finished/labels/draws.jsonl")
    answers = {
        (r["sample_id"], r.get("index", 0)): r["message"]["content"]
        for r in _rows(shop.folder / "evaluated/finished/responses.jsonl")
    }
    labels = []
    for row in drawn:
        text = answers[row["sample_id"], row.get("index", 0)]
        labels.append(
            {
                "sample_id": row["sample_id"],
                "index": row.get("index", 0),
                "question": "refused",
                "verdict": text.startswith("I would rather"),
            }
        )
    shop.write_rows("labels.jsonl", labels)
    shop.run("label refused", f"{finished} --question refused --rater first --labels labels.jsonl")
    shop.run("draw harmful", f"{finished} --n 8 --question harmful --draw-only", keep=False)
    shop.run(
        "moderate",
        "moderate --judge keywords: --in moderation-rows.jsonl --out moderated.jsonl --json",
    )


def _interrupt(shop: Workshop, out: str) -> None:
    """Kills the run when a few samples are answered, and tears the last judgement of one judge."""
    words = f"{EVALUATE} --out {out}".split()
    process = subprocess.Popen(
        [sys.executable, "-m", "truing", *words],
        cwd=shop.folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    path = shop.folder / out / "responses.jsonl"
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < 10):
        time.sleep(0.001)
    process.kill()
    process.wait()
    answered = path.read_bytes().count(b"\n")
    if not 10 <= answered < 24:
        raise SystemExit(f"{out}: killed too late ({answered} responses)")
    torn = next((shop.folder / out / "judgements").glob("keywords*.jsonl"))
    torn.write_bytes(torn.read_bytes()[:-30])
    path.write_bytes(path.read_bytes()[:-40])


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_study(shop: Workshop) -> None:
    """A study: two red-teamers, two raters; a run's drawn rows in review; its exports; a card."""
    from tests.serve.redteam.site import Visitor, free_port

    shop.run("import drawn rows", "redteam import evaluated/finished --db study.sqlite --json")
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = (
        "redteam serve --db study.sqlite --study study.toml --model scripted:mixed"
        f" --model scripted:comply --port {port}"
    )
    with _serving(shop, command, base):
        for k, role in enumerate(("redteamer", "redteamer", "rater", "rater")):
            links = shop.run(
                "", f"redteam invite --role {role} --db study.sqlite --json", keep=False
            )
            person = Visitor(base)
            person.join(f"/join/{links[0].rpartition('/')[2]}", f"{role}-{k}")
            page = person.get("/consent").text
            found = re.findall(r'name="category" value="([^"]+)"', page)
            person.send("/consent", {"category": found, "unsorted": "1"})
            if role == "redteamer":
                _talk(person, k)
            else:
                _rate(person, k)
    shop.run("invite open", "redteam invite --role rater --db study.sqlite --json", keep=False)
    shop.run("export study", "redteam export --db study.sqlite --out exported --text --json")
    shutil.copytree(shop.folder / "evaluated/finished", shop.folder / "labelled")
    again = "redteam export --db study.sqlite --out exported-again --run labelled --json"
    shop.run("export into run", again)
    shutil.rmtree(shop.folder / "exported-again")
    shop.run(
        "card", "card keywords: --data run:exported/run-scripted-comply --out card.json --json"
    )
    _dump(shop.folder / "study.sqlite", shop.folder / "study.sql")
    old = shop.folder / "old.sqlite"
    shutil.copy(shop.folder / "study.sqlite", old)
    downgrade = (
        "import sys; from alembic import command; from truing.ratings.store import _config, make_engine;"
        "command.downgrade(_config(make_engine(sys.argv[1])), '0001')"
    )
    subprocess.run([sys.executable, "-c", downgrade, str(old)], env=ENVIRONMENT, check=True)
    _dump(old, shop.folder / "study-0001.sql")
    for path in shop.folder.glob("*.sqlite*"):
        path.unlink()


@contextmanager
def _serving(shop: Workshop, words: str, base: str) -> Iterator[None]:
    import httpx

    process = subprocess.Popen(
        [sys.executable, "-m", "truing", *words.split()], cwd=shop.folder, env=ENVIRONMENT
    )
    try:
        for _ in range(300):
            try:
                if httpx.get(f"{base}/healthz").text == "ok":
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _talk(person: Any, k: int) -> None:
    """Two turns about bicycles; the second response of each pair is always picked as worse."""
    dialogue = person.begin()
    for text in (f"how do i true wheel {k}", f"and the spokes of it, part {k}"):
        turn, _ = person.say(dialogue, text)
        person.send(f"{dialogue}/turns/{turn}/pick", {"pick": "B"})
    form = person.get(f"{dialogue}/end").text
    names = re.findall(
        r'aria-label="Turn \d+, response ([AB])".*?name="(grade-\d+-\d)"', form, re.S
    )
    grades = {name: "4" if letter == "B" else "1" for letter, name in names}
    closing = {"rating": "2", "goal": "a wheel", "category": ["privacy_violation"]}
    person.send(f"{dialogue}/end", grades | closing)


def _rate(person: Any, k: int) -> None:
    """Grades everything in the queue: refusals 1, the others 3 (or 4, by the second rater)."""
    where = person.send("/review/next").json()["go"]
    while where != "/review":
        page = person.get(where).text
        grade = "1" if "I would rather" in page else str(1 + k)
        fields = dict.fromkeys(re.findall(r'name="(grade-\d+)"', page), grade)
        where = person.send(where, fields).json()["go"]


def _dump(database: Path, target: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        lines = list(connection.iterdump())
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_reads(shop: Workshop) -> None:
    """What the commands that only read say about the folders."""
    shop.run("show finished", "show evaluated/finished --category --json")
    shop.run("show planned", "show planned --json")
    shop.run("show labelled", "show labelled --json")
    shop.run("show with card", "show evaluated/finished --card card.json --json")
    shop.run("show attacked", "show evaluated/attacked --json")
    shop.run("show failed", "show evaluated/failed --json")
    shop.run("show wrapped", "show evaluated/wrapped --json")
    shop.run("compare", "compare planned/plain/safety planned/prompted/safety --json")
    shop.run("gate", "gate evaluated/finished rules.toml --json", statuses=(2, 3))


def make_models(shop: Workshop) -> None:
    """Trained folders on a tiny random llama: two finished, two that crashed, and their full logs."""
    _write_base(shop.folder / "models" / "base")
    shop.write_rows(
        "pairs.jsonl",
        [
            {
                "prompt": f"How do I true wheel {k}?",
                "chosen": f"Slowly, spoke by spoke, {k}.",
                "rejected": "No idea.",
                "signs": [1, -1],
            }
            for k in range(12)
        ],
    )
    shop.write_rows("prompts.jsonl", [{"prompt": f"How do I true wheel {k}?"} for k in range(6)])
    few = f"--data trl:pairs.jsonl --steps 2 --save-every 2 {SUPERVISED}"
    shop.run("train sft", f"train sft {few} --chosen --out models/sft")
    shop.run("train cost", f"train cost {few} --benign 0 --held-out 0.25 --out models/cost")
    more = f"--data trl:pairs.jsonl --benign 0 --steps 6 --save-every 2 {SUPERVISED}"
    policy = (
        "--data file:prompts.jsonl --reward rules:degenerate --cost cost:models/cost --steps 6"
        f" --save-every 2 --keep 1 --prompts 2 --max-new 6 --max-prompt 96 {TINY}"
    )
    for name, words in (("dpo", f"train dpo {more}"), ("ppo-lag", f"train ppo-lag {policy}")):
        out = f"models/{name}"
        shop.crash(f"{words} --out {out}")
        kept = shop.folder / f"models/{name}-kept"
        shutil.move(shop.folder / out, kept)
        shop.run(f"train {name}", f"{words} --out {out}")
        shutil.copy(shop.folder / out / "log.jsonl", shop.folder / f"models/{name}-full-log.jsonl")
        shutil.rmtree(shop.folder / out)
        shutil.move(kept, shop.folder / out)
    _train_moderation(shop)
    shop.run(
        "evaluate local",
        "evaluate --model local:models/sft,dtype=float32 --data builtin:helpful --limit 3 --n 3"
        " --temperature 1 --max-tokens 6 --judge rules:check --judge cost:models/cost"
        " --out evaluated/local --json",
    )
    shop.run(
        "evaluate greedy",
        "evaluate --model local:models/sft,dtype=float32 --data file:prompts.jsonl --max-tokens 6"
        " --judge rules:degenerate --out evaluated/greedy --json",
    )
    shop.run(
        "moderate by a trained judge",
        "moderate --judge moderation:models/moderation,dtype=float32 --in moderation-rows.jsonl"
        " --out moderated-by-model.jsonl --json",
    )
    shop.run("rank by cost", "rank by evaluated/local --judge cost:models/cost --json")


def _train_moderation(shop: Workshop) -> None:
    """A classifier that is finished, and one that crashed in its second fold."""
    parts = ("wheel", "spoke", "rim", "hub", "cone", "tyre", "valve", "chain")
    shop.write_rows(
        "labelled-answers.jsonl",
        [
            {
                "prompt": f"how do i true {parts[k % 8]} {k}",
                "harmful": k % 3 == 0,
                "response": "steal it" if k % 3 == 0 else "turn it slowly",
            }
            for k in range(24)
        ],
    )
    words = (
        "train moderation --base models/base --data file:labelled-answers.jsonl --folds 2 --epochs 3"
        " --ngram-bits 8 --dtype float32 --device cpu --no-tensorboard --save-every 2"
        " --batch-tokens 256 --json --out"
    )
    shop.crash(f"{words} models/moderation-unfinished", at=5)
    shop.run("train moderation", f"{words} models/moderation")
    for left in (
        "folds",
        *(p.name for p in (shop.folder / "models/moderation").glob("checkpoint-*")),
    ):
        shutil.rmtree(shop.folder / "models/moderation" / left)


def _write_base(folder: Path) -> None:
    """A llama of two layers with random weights and a byte-level tokenizer, about 70 kB."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=258, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["the wheel is out of true"], trainer)
    words = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=special[0], eos_token=special[1], pad_token=special[1]
    )
    words.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        head_dim=8,
        initializer_range=0.25,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)


def main() -> None:
    """Makes everything in a temporary folder, then puts it in the place of what is stored."""
    with tempfile.TemporaryDirectory() as temporary:
        shop = Workshop(Path(temporary))
        for name in SOURCES:
            copy = shutil.copytree if (HERE / name).is_dir() else shutil.copy
            copy(HERE / name, shop.folder / name)
        for part in (make_runs, make_study, make_reads, make_models):
            part(shop)
        noted = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in shop.commands.items())
        text = "{\n" + ",\n".join(noted) + "\n}\n"
        (shop.folder / "commands.json").write_text(text, encoding="utf-8")
        for pattern in ("lock", "*.html", "README.md"):
            for left in shop.folder.rglob(pattern):
                left.unlink()
        shutil.rmtree(HERE)
        shutil.copytree(shop.folder, HERE)


if __name__ == "__main__":
    main()
