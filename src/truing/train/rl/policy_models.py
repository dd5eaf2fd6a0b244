"""The models of an RL run: policy, reference, critics, and the copy of the policy that samples.

`SeparateModels` holds one whole model per role; `SharedBackboneModels` holds one frozen backbone
with a LoRA adapter per role. The update and the trainer see both by the protocol `PolicyModels`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from truing.core.errors import UserError
from truing.distributed.process_group import Lockstep, ProcessGroup
from truing.hf.loading import ScalarModel, make_lm_head_contiguous
from truing.hf.weights import Weights
from truing.train.adapters import lora_config
from truing.train.frozen_base import merge_adapters
from truing.train.rl.constraint_settings import MAIN_CONSTRAINT
from truing.train.rl.rollout_model import RolloutModel
from truing.train.rl.settings import RLSettings
from truing.train.sharded_model import read_own_parts
from truing.train.sharding import (
    gather_tensors,
    is_sharded,
    reduce_gradients_by_sum,
    shard_like,
    shard_model,
    unsharded,
)
from truing.train.trainable_model import disable_dropout

# Roles of `PolicyModels.active`. The values of POLICY and of the critics are also the names of
# checkpoint files and adapters, so they stay.
POLICY = "actor"
REFERENCE = "reference"
ROLLOUT = "rollout"
REWARD_CRITIC = "reward_critic"
COST_CRITIC = "cost_critic"

CRITICS_BY_METHOD: dict[str, tuple[str, ...]] = {
    "ppo": (REWARD_CRITIC,),
    "reward-shaping": (REWARD_CRITIC,),
    "ppo-lag": (REWARD_CRITIC, COST_CRITIC),
    "rloo": (),
    "grpo": (),
}


def cost_critic(constraint: str) -> str:
    """Returns the role of the critic of a constraint's cost."""
    return COST_CRITIC if constraint == MAIN_CONSTRAINT else f"{COST_CRITIC}_{constraint}"


def critic_roles(settings: RLSettings, *, costs: bool) -> tuple[str, ...]:
    """Returns the critics of a run; `costs` says whether it has a cost without a name."""
    if settings.method != "ppo-lag":
        return CRITICS_BY_METHOD[settings.method]
    limits = settings.all_constraints(costs=costs)
    return (REWARD_CRITIC, *(cost_critic(limit.name) for limit in limits))


class PolicyModels(Protocol):
    """The models of a run by role, however they share weights.

    `critics` are the roles that learn values. `compute_dtype` is the autocast dtype (weights stay
    in float32), or None without autocast. `lockstep` keeps the processes at the same number of
    forward passes once the weights are sharded.
    """

    tokenizer: Any
    critics: tuple[str, ...]
    compute_dtype: torch.dtype | None
    lockstep: Lockstep

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        ...

    def active(self, role: str) -> contextlib.AbstractContextManager[Any]:
        """Activates a role for as long as the context lasts and returns its model.

        POLICY, REFERENCE and ROLLOUT are causal language models; a critic is a callable
        `(input_ids, attention_mask) -> [B, T]`.
        """
        ...

    def named_parameters(self, role: str) -> Iterable[tuple[str, nn.Parameter]]:
        """Returns the trained parameters of POLICY or of a critic."""
        ...

    def state_dict(self, role: str) -> dict[str, Tensor]:
        """Returns what a checkpoint stores of a trained role."""
        ...

    def load_state_dict(self, role: str, state: dict[str, Tensor]) -> None:
        """Restores what `state_dict` returned."""
        ...

    def shard(self, processes: ProcessGroup, weights: Weights | None = None) -> None:
        """Shards the weights over the processes (FSDP); each forward pass is then a collective.

        `weights` are the files to read the parameters on the meta device from.
        """
        ...

    def unsharded(self) -> contextlib.AbstractContextManager[None]:
        """Gathers whole weights in every process, for sampling; all processes must enter."""
        ...


