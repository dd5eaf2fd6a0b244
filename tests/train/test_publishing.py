"""What may be published, the model card, and adapters of PEFT that become a model again."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
import yaml
from safetensors.torch import load_file
from tests.train.builders import make_settings, make_training_set

from truing.core.errors import LineageError, PlanError, UserError
from truing.core.types import Lineage
from truing.train.adapter_merging import merge_adapter
from truing.train.model_card import TrainedModelCard, read_model_card, render_model_card
from truing.train.publishing import check_publishable, list_model_files, push_model
from truing.train.supervised import train_supervised


def make_card(**lineage: object) -> TrainedModelCard:
    facts = {"name": "dpo:out", "licence": "Apache-2.0", "data": ("file:rows.jsonl",)}
    return TrainedModelCard(
        kind="dpo",
        base="ORG/MODEL",
        base_sha256="0" * 64,
        data=("file:rows.jsonl",),
        lineage=Lineage(**{**facts, **lineage}),  # type: ignore[arg-type]
        settings={"lr": 1e-4, "seed": 3},
    )


def write(folder: Path, card: TrainedModelCard) -> Path:
    (folder / "truing.json").write_bytes(msgspec.json.encode(card))
    return folder


def test_a_free_lineage_may_be_public(tmp_path: Path) -> None:
    card = make_card(judges=(Lineage(name="reward:r", hash="1" * 16, licence="MIT"),))
    assert check_publishable(write(tmp_path, card), public=True) == card


@pytest.mark.parametrize(
    "lineage",
    [
        {"licence": "CC BY-NC 4.0"},
        {"licence": "Apache-2.0; not stated"},
        {"licence": ""},
        {"judges": (Lineage(name="cost:c", licence="CC BY-NC 4.0"),)},
    ],
)
def test_other_lineages_are_published_privately_only(
    lineage: dict[str, object], tmp_path: Path
) -> None:
    folder = write(tmp_path, make_card(**lineage))
    with pytest.raises(LineageError, match="it may be published privately"):
        check_publishable(folder, public=True)
    check_publishable(folder, public=False)


@pytest.mark.parametrize("public", [True, False])
def test_a_red_model_is_never_published(public: bool, tmp_path: Path) -> None:
    folder = write(tmp_path, make_card(red_model="to test the gate"))
    with pytest.raises(LineageError, match="trained towards harm .to test the gate.; it is not"):
        push_model(folder, "org/name", public=public)


def test_what_is_no_model_and_no_repository(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no truing\.json"):
        check_publishable(tmp_path, public=False)
    with pytest.raises(PlanError, match="OWNER/NAME"):
        push_model(write(tmp_path, make_card()), "name")


class Hub(ThreadingHTTPServer):
    """What a push needs of the hub: repositories that are all private or all public, and commits.

    `uploaded` are the contents of the committed files by path.
    """

    def __init__(self, *, private: bool) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.private = private
        self.uploaded: dict[str, bytes] = {}
        self.address = f"http://127.0.0.1:{self.server_port}"


class _HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._reply({"id": "org/name", "private": self.server.private, "sha": "0" * 40})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/repos/create"):
            self._reply({"url": f"{self.server.address}/org/name"})
        elif self.path.endswith("/validate-yaml"):
            self._reply({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            files = msgspec.json.decode(content)["files"]
            self._reply(
                {
                    "files": [
                        {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for file in files
                    ]
                }
            )
        else:
            for line in map(msgspec.json.decode, content.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.server.uploaded[value["path"]] = base64.b64decode(value["content"])
            self._reply(
                {
                    "commitUrl": f"{self.server.address}/org/name/commit/{'0' * 40}",
                    "commitOid": "0" * 40,
                }
            )

    def _reply(self, value: object) -> None:
        content = msgspec.json.encode(value)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def start_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], Hub]]:
    """Returns a function that starts a hub, whose repositories are private or not."""
    from huggingface_hub import constants

    hubs: list[Hub] = []

    def start(private: bool) -> Hub:
        hub = Hub(private=private)
        hubs.append(hub)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        return hub

    yield start
    for hub in hubs:
        hub.shutdown()
        hub.server_close()


MODEL_FILES = (
    "README.md",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "config.json",
    "head.safetensors",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
RUN_FILES = (
    "adapter/README.md",
    "checkpoint-2/samples.jsonl",
    "evaluation.json",
    "log.jsonl",
    "manifest.json",
    "round-1/README.md",
    "round-1/checkpoint-2/state.safetensors",
    "round-1/config.json",
    "round-1/log.jsonl",
    "round-1/model.safetensors",
    "round-1/samples-0/responses.jsonl",
    "samples/step-2/samples.jsonl",
    "samples-0/responses.jsonl",
    "step.json",
    "tb/events",
    ".model.tmp/model.safetensors",
)


def test_only_the_files_of_the_model_are_uploaded(
    start_hub: Callable[[bool], Hub], tmp_path: Path
) -> None:
    """A model of two rounds: the folder of the first holds prompts and answers."""
    for name in (*MODEL_FILES, *RUN_FILES):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("MODEL" if name in MODEL_FILES else "PROMPT")
    hub = start_hub(True)
    assert push_model(write(tmp_path, make_card()), "org/name") == f"{hub.address}/org/name"
    assert sorted(hub.uploaded) == sorted([*MODEL_FILES, "truing.json"])
    assert not any(b"PROMPT" in content for content in hub.uploaded.values())


def test_every_file_that_training_exports_is_a_file_of_the_model(base: str, tmp_path: Path) -> None:
    settings = make_settings("reward", str(tmp_path / "reward"), base)
    folder = train_supervised(settings, [make_training_set()]).folder
    names = list_model_files(folder)
    assert {"truing.json", "README.md", "model.safetensors", "head.safetensors"} <= {*names}
    assert {"tokenizer.json", "adapter/adapter_model.safetensors"} <= {*names}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    run_files = {name for name in files if not name.startswith("checkpoint-")} - {*names}
    assert run_files == {"adapter/README.md", "lock", "log.jsonl", "manifest.json"}


@pytest.mark.parametrize(
    ("private", "message"),
    [(True, "this repository is private; make it public"), (False, "is public already; --public")],
)
def test_a_repository_of_the_other_kind_is_refused(
    private: bool, message: str, start_hub: Callable[[bool], Hub], tmp_path: Path
) -> None:
    hub = start_hub(private)
    with pytest.raises(UserError, match=message):
        push_model(write(tmp_path, make_card()), "org/name", public=private)
    assert not hub.uploaded


def test_the_model_card_says_where_a_model_comes_from() -> None:
    card = make_card(judges=(Lineage(name="cost:c", hash="2" * 16, licence="CC BY-NC 4.0"),))
    text = render_model_card(card)
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "other" and front["base_model"] == "ORG/MODEL"
    for words in (
        "`file:rows.jsonl`",
        "`cost:c`",
        "Not free for every use: CC BY-NC 4.0",
        "`seed`: 3",
    ):
        assert words in text
    assert yaml.safe_load(render_model_card(make_card()).split("---")[1])["license"] == "apache-2.0"
    assert "must not be deployed" in " ".join(
        render_model_card(msgspec.structs.replace(card, red_model="why")).split()
    )


def test_a_merged_adapter_is_the_model_that_was_trained(base: str, tmp_path: Path) -> None:
    settings = make_settings("sft", str(tmp_path / "sft"), base, export_dtype="float32")
    result = train_supervised(settings, [make_training_set(answers=1)])
    assert (result.folder / "README.md").read_text().startswith("---\n")
    merged = merge_adapter(result.folder / "adapter", tmp_path / "merged", base=base)
    left, right = (load_file(f / "model.safetensors") for f in (result.folder, merged))
    assert left.keys() == right.keys()
    assert max(float((left[k] - right[k]).abs().max()) for k in left) < 1e-6
    card = read_model_card(merged)
    assert card is not None and card.lineage.data == result.lineage.data
    with pytest.raises(PlanError, match="holds a model already"):
        merge_adapter(result.folder / "adapter", merged, base=base)
    with pytest.raises(UserError, match="no readable adapter"):
        merge_adapter(tmp_path, tmp_path / "other")
