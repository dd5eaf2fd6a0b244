"""Models that run on this machine through transformers (the `local` extra): `local:smollm2`,
`local:PATH`.

Arguments of the spec: `dtype` (auto, float32, bfloat16, float16), `device` (auto, cpu, cuda, mps),
`batch` (answers generated at once, 64).
"""

from __future__ import annotations

from truing.models.local.model import LocalModel
from truing.specs.resolve import Args

__all__ = ["LocalModel", "build"]


def build(args: Args) -> LocalModel:
    """`local:NAME,dtype=auto,device=auto,batch=64`; the name is a folder, `smollm2`, or a hub
    id.
    """
    batch = args.integer("batch", 64)
    if batch < 1:
        raise args.fault(f"batch={batch} is less than 1")
    dtype, device = args.text("dtype", "auto"), args.text("device", "auto")
    args.reject_unknown()  # report a wrong argument before the weights are loaded
    return LocalModel.load(args.name or "smollm2", dtype=dtype, device=device, batch=batch)
