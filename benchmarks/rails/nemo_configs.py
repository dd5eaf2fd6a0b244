"""How the configurations of NeMo Guardrails' own repository run: the same, otherwise, or not.

    pip download --no-deps --no-binary :all: nemoguardrails==0.17.0 && tar xzf nemoguardrails-*.gz
    python benchmarks/rails/nemo_configs.py nemoguardrails-0.17.0 --out table.json \\
        [--peer VENV/bin/python]

The folder is an unpacked sdist, or a checkout. Each configuration is checked, loaded and built as
the operator of `truing serve --trust-code` would, with a scripted model in front of it; no request
leaves the process. The classes:

- identical: builds, and no setting of it runs otherwise than in NeMo Guardrails;
- difference: builds, and every setting that runs otherwise is named with its line;
- refused: a PlanError names the reason;
- crash: any other exception;
- silent: a key that truing accepts without knowing what it does, or (with --peer) a scripted
  conversation that goes otherwise than in NeMo Guardrails although no difference is named.

With --peer, an environment with nemoguardrails loads the same folders and holds the same scripted
conversations. Actions whose Python is not in the sdist (tests/ and docs/) are missing on both
sides. The samples of single statements of Colang 2 (`language_reference`) are counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from truing.core.errors import UserError
from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.rails.config.key_effects import find_effect, iterate_values
from truing.rails.config.loader import RailsConfig, list_rail_flow_names
from truing.rails.config.service_addresses import find_service_addresses
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder
from truing.rails.static.check import check_rails_config

PEER_SCRIPT = Path(__file__).parent / "peers" / "nemo_configs_peer.py"
# Each conversation is held once with every reply; the LLM says the same in each call.
REPLIES = ("No", "Hello, how can I help you?")
UNCLEAR = "(blocked as unclear) "  # NeMo Guardrails lets some of these pass
USER_TURNS = ("hi", "What can you do for me?")
# Variables with keys and addresses that the examples read; the values are not used.
VARIABLES = (
    *("OPENAI_API_KEY", "NVIDIA_API_KEY", "AUTOALIGN_API_KEY", "FIDDLER_API_KEY", "PAI_API_KEY"),
    *("PANGEA_API_TOKEN", "CLAVATA_API_KEY", "PATRONUS_API_KEY", "V1_API_KEY", "PS_APP_ID"),
    *(
        "NG_OPENAI_API_KEY",
        "NG_NVIDIA_API_KEY",
        "JB_NIM_TEST",
        "PS_PROTECT_URL",
        "DEEPSEEK_API_KEY",
        "GOOGLE_CLOUD_PROJECT",  # Vertex AI's client finds them in its own settings
        "GOOGLE_CLOUD_LOCATION",
    ),
)


# Engines that code registers which is not in the sdist: neither runtime knows them.
OWN_ENGINES = frozenset({"custom_llm", "fake"})


class FixedModel:
    """A model that says the same in every call."""

    name = "fixed"
    lineage = Lineage(name="fixed")

    def __init__(self, text: str) -> None:
        self.text = text

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns the text."""
        return (Answer.of(self.text),)


def find_configurations(root: Path) -> list[Path]:
    """Returns the folders that NeMo Guardrails would load, without the copies in its package."""
    folders: set[Path] = set()
    for file in root.rglob("*.y*ml"):
        parts = file.relative_to(root).parts
        if parts[0].startswith(".") or parts[:2] == ("nemoguardrails", "examples"):
            continue
        if file.name in ("config.yml", "config.yaml") or _is_whole_configuration(file):
            folders.add(file.parent)
    return sorted(folders)


def _is_whole_configuration(file: Path) -> bool:
    """Returns whether a file such as `lynx_config.yml` is a configuration by its content."""
    if not file.name.endswith(("_config.yml", "_config.yaml")) or file.name == "sample_config.yml":
        return False
    document = yaml.safe_load(file.read_text())
    return isinstance(document, dict) and {"models", "rails"} <= set(document)


