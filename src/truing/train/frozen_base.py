"""Stores the frozen weights of a base model under adapters in bfloat16 or int8, not float32.

    hold_frozen(model, storage_dtype(settings.base_dtype, compute_dtype, lora=16))
    ...                                      # add adapters, train
    merge_adapters(model, "default", torch.bfloat16)

With a forward pass in bfloat16, matrices stored in bfloat16 give bit by bit the results of float32
ones: autocast would round those to bfloat16 in each forward pass, and keep the copy for the
backward pass. Matrices stored in bfloat16 need no copy. Embeddings are stored in bfloat16 only if
that changes none of their values; norms, biases and the residual stream stay in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from truing.hf.loading import make_lm_head_contiguous
from truing.train.run_settings import BaseDtype


def storage_dtype(
    base_dtype: BaseDtype, compute_dtype: torch.dtype | None, *, lora: int, shard: bool = False
) -> BaseDtype:
    """Returns the storage type of frozen weights: float32, bfloat16 or int8.

    `auto` is bfloat16 if the forward pass computes in bfloat16 (a `compute_dtype` of None is
    float32). Without adapters (`lora` 0) all weights are trained, in float32. FSDP shards weights
    of one type only, so sharded ones stay in float32.
    """
    if not lora or shard:
        return "float32"
    if base_dtype != "auto":
        return base_dtype
    return "bfloat16" if compute_dtype is torch.bfloat16 else "float32"


class _FrozenProduct(torch.autograd.Function):
    """x Wᵀ for a frozen W in bfloat16 or int8, which the backward pass converts again.

    Plain autograd would keep the converted W, in the type of x, until the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor | None) -> Tensor:
        """Returns the product in the type of x."""
        ctx.save_for_backward(weight, scale)
        return F.linear(x, _widen(weight, scale, x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Returns the gradient of x."""
        weight, scale = ctx.saved_tensors
        return grads[0] @ _widen(weight, scale, grads[0].dtype), None, None


def _widen(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Returns a stored weight `[out, in]` in a type; `scale` `[out, 1]` is that of int8."""
    return weight.to(dtype) if scale is None else (weight.to(scale.dtype) * scale).to(dtype)


class FrozenLinear(nn.Linear):
    """A frozen linear layer, its weight in bfloat16 or int8 with one scale per output (`scale`)."""

    scale: Tensor | None

    @classmethod
    def from_linear(cls, linear: nn.Linear, dtype: BaseDtype) -> FrozenLinear:
        """Returns the layer with the weight of `linear`, rounded to bfloat16 or int8."""
        # Not nn.Linear.__init__: it would allocate and initialise a weight in float32.
        frozen = cls.__new__(cls)
        nn.Module.__init__(frozen)
        frozen.in_features, frozen.out_features = linear.in_features, linear.out_features
        weight, scale = linear.weight.detach(), None
        if dtype == "int8":
            # Symmetric absmax quantization by row; the bound keeps a row of zeros from 0 / 0.
            scale = (weight.float().abs().amax(1, keepdim=True) / 127).clamp(min=1e-12)
            weight = (weight.float() / scale).round().to(torch.int8)
        else:
            weight = weight.to(torch.bfloat16)
        frozen.weight = nn.Parameter(weight, requires_grad=False)
        frozen.register_buffer("scale", scale, persistent=False)
        frozen.bias = linear.bias
        return frozen

    def forward(self, input: Tensor) -> Tensor:
        """Returns the product in the autocast type, or in that of the input."""
        device = input.device.type
        if torch.is_autocast_enabled(device):
            input = input.to(torch.get_autocast_dtype(device))
        multiply: Any = _FrozenProduct.apply  # torch does not annotate it
        product: Tensor = multiply(input, self.weight, self.scale)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def dense_weight(self) -> Tensor:
        """Returns the rounded weight in float32."""
        return _widen(self.weight, self.scale, torch.float32)


def dense_weight(linear: Any) -> Tensor:
    """Returns the weight of a linear layer; that of a `FrozenLinear` in float32."""
    weight: Tensor
    weight = linear.dense_weight() if isinstance(linear, FrozenLinear) else linear.weight
    return weight


@torch.no_grad()
def hold_frozen(model: Any, dtype: BaseDtype) -> None:
    """Converts a model, before adapters are added, to the storage type of its frozen weights."""
    if dtype == "float32":
        model.float()
        return
    embeddings = model.get_input_embeddings()
    narrow_weights = [embeddings.weight] if _round_exactly(embeddings.weight) else []
    if narrow_weights:
        embeddings.register_forward_hook(_output_in_float32)
    head = _output_head(model)
    if head is not None and _hold_head(model, head, embeddings):
        narrow_weights.append(head.weight)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child is not head:
                frozen = FrozenLinear.from_linear(child, dtype)
                setattr(parent, name, frozen)
                narrow_weights.append(frozen.weight)
    # Norms, biases, and embeddings and a head that bfloat16 would change.
    held_ids = {id(parameter) for parameter in narrow_weights}
    for parameter in model.parameters():
        if id(parameter) not in held_ids and parameter.is_floating_point():
            parameter.data = parameter.data.float()


def _output_head(model: Any) -> nn.Linear | None:
    """Returns the language-model head; None for a model without one."""
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if get_head is not None else None
    return head if isinstance(head, nn.Linear) else None


def _hold_head(model: Any, head: nn.Linear, embeddings: Any) -> bool:
    """Stores the head in bfloat16 if that changes none of its values; returns whether it is.

    A head that shares its weight with the embeddings (tied) still shares it afterwards.
    """
    is_tied = head.weight is embeddings.weight
    # A tied weight has been rounded with the embeddings already.
    if not (head.weight.dtype is torch.bfloat16 or _round_exactly(head.weight)):
        return False
    frozen = FrozenLinear.from_linear(head, "bfloat16")
    frozen.weight = embeddings.weight if is_tied else head.weight
    model.set_output_embeddings(frozen)
    make_lm_head_contiguous(model)
    return True


def _round_exactly(parameter: Any) -> bool:
    """Rounds a parameter to bfloat16 if that changes none of its values; returns whether it did."""
    rounded = parameter.data.to(torch.bfloat16)
    if not torch.equal(rounded.to(parameter.dtype), parameter.data):
        return False
    parameter.data = rounded
    return True


def _output_in_float32(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Forward hook of embeddings in bfloat16, so that the residual stream is in float32."""
    return output.float()


@torch.no_grad()
def merge_adapters(peft_model: Any, adapter: str, dtype: torch.dtype) -> Any:
    """Returns the base with an adapter merged, as an ordinary model of type `dtype`.

    The layers are merged in float32 and rounded one after the other, so that the whole model is
    never in memory in float32. The PEFT model cannot be used afterwards.
    """
    model = peft_model.get_base_model()
    embeddings = model.get_input_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "get_delta_weight"):  # a LoRA layer of PEFT
                weight = dense_weight(child.base_layer)
                if adapter in child.lora_A:
                    weight = weight + child.get_delta_weight(adapter)
                setattr(parent, name, _plain_linear(child.base_layer, weight.to(dtype)))
            elif isinstance(child, FrozenLinear) and child.weight is not embeddings.weight:
                setattr(parent, name, _plain_linear(child, child.dense_weight().to(dtype)))
            elif isinstance(child, FrozenLinear):
                setattr(parent, name, _plain_linear(child, embeddings.weight))
    hooks = embeddings._forward_hooks
    for key in [key for key, hook in hooks.items() if hook is _output_in_float32]:
        del hooks[key]
    return model.to(dtype)


def _plain_linear(layer: Any, weight: Tensor) -> nn.Linear:
    """Returns an nn.Linear of a weight and the bias of `layer`.

    A weight that is a parameter already (that of tied embeddings) stays shared.
    """
    linear = nn.Linear(1, 1, bias=False)  # small, since its weight is replaced at once
    linear.in_features, linear.out_features = layer.in_features, layer.out_features
    is_shared = isinstance(weight, nn.Parameter)
    linear.weight = weight if is_shared else nn.Parameter(weight, requires_grad=False)
    linear.bias = layer.bias
    return linear
