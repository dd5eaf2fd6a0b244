"""Model folders from anybody: no code of theirs runs, no pickle is read, each fault is one error."""

from __future__ import annotations

import ast
import io
import json
import pickle
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.models.local.conftest import SIZES, tokenizer

from truing.core.errors import UserError
from truing.hf.loading import load_causal_lm, load_encoder, load_scalar_model

MARK = "code-of-the-folder-ran"
CODE = f"""
from pathlib import Path
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
(Path(__file__).parent / {MARK!r}).write_text("")
class Evil(PretrainedConfig):
    model_type = "evil"
class EvilModel(PreTrainedModel):
    config_class = Evil
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    words = tokenizer()
    words.save_pretrained(folder)
    config = transformers.LlamaConfig(vocab_size=len(words), **SIZES)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def change_config(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def change_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    weights = dict(load_file(folder / "model.safetensors"))
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-400])


def write_huge_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")


def replace_by_pickle(folder: Path, name: str = "pytorch_model.bin") -> None:
    (folder / "model.safetensors").unlink()

    class Run:
        def __reduce__(self) -> tuple[Any, ...]:
            return (exec, (f"open({str(folder / MARK)!r}, 'w').close()",))

    (folder / name).write_bytes(pickle.dumps(Run()))


def need_code(folder: Path) -> None:
    change_config(
        folder,
        model_type="evil",
        auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.EvilModel"},
    )
    (folder / "evil.py").write_text(CODE)


def need_code_for_the_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    fields = json.loads(path.read_text())
    auto_map = {"AutoTokenizer": [None, "evil.EvilTokenizer"]}
    path.write_text(
        json.dumps({**fields, "tokenizer_class": "EvilTokenizer", "auto_map": auto_map})
    )
    (folder / "evil.py").write_text(CODE)


def bigger_vocabulary_than_the_model(folder: Path) -> None:
    path = folder / "tokenizer.json"
    fields = json.loads(path.read_text())
    vocabulary = fields["model"]["vocab"]
    vocabulary |= {f"extra{i}": len(vocabulary) + i for i in range(5000)}
    path.write_text(json.dumps(fields))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "code of the model": (need_code, "no code of a model folder is run"),
    "code of the tokenizer": (need_code_for_the_tokenizer, "tokenizer"),
    "pickle .bin": (replace_by_pickle, r"pytorch_model\.bin is a pickle.*safetensors"),
    "pickle .pt": (lambda f: replace_by_pickle(f, "model.pt"), "is a pickle"),
    "pickle .ckpt": (lambda f: replace_by_pickle(f, "last.ckpt"), "is a pickle"),
    "joblib": (lambda f: replace_by_pickle(f, "model.joblib"), "is a pickle"),
    "cut off": (cut_weights, r"model\.safetensors: cannot be loaded: no readable"),
    "huge header": (write_huge_header, r"model\.safetensors: cannot be loaded: no readable"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "no readable safetensors"),
    "a weight is missing": (
        lambda f: change_weights(f, lambda w: w.pop("model.norm.weight")),
        "weights of the configuration's architecture are missing",
    ),
    "a shape is wrong": (
        lambda f: change_weights(f, lambda w: w.update({"model.norm.weight": torch.zeros(3)})),
        "cannot be loaded",
    ),
    "another architecture": (
        lambda f: change_config(f, model_type="gpt2", architectures=["GPT2LMHeadModel"]),
        "missing|cannot be loaded",
    ),
    "unknown architecture": (lambda f: change_config(f, model_type="nonsense"), "cannot be loaded"),
    "no configuration": (lambda f: (f / "config.json").write_text("[1"), r"config\.json"),
    "configuration is a list": (lambda f: (f / "config.json").write_text("[]"), r"config\.json"),
    "deep configuration": (
        lambda f: (f / "config.json").write_text('{"a":' * 5000 + "1" + "}" * 5000),
        r"config\.json",
    ),
    "hidden_size": (lambda f: change_config(f, hidden_size=10**12), "hidden_size is"),
    "vocab_size": (lambda f: change_config(f, vocab_size=10**9), "vocab_size is"),
    "layers": (lambda f: change_config(f, num_hidden_layers=10**7), "num_hidden_layers is"),
    "negative": (lambda f: change_config(f, intermediate_size=-1), "intermediate_size is"),
    "no heads": (lambda f: change_config(f, num_attention_heads=0), "cannot be loaded"),
    "text for a number": (lambda f: change_config(f, hidden_size="big"), "cannot be loaded"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer"),
    "another tokenizer": (bigger_vocabulary_than_the_model, "do not belong together"),
    "an adapter": (
        lambda f: (f / "adapter_config.json").write_text('{"base_model_name_or_path": "x/y"}'),
        "holds an adapter",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_with_a_fault_is_one_error(
    fault: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = io.StringIO("y\n" * 50)
    monkeypatch.setattr(sys, "stdin", asked)
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(UserError, match=message) as raised:
        load_causal_lm(str(folder), dtype="float32", device="cpu")
    assert "\n" not in str(raised.value)
    assert asked.tell() == 0
    assert not list(folder.rglob(MARK))


def test_a_whole_folder_loads(folder: Path) -> None:
    # Files beside the weights are never read.
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
    (folder / "evil.py").write_text(CODE)
    assert load_causal_lm(str(folder), dtype="float32", device="cpu").weights.licence == ""
    assert load_encoder(str(folder), dtype="float32", device="cpu").model.config.vocab_size
    assert not list(folder.rglob(MARK))


def test_a_head_of_another_size(folder: Path) -> None:
    save_file({"weight": torch.zeros(1, 3)}, folder / "head.safetensors")
    with pytest.raises(UserError, match="hidden features"):
        load_scalar_model(folder, dtype="float32", device="cpu")
    save_file({"weight": torch.zeros(4)}, folder / "head.safetensors")
    with pytest.raises(UserError, match="hidden features"):
        load_scalar_model(folder, dtype="float32", device="cpu")


def test_every_call_refuses_code_and_pickles(root: Path) -> None:
    loaders = {"from_pretrained", "pipeline", "AutoModel", "from_config"}
    source = root / "src" / "truing"
    found = []
    for path in sorted(source.rglob("*.py")):
        name = str(path.relative_to(source))
        text = path.read_text(encoding="utf-8")
        if not any(word in text for word in (*loaders, "torch.load", "pickle", "joblib")):
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            function, keywords = ast.unparse(node.func), {k.arg: k.value for k in node.keywords}
            # One JSON file of an adapter; Alembic; adapters, which `_read_config` has found to be
            # safetensors (tests/train/test_publishing.py has one with a pickle).
            # GLiNER's own loader takes no such argument, and a folder with code or a pickle is
            # refused before it (tests/rails/library/test_gliner_model.py).
            own_loaders = ("LoraConfig.", "ScriptDirectory.", "PeftModel.", "load_object('gliner:")
            if function.startswith(own_loaders):
                continue
            if function.rpartition(".")[2] in loaders:
                trusted = keywords.get("trust_remote_code")
                if not (isinstance(trusted, ast.Constant) and trusted.value is False):
                    found.append(f"{name}:{node.lineno}: trust_remote_code=False is missing")
            if function in ("torch.load", "pickle.load", "pickle.loads", "joblib.load"):
                only = keywords.get("weights_only")
                if not (isinstance(only, ast.Constant) and only.value is True):
                    found.append(f"{name}:{node.lineno}: unpickles")
    assert found == []
