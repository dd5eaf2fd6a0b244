"""The settings of `truing train probe`."""

from __future__ import annotations

from msgspec import Struct


class ProbeSettings(Struct, frozen=True, kw_only=True):
    """How probes are trained.

    Attributes:
        out: Folder for the probes.
        base: The model whose states are read: smollm2, a folder in the Hugging Face layout, or a
            hub id. Its own answers are read best.
        layer: The layer after which it is read, counted from 1. Default: after two thirds.
        questions: Questions to learn, such as harmful refused helpful. Default: all that have
            answers to ten prompts or more with each label.
        max_length: Maximum tokens of prompt and answer; longer rows are left out.
        dtype: auto (bfloat16 if the hardware has it), float32 or bfloat16; the judge reads in
            float32 unless told otherwise.
        device: Device to read on: auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:N or mps.
        seed: Seed of the division into folds.
    """

    out: str
    base: str = "smollm2"
    layer: int | None = None
    questions: tuple[str, ...] = ()
    max_length: int = 1024
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0
