"""Loads configurations, tokenizers and weights with transformers from folders nobody vouches for.

A model folder is data. Its Python code is never run (`trust_remote_code=False`, so transformers
does not ask on standard input either), pickles are never read, and weights that are missing,
truncated or do not fit the configuration are an error instead of random numbers. Every call of
transformers' `from_pretrained` in this project is in this module and in `gguf.py`.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import msgspec

from truing.core.errors import UserError
from truing.core.input_files import read_input_bytes

_MAX_CONFIG_BYTES = 16 << 20
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
_DTYPE_NAMES: dict[str, Literal["float32", "bfloat16", "float16"]] = {
    "F32": "float32",
    "BF16": "bfloat16",
    "F16": "float16",
}
_CODE_ERRORS = ("trust_remote_code", "custom code")
# Sentence encoders are published with or without the pooler, whose output nothing here uses.
_OPTIONAL_WEIGHTS = ("pooler.", "bert.pooler.")


def find_safetensors(folder: Path) -> list[Path]:
    """Returns the files of weights in a model folder.

    Raises UserError if there are none, also where there are pickles, which are never read.
    """
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLE_SUFFIXES)
    if pickles:
        raise UserError(
            f"local:{folder}: {pickles[0]} is a pickle, which can run code when it is read, so it "
            "is not read; save the model as safetensors (in transformers: "
            "model.save_pretrained(folder, safe_serialization=True))"
        )
    raise UserError(f"local:{folder}: a config.json but no weight files (*.safetensors)")


def check_model_folder(folder: Path, name: str) -> None:
    """Raises UserError if the weights cannot be read, or cannot be those of the configuration.

    An absurd configuration would otherwise take all memory before the first tensor is read.
    """
    config = _read_config(folder, name)
    if (folder / "adapter_config.json").exists():
        # transformers would load the base that the adapter names in place of this folder.
        raise UserError(
            f"local:{name}: holds an adapter (adapter_config.json); merge it first: "
            f"truing weights merge {name} --out DIR"
        )
    if (folder / "head.safetensors").exists() and len(find_safetensors(folder)) == 1:
        raise UserError(
            f"local:{name}: the weights of the model are missing (only head.safetensors)"
        )
    n_elements = n_tensors = 0
    for path in find_safetensors(folder):
        shapes = read_tensor_shapes(path)
        n_elements += sum(math.prod(shape) for shape in shapes.values())
        n_tensors += len(shapes)
    text_config = config.get("text_config")
    _check_sizes(
        text_config if isinstance(text_config, dict) else config, n_elements, n_tensors, name
    )


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        return msgspec.json.decode(read_input_bytes(path, _MAX_CONFIG_BYTES), type=dict[str, Any])
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: {error}") from error


def read_tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a file's tensors; raises UserError if it is damaged or cut off."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no dictionary)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be loaded: no readable safetensors file: {first_line(error)}"
        ) from error


def stored_dtype(folder: Path) -> Literal["float32", "bfloat16", "float16"]:
    """Returns the type of most of a folder's weights; float32 for types of any other kind.

    Raises UserError if the weights cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    elements: Counter[str] = Counter()
    for path in find_safetensors(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (no dictionary)
                    tensor = file.get_slice(key)
                    elements[tensor.get_dtype()] += math.prod(tensor.get_shape())
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(f"{path}: cannot be read: {first_line(error)}") from error
    most = max(elements, key=lambda name: elements[name], default="F32")
    return _DTYPE_NAMES.get(most, "float32")


def _check_sizes(config: dict[str, Any], n_elements: int, n_tensors: int, name: str) -> None:
    def size(key: str) -> int:
        value = config.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    hidden = max(size("hidden_size"), size("n_embd"), size("d_model"), 1)
    # Quantised weights pack several numbers into an element: at most 8 of 4 bits.
    n_weights = 8 * n_elements
    limits = {
        "hidden_size": n_weights,
        "vocab_size": n_weights // hidden,
        "intermediate_size": n_weights // hidden,
        "num_hidden_layers": n_tensors,
        "n_layer": n_tensors,
        "max_position_embeddings": 1 << 27,
        "num_attention_heads": hidden,
        "num_labels": n_weights,
    }
    for key, limit in limits.items():
        if not 0 <= size(key) <= limit:
            raise UserError(
                f"local:{name}: config.json: {key} is {size(key):,}, more than the weights hold "
                f"({n_elements:,} numbers in {n_tensors:,} tensors)"
            )


def load_config(folder: Path, name: str) -> Any:
    """Returns transformers' configuration of a folder; raises UserError if there is none."""
    from transformers import AutoConfig

    _read_config(folder, name)
    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # a broken configuration leads transformers to errors of any type
        raise describe_load_error(name, "config.json", error) from error


def load_tokenizer(folder: Path, name: str) -> Any:
    """Returns the tokenizer of a folder; raises UserError if it cannot be read."""
    from transformers import AutoTokenizer

    if (folder / "config.json").exists():
        _read_config(folder, name)
    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # a broken tokenizer leads transformers to errors of any type
        raise describe_load_error(name, "the tokenizer", error) from error


def load_model(auto_class: str, folder: Path, name: str, **options: Any) -> Any:
    """Returns the model of a folder, by one of transformers' Auto classes.

    Raises UserError if the folder needs code of its own, or the weights are not exactly those of
    the configuration.
    """
    import transformers
    from transformers.utils import logging

    check_model_folder(folder, name)
    logging.disable_progress_bar()
    try:
        model, info = getattr(transformers, auto_class).from_pretrained(
            str(folder),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # a broken folder leads transformers to errors of any type
        raise describe_load_error(name, "the model", error) from error
    missing = [k for k in info["missing_keys"] if not is_optional_weight(k)]
    if missing:
        # transformers would go on with random numbers in their place.
        raise UserError(
            f"local:{name}: the model cannot be loaded: {len(missing)} weights of the "
            f"configuration's architecture are missing, such as {sorted(missing)[0]}"
        )
    return model


def build_empty_model(auto_class: str, folder: Path, name: str, **options: Any) -> Any:
    """Returns the model of a folder's configuration, its parameters on the meta device.

    They take no memory there and have no values; buffers have theirs. Raises UserError if the
    folder needs code of its own, or the weights cannot be those of the configuration.
    """
    import transformers
    from accelerate import init_empty_weights

    check_model_folder(folder, name)
    config = load_config(folder, name)
    try:
        with init_empty_weights(include_buffers=False):
            model = getattr(transformers, auto_class).from_config(
                config, trust_remote_code=False, **options
            )
        model.tie_weights()  # accelerate gives each place of a shared weight one of its own
        if (folder / "generation_config.json").is_file() and model.can_generate():
            generation_config = transformers.GenerationConfig.from_pretrained(
                str(folder), trust_remote_code=False
            )
            model.generation_config = generation_config
    except Exception as error:  # a broken folder leads transformers to errors of any type
        raise describe_load_error(name, "the model", error) from error
    return model


def is_optional_weight(name: str) -> bool:
    """Whether a weight may be missing in the files: nothing here uses its output."""
    return name.startswith(_OPTIONAL_WEIGHTS)


def check_tokenizer_fits(model: Any, tokenizer: Any, name: str) -> None:
    """Raises UserError if the tokenizer has ids for which the model has no embedding.

    Tokens that were added are not counted: some published models have a few without embeddings.
    """
    n_embeddings = int(model.get_input_embeddings().weight.shape[0])
    if tokenizer.vocab_size > n_embeddings:
        raise UserError(
            f"local:{name}: the tokenizer has {tokenizer.vocab_size:,} tokens and the model "
            f"{n_embeddings:,} embeddings, so they do not belong together"
        )


def describe_load_error(name: str, what: str, error: BaseException) -> UserError:
    """Returns the error to raise for a folder that transformers cannot load."""
    text = str(error)
    if any(part in text for part in _CODE_ERRORS):
        return UserError(
            f"local:{name}: {what} needs Python code of its own folder, and no code of a model "
            "folder is run; take a model whose architecture transformers itself knows"
        )
    line = first_line(error)
    if isinstance(error, KeyError):
        line = f"no entry {line}"
    return UserError(f"local:{name}: {what} cannot be loaded: {line}")


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def silence_transformers() -> None:
    """Keeps progress bars, load reports and warnings of transformers out of the output."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