def _autocast(models: PolicyModels) -> Any:
    """Returns the autocast context of a forward pass (an empty one in full precision)."""
    if models.compute_dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(models.device.type, dtype=models.compute_dtype)


def _transformer_body(model: Any) -> Any:
    """Returns the transformer without its language-model head."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(base, base.base_model_prefix, base)


def _new_value_head(model: Any, device: torch.device) -> nn.Linear:
    """Returns a value head of zeros: training begins with values of 0 and not with noise."""
    hidden_size = int(model.config.get_text_config().hidden_size)
    weight = next(model.parameters())
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    head = nn.Linear(hidden_size, 1, bias=False, dtype=dtype, device=device)
    nn.init.zeros_(head.weight)
    return head


def _enable_checkpointing(model: Any) -> None:
    """Lets a model recompute activations in the backward pass; it does so in training mode only."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    disable_dropout(model)


class SeparateModels:
    """Whole models: the policy, a frozen copy as the reference, a body and head for each critic.

    `checkpointing` recomputes activations in the backward pass. `critic_inits` holds reward and
    cost models (`ScalarModel`) that critics start from, as in Safe RLHF (Dai et al. 2023); a critic
    without one starts from the policy's body. `device` is that of the run, for a model that is
    still on the meta device (see `shard`).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        critics: Sequence[str] = (),
        *,
        critic_inits: dict[str, ScalarModel] | None = None,
        compute_dtype: torch.dtype | None = None,
        checkpointing: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self._device = device or next(model.parameters()).device
        self.checkpointing = checkpointing
        self.critics = tuple(critics)
        self.compute_dtype = compute_dtype
        self.lockstep = Lockstep()
        make_lm_head_contiguous(model)
        self.reference = copy.deepcopy(model).eval().requires_grad_(False)
        self.trained: dict[str, Any] = {}
        for critic in critics:
            init = (critic_inits or {}).get(critic)
            if init is None:
                body = copy.deepcopy(_transformer_body(model))
                scalar_model = ScalarModel(body, head=_new_value_head(model, self._device))
            else:
                scalar_model = copy.deepcopy(init)
            self.trained[critic] = scalar_model.requires_grad_(True)
        self.trained[POLICY] = model.requires_grad_(True)
        for trained_model in self.trained.values():
            if checkpointing:
                _enable_checkpointing(getattr(trained_model, "body", trained_model))
            # No dropout in training either: with it, the ratio of the new policy to the one that
            # sampled would not be 1 before the first gradient step.
            trained_model.eval()

    @property
    def device(self) -> torch.device:
        """The device of the policy."""
        return self._device

    @contextlib.contextmanager
    def active(self, role: str) -> Iterator[Any]:
        """Returns the model of a role; the policy itself samples the rollouts."""
        with _autocast(self):
            if role == REFERENCE:
                yield self.reference
            else:
                model = self.trained[POLICY if role == ROLLOUT else role]
                if self.checkpointing:
                    model.train(role != ROLLOUT)
                yield model

    def merged_policy(self, dtype: torch.dtype = torch.float32) -> Any:
        """Returns the policy as a plain model in a type; no other role can be used after."""
        return self.trained[POLICY].to(dtype)

    def named_parameters(self, role: str) -> Iterable[tuple[str, nn.Parameter]]:
        """Returns all parameters of the model."""
        return list(self.trained[role].named_parameters())

    def state_dict(self, role: str) -> dict[str, Tensor]:
        """Returns the state of the model with whole tensors; all processes must call it."""
        return dict(gather_tensors(self.trained[role].state_dict()))

    def load_state_dict(self, role: str, state: dict[str, Tensor]) -> None:
        """Restores a state of whole tensors into the (possibly sharded) model."""
        current = self.trained[role].state_dict()
        local_state = {name: shard_like(value, current.get(name)) for name, value in state.items()}
        self.trained[role].load_state_dict(local_state)

    def shard(self, processes: ProcessGroup, weights: Weights | None = None) -> None:
        """Shards weights, gradients and optimiser state of every model, the reference included.

        `weights` are the files to read the parameters on the meta device from.
        """
        for model in (self.reference, *self.trained.values()):
            shard_model(model, processes.size, self.device)
            # Losses are divided by global counts already: sum the gradients, do not average.
            reduce_gradients_by_sum(model)
            if weights is not None:
                read_own_parts(model, weights, self.device)
        self.lockstep = Lockstep(processes)

    @contextlib.contextmanager
    def unsharded(self) -> Iterator[None]:
        """Gathers the whole policy in every process."""
        sharded = self.lockstep.processes is not None
        with unsharded(self.trained[POLICY]) if sharded else contextlib.nullcontext():
            yield


class SharedBackboneModels:
    """One frozen backbone with a LoRA adapter for the policy and for each critic.

    The reference is the backbone with all adapters off. Reward and cost models that are adapters
    on the same backbone are loaded by `add_scoring_adapter`, so that six models take about the
    memory of one.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        critics: Sequence[str] = (),
        *,
        rank: int = 16,
        first_layer: int = 0,
        compute_dtype: torch.dtype | None = None,
        checkpointing: bool = False,
    ) -> None:
        config = lora_config(model, rank, first_layer, task_type="CAUSAL_LM")
        from peft import get_peft_model

        self.tokenizer = tokenizer
        self.critics = tuple(critics)
        self.compute_dtype = compute_dtype
        self.lockstep = Lockstep()
        make_lm_head_contiguous(model)
        self.checkpointing = checkpointing
        if checkpointing:
            _enable_checkpointing(model)
        self.peft = get_peft_model(model, config, adapter_name=POLICY)
        self.heads: dict[str, nn.Linear] = {}
        self.rollout_model: RolloutModel | None = None
        for critic in critics:
            self.peft.add_adapter(critic, copy.deepcopy(config))
            self.heads[critic] = _new_value_head(model, self.device).requires_grad_(True)
        self.peft.eval()

    @property
    def device(self) -> torch.device:
        """The device of the backbone."""
        first: torch.nn.Parameter = next(self.peft.parameters())
        return first.device

    @contextlib.contextmanager
    def active(self, role: str) -> Iterator[Any]:
        """Switches the adapter of a role on and returns its model.

        In half precision a merged copy of the policy samples the rollouts (see `RolloutModel`).
        It needs whole weights, so with sharded ones the policy samples itself.
        """
        is_rollout = role == ROLLOUT
        if is_rollout:
            if self.compute_dtype is not None and self.lockstep.processes is None:
                if self.rollout_model is None:
                    self.rollout_model = RolloutModel(self.peft, self.compute_dtype)
                yield self.rollout_model.sync(POLICY)
                return
            role = POLICY
        if self.checkpointing:
            self.peft.train(not is_rollout)
        with _autocast(self):
            if role == REFERENCE:
                with self.peft.disable_adapter():
                    yield self.peft.get_base_model()
                return
            self.peft.set_adapter(role)
            if role == POLICY:
                yield self.peft.get_base_model()
            else:
                yield ScalarModel(_transformer_body(self.peft), head=self.heads[role])

    def add_scoring_adapter(self, name: str, folder: str | Path) -> None:
        """Loads a trained reward or cost model (adapter and head) onto the backbone, frozen.

        Raises UserError if its weights do not match the layers of the backbone.
        """
        from peft import LoraConfig
        from safetensors.torch import load_file

        adapter = Path(folder) / "adapter"
        config = LoraConfig.from_pretrained(str(adapter))
        config.task_type, config.inference_mode = "CAUSAL_LM", True
        self.peft.add_adapter(name, config)
        prefix = self.peft.get_base_model().base_model_prefix
        missing = {k: p for k, p in self.peft.named_parameters() if f".{name}." in k}
        with torch.no_grad():
            for key, value in load_file(adapter / "adapter_model.safetensors").items():
                # A reward model is saved from the transformer body, so its keys lack the body's
                # attribute name ("model." in Llama) and the adapter's name.
                target = key.replace("base_model.model.", f"base_model.model.{prefix}.", 1)
                target = target.replace(".weight", f".{name}.weight")
                if target not in missing:
                    raise UserError(
                        f"{adapter}: this model has no layer for {key}; give the reward model as a "
                        f"judge (reward:DIR) instead"
                    )
                missing.pop(target).copy_(value)
            head_weight = load_file(Path(folder) / "head.safetensors")["weight"]
            head = _new_value_head(self.peft.get_base_model(), self.device)
            self.heads[name] = head.requires_grad_(False)
            self.heads[name].weight.copy_(head_weight)
        if any("lora_B" in key for key in missing):
            raise UserError(
                f"{adapter}: {len(missing)} adapter weights of this model are missing; give the "
                f"reward model as a judge (reward:DIR) instead"
            )

    def initialise_critic(self, critic: str, scoring_adapter: str) -> bool:
        """Copies a reward or cost model into a critic, as Safe RLHF does.

        Returns False, and changes nothing, if their adapters have different shapes (LoRA ranks).
        """
        targets = dict(self.named_parameters(critic))
        sources = {
            name.replace(f".{scoring_adapter}.", f".{critic}."): parameter
            for name, parameter in self.named_parameters(scoring_adapter)
        }
        target_shapes = {name: parameter.shape for name, parameter in targets.items()}
        if target_shapes != {name: parameter.shape for name, parameter in sources.items()}:
            return False
        with torch.no_grad():
            for name, parameter in targets.items():
                parameter.copy_(sources[name])
        return True

    def save_policy_adapter(self, folder: str | Path) -> None:
        """Writes the policy's adapter into `folder` in PEFT's layout."""
        self.peft.save_pretrained(str(folder), selected_adapters=[POLICY])
        # PEFT puts adapters that are not called "default" into a subfolder; loaders such as vLLM
        # expect the files at the top.
        subfolder = Path(folder) / POLICY
        if not subfolder.is_dir():
            return
        for path in sorted(subfolder.iterdir()):
            path.rename(Path(folder) / path.name)
        subfolder.rmdir()

    def merged_policy(self, dtype: torch.dtype = torch.float32) -> Any:
        """Merges the policy into the backbone and returns it; no other role can be used after."""
        self.rollout_model = None
        return merge_adapters(self.peft, POLICY, dtype)

    def named_parameters(self, role: str) -> Iterable[tuple[str, nn.Parameter]]:
        """Returns the adapter weights of a role, and its head."""
        parameters: list[tuple[str, nn.Parameter]] = [
            (k, p) for k, p in self.peft.named_parameters() if f".{role}." in k
        ]
        if role in self.heads:
            parameters += [(f"head.{k}", p) for k, p in self.heads[role].named_parameters()]
        return parameters

    def state_dict(self, role: str) -> dict[str, Tensor]:
        """Returns the adapter weights of a role, and its head."""
        return {name: parameter.detach() for name, parameter in self.named_parameters(role)}

    def load_state_dict(self, role: str, state: dict[str, Tensor]) -> None:
        """Restores what `state_dict` returned."""
        with torch.no_grad():
            for name, parameter in self.named_parameters(role):
                parameter.copy_(state[name])

    def shard(self, processes: ProcessGroup, weights: Weights | None = None) -> None:
        """Shards the frozen backbone; adapters and heads are small and stay whole everywhere.

        A backbone that `shard_backbone` has sharded and read stays as it is.
        """
        body = _transformer_body(self.peft)
        if not is_sharded(body):
            adapter_weights = [p for name, p in body.named_parameters() if ".lora_" in name]
            shard_model(body, processes.size, self.device, keep=adapter_weights)
        self.lockstep = Lockstep(processes)

    @contextlib.contextmanager
    def unsharded(self) -> Iterator[None]:
        """Gathers the whole backbone in every process."""
        sharded = self.lockstep.processes is not None
        body = _transformer_body(self.peft)
        with unsharded(body) if sharded else contextlib.nullcontext():
            yield