def is_language_sample(folder: Path) -> bool:
    """Returns whether a folder shows one statement of Colang 2."""
    return "language_reference" in folder.parts


def classify(folder: Path) -> dict[str, Any]:
    """Returns the class of a configuration with its reasons."""
    row: dict[str, Any] = {"class": "", "reasons": [], "faults": []}
    try:
        report = check_rails_config(folder, key_variables=VARIABLES)
        row["faults"] = [str(finding) for finding in report.errors]
        if report.config is None:
            row.update({"class": "refused", "reasons": row["faults"]})
            return row
        config = RailsConfig.load(folder, trust_code=True, key_variables=VARIABLES)
        main = [entry for entry in config.models if entry.type == "main"]
        _build_models(config, [entry for entry in main if entry.engine not in OWN_ENGINES])
        GuardedModel(config, FixedModel(REPLIES[0]), parts=RuntimeParts(encoder=LexicalEncoder()))
    except UserError as error:
        row.update({"class": "refused", "reasons": list(error.faults)})
        return row
    except Exception as error:
        row.update({"class": "crash", "reasons": [f"{type(error).__name__}: {error}"]})
        return row
    unknown = find_unknown_keys(config)
    if unknown:
        row.update({"class": "silent", "reasons": unknown})
        return row
    findings = (
        finding
        for finding in report.findings
        if finding.level == "difference"
        or finding.kind == "nemo_action"
        # In Colang 2, NeMo Guardrails hands an action that it does not know to the client.
        or (finding.kind == "action" and config.script is not None)
    )
    differences = [str(finding) for finding in findings]
    row.update({"class": "difference" if differences else "identical", "reasons": differences})
    return row


def _build_models(config: RailsConfig, entries: list[Any]) -> None:
    from truing.rails.config.models import build_model

    for entry in entries:
        build_model(entry, config)


def find_unknown_keys(config: RailsConfig) -> list[str]:
    """Returns the keys that truing accepts without an entry in its table, but for unknown keys in
    the block of a rail, which NeMo Guardrails ignores as well and `rails check` names.
    """
    values = iterate_values({k: v for k, v in config.raw.items() if k not in ("truing", "docs")})
    return [
        key for key, _ in values if find_effect(key) is None and not key.startswith("rails.config.")
    ]


def hold_conversations(folder: Path) -> list[list[str]]:
    """Returns the bot's texts of each conversation; the last of one that fails is its error."""
    return [asyncio.run(_hold_conversation(folder, reply)) for reply in REPLIES]


async def _hold_conversation(folder: Path, reply: str) -> list[str]:
    config = RailsConfig.load(folder, trust_code=True, key_variables=VARIABLES)
    model = FixedModel(reply)
    models = {entry.type: model for entry in config.models if entry.type not in ("main",)}
    guarded = GuardedModel(
        config, model, parts=RuntimeParts(models=models, encoder=LexicalEncoder())
    )
    guarded.runtime.input_gate.joins_turns = False
    texts: list[str] = []
    history: list[dict[str, Any]] = []
    for message in USER_TURNS:
        history.append({"role": "user", "content": message})
        try:
            result = await guarded.runtime.run_turn(list(history))
        except Exception as error:
            return [*texts, f"error: {type(error).__name__}"]
        failed = result.failure is not None
        reasons = " ".join(ruling.reason or "" for ruling in result.rulings)
        is_unclear = result.blocked and ("unclear" in reasons or "could not tell" in reasons)
        text = "error: action" if failed else result.text
        texts.append(f"{UNCLEAR}{text}" if is_unclear else text)
        history.append(result.message)
    return texts


def ask_peer(python: str, folders: list[Path]) -> dict[str, Any]:
    """Returns what NeMo Guardrails does with each folder: `loads`, `reason`, `texts`."""
    request = {"folders": [str(f) for f in folders], "replies": REPLIES, "turns": USER_TURNS}
    done = subprocess.run(
        [python, str(PEER_SCRIPT)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **dict.fromkeys(VARIABLES, "x")},
    )
    peer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return peer


def compare_with_peer(row: dict[str, Any], folder: Path, peer: dict[str, Any]) -> None:
    """Adds what the peer does, and turns an identical row that says something else into silent."""
    row["peer_loads"] = peer["loads"]
    row["peer_reason"] = peer["reason"]
    if row["class"] != "identical" or not peer["loads"] or _asks_a_service(folder):
        return
    ours = hold_conversations(folder)
    row["compared"] = 0
    for own_texts, peer_texts, reply in zip(ours, peer["texts"], REPLIES, strict=True):
        for own, other in zip(own_texts, peer_texts, strict=False):
            # Nothing to compare where NeMo raises, or where the action is not in the sdist.
            is_error = other.startswith("error") or other.endswith("not found.")
            if is_error:
                continue
            row["compared"] += 1
            if own.removeprefix(UNCLEAR) == other:
                continue
            if own.startswith(UNCLEAR):
                row["fails_closed"] = row.get("fails_closed", 0) + 1
            else:
                row["class"] = "silent"
                row["reasons"].append(f"LLM {reply!r}: truing {own!r}, NeMo {other!r}")


def _asks_a_service(folder: Path) -> bool:
    """Returns whether rails ask a service: it is not there, and truing then blocks."""
    config = RailsConfig.load(folder, trust_code=True, key_variables=VARIABLES)
    rails = list_rail_flow_names(config)
    return bool(find_service_addresses(config)) or "jailbreak detection model" in rails


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer")
    parser.add_argument("--peer-results", type=Path, help="of earlier runs; completed with --peer")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    logging.getLogger("truing.rails").setLevel(logging.ERROR)
    for name in VARIABLES:
        os.environ.setdefault(name, "x")
    os.environ["PS_PROTECT_URL"] = "https://eu.prompt.security/api/protect"
    folders = find_configurations(args.folder.resolve())
    compared = [folder for folder in folders if not is_language_sample(folder)]
    peer = _find_peer_results(args.peer, args.peer_results, compared)
    table: dict[str, dict[str, Any]] = {}
    for folder in folders:
        row = classify(folder)
        if str(folder) in peer:
            compare_with_peer(row, folder, peer[str(folder)])
        table[str(folder.relative_to(args.folder.resolve()))] = row
    if args.out:
        args.out.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    print_table(table)


def _find_peer_results(
    python: str | None, file: Path | None, folders: list[Path]
) -> dict[str, Any]:
    known = dict(json.loads(file.read_text())) if file is not None and file.exists() else {}
    missing = [folder for folder in folders if str(folder) not in known]
    if python is None or not missing:
        return known
    peer = {**known, **ask_peer(python, missing)}
    if file is not None:
        file.write_text(json.dumps(peer))
    return peer


def print_table(table: dict[str, dict[str, Any]]) -> None:
    """Prints each configuration with its first reason, and the counts."""
    for name, row in table.items():
        reason = row["reasons"][0] if row["reasons"] else ""
        print(f"{row['class']:<11} {name}  {reason[:150]}")
    for title, is_sample in (("configurations", False), ("samples of Colang 2", True)):
        rows = [r for n, r in table.items() if is_language_sample(Path(n)) is is_sample]
        counts = Counter(row["class"] for row in rows)
        names = ("identical", "difference", "refused", "crash", "silent")
        print(f"{len(rows)} {title}:", ", ".join(f"{n} {counts[n]}" for n in names))
        if any("peer_loads" in row for row in rows):
            works = [row for row in rows if row.get("peer_loads")]
            faults = sum(bool(row["faults"]) for row in works)
            print(f"  NeMo loads {len(works)}; of these rails check exits 2 on {faults}")
            refused = [row for row in rows if row["class"] == "refused"]
            both = sum(row.get("peer_loads") is False for row in refused)
            print(f"  of the refused, NeMo refuses {both} too")
            compared = sum(row.get("compared", 0) for row in rows)
            closed = sum(row.get("fails_closed", 0) for row in rows)
            print(
                f"  replies compared: {compared}, of these blocked as unclear by truing: {closed}"
            )


if __name__ == "__main__":
    sys.exit(main())
