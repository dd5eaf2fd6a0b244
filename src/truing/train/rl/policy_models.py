"""The models of an RL run: actor, reference, critics; separate copies, or adapters on one frozen backbone.

Log-probabilities and values come for the answers' tokens alone, `[B, A]`: the value at t is that of the state before
answer token t,
as in safe-rlhf. Only the logits that predict answers are computed.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from truing.core.errors import MissingExtra, UserError
from truing.distributed.process_group import Pace, World
from truing.hf.loading import ScalarModel, make_lm_head_contiguous, position_ids
from truing.train.rl.generate import tempered
from truing.train.rl.rollout import Rollout
from truing.train.rl.rollout_model import Writer
from truing.train.sharding import (
    gather_tensors,
    reduce_gradients_by_sum,
    shard_like,
    shard_model,
    unsharded,
)

ACTOR, WRITER = "actor", "writer"
CRITICS = {
    "ppo": ("reward_critic",),
    "reward-shaping": ("reward_critic",),
    "ppo-lag": ("reward_critic", "cost_critic"),
    "rloo": (),
    "grpo": (),
}


class Crew(Protocol):
    """The models of a run. `role(name)` makes a model the one that `module` runs; nothing else depends on how they share."""

    tokenizer: Any
    critics: tuple[str, ...]
    half: torch.dtype | None
    pace: Pace

    @property
    def device(self) -> torch.device:
        """Where they are."""
        ...

    def role(self, name: str) -> contextlib.AbstractContextManager[Any]:
        """The causal model of `actor` or `reference`; the callable `(ids, mask) -> [B, T]` of a critic; as `writer` the
        model that draws the actor's answers.
        """
        ...

    def named(self, name: str) -> Iterable[tuple[str, nn.Parameter]]:
        """The trained parameters of `actor` or of a critic."""
        ...

    def state(self, name: str) -> dict[str, Tensor]:
        """What must be kept of a trained model."""
        ...

    def load(self, name: str, state: dict[str, Tensor]) -> None:
        """Takes up what `state` gave."""
        ...

    def spread(self, world: World) -> None:
        """Spreads the weights over the processes (FSDP); from then on every pass needs all of them."""
        ...

    def whole(self) -> contextlib.AbstractContextManager[None]:
        """Whole weights in every process, for answers; all processes must enter."""
        ...


def log_probs(model: Any, rollout: Rollout, *, temperature: float = 1.0) -> Tensor:
    """log π of the answers' tokens under the distribution that they are drawn from; 0 behind their ends. `[B, A]`."""
    width = rollout.answer.shape[1]
    out = model(
        input_ids=rollout.ids,
        attention_mask=rollout.mask,
        position_ids=position_ids(rollout.mask),
        use_cache=False,
        logits_to_keep=width + 1,
    )
    logits = tempered(out.logits[:, :-1], temperature)
    chosen = logits.gather(-1, rollout.targets.unsqueeze(-1)).squeeze(-1)
    return (chosen - logits.logsumexp(-1)) * rollout.answer


def values(critic: Any, rollout: Rollout) -> Tensor:
    """The value before each answer token; 0 behind the ends. `[B, A]`."""
    every = critic(rollout.ids, rollout.mask)
    every = every if every.dtype == torch.float64 else every.float()
    return every[:, rollout.start - 1 : -1] * rollout.answer


def trimmed(rollout: Rollout) -> Rollout:
    """Without the columns that are padding in all of its rows."""
    first = int(rollout.mask.bool().any(0).to(torch.uint8).argmax())
    width = int(rollout.lengths.max()) if len(rollout.texts) else 0
    end = rollout.start + width
    if first == 0 and end == rollout.ids.shape[1]:
        return rollout
    ref = None if rollout.ref_log_probs is None else rollout.ref_log_probs[:, :width]
    return replace(
        rollout,
        ids=rollout.ids[:, first:end],
        mask=rollout.mask[:, first:end],
        answer=rollout.answer[:, :width],
        log_probs=rollout.log_probs[:, :width],
        ref_log_probs=ref,
    )


def pieces(rollout: Rollout, rows: Sequence[int], size: int) -> Iterator[tuple[list[int], Rollout]]:
    """`rows` in forwards of at most `size` rows, those of similar length together, without common padding."""
    total = rollout.mask.sum(-1).tolist()
    ordered = sorted(rows, key=lambda r: (-total[r], r))
    for at in range(0, len(ordered), size):
        some = ordered[at : at + size]
        yield some, trimmed(rollout.take(some))


@torch.no_grad()
def over_all(rollout: Rollout, size: int, function: Any) -> Tensor:
    """A `[b, a]` function of pieces, put together for the whole rollout, `[B, A]`."""
    whole = torch.zeros_like(rollout.log_probs)
    for rows, piece in pieces(rollout, range(len(rollout.texts)), size):
        got = function(piece)
        whole[rows, : got.shape[1]] = got.to(whole)
    return whole


def _body(model: Any) -> Any:
    """The transformer without its language-model head."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(plain, plain.base_model_prefix, plain)


def _head(model: Any, given: nn.Linear | None) -> nn.Linear:
    """A critic's head: as given, else zero, so that training begins with values of 0 and not of noise."""
    size = int(model.config.get_text_config().hidden_size)
    first = next(model.parameters())
    wide = first.dtype if first.dtype == torch.float64 else torch.float32
    head = nn.Linear(size, 1, bias=False, dtype=wide, device=first.device)
    with torch.no_grad():
        head.weight.zero_() if given is None else head.weight.copy_(given.weight)
    return head


def arithmetic(crew: Crew) -> Any:
    """The context of a forward pass: weights stay in float32, `half` is what products are computed in."""
    if crew.half is None:
        return contextlib.nullcontext()
    return torch.autocast(crew.device.type, dtype=crew.half)


class SeparateCrew:
    """Whole models: the actor as given, a frozen copy of it as the reference, a body with a head for each critic.

    `starts` gives reward and cost models (`ScalarModel`) that critics begin from, as in Safe RLHF; else they begin from
    the actor's body.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        critics: Sequence[str] = (),
        *,
        starts: dict[str, ScalarModel] | None = None,
        half: torch.dtype | None = None,
    ) -> None:
        self.tokenizer, self.critics, self.half = tokenizer, tuple(critics), half
        self.pace = Pace()
        make_lm_head_contiguous(model)
        self.reference = copy.deepcopy(model).eval().requires_grad_(False)
        self.models: dict[str, Any] = {}
        for name in critics:
            start = (starts or {}).get(name)
            if start is not None:
                self.models[name] = copy.deepcopy(start).requires_grad_(True)
            else:
                self.models[name] = ScalarModel(
                    copy.deepcopy(_body(model)), head=_head(model, None)
                ).requires_grad_(True)
        self.models[ACTOR] = model.requires_grad_(True)
        for m in self.models.values():
            m.eval()  # no dropout: the policy that is trained is the one that drew

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return next(self.models[ACTOR].parameters()).device

    @contextlib.contextmanager
    def role(self, name: str) -> Iterator[Any]:
        """The model of that name."""
        with arithmetic(self):
            yield (
                self.reference
                if name == "reference"
                else self.models[ACTOR if name == WRITER else name]
            )

    def merged(self) -> Any:
        """The actor as a plain model."""
        return self.models[ACTOR]

    def named(self, name: str) -> Iterable[tuple[str, nn.Parameter]]:
        """All parameters of the model."""
        return list(self.models[name].named_parameters())

    def state(self, name: str) -> dict[str, Tensor]:
        """The whole state of the model."""
        return dict(gather_tensors(self.models[name].state_dict()))

    def load(self, name: str, state: dict[str, Tensor]) -> None:
        """Takes up what `state` gave."""
        own = self.models[name].state_dict()
        self.models[name].load_state_dict({k: shard_like(v, own.get(k)) for k, v in state.items()})

    def spread(self, world: World) -> None:
        """All weights, gradients and optimisers of every model, the reference included."""
        for model in (self.reference, *self.models.values()):
            shard_model(model, world.size, self.device)
            reduce_gradients_by_sum(model)
        self.pace = Pace(world)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """The actor in one piece."""
        with unsharded(self.models[ACTOR]) if self.pace.world else contextlib.nullcontext():
            yield


class SharedCrew:
    """One frozen backbone with an adapter (LoRA) for the actor and for each critic; the reference is the backbone with
    adapters off.

    Reward and cost models that are adapters on the same backbone come in by `add_scorer`, so that six models take the
    memory of one.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        critics: Sequence[str] = (),
        *,
        rank: int = 16,
        half: torch.dtype | None = None,
    ) -> None:
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise MissingExtra("train", "adapters (package peft)") from error

        self.tokenizer, self.critics, self.half = tokenizer, tuple(critics), half
        self.pace = Pace()
        config = LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        make_lm_head_contiguous(model)
        self.peft = get_peft_model(model, config, adapter_name=ACTOR)
        self.heads: dict[str, nn.Linear] = {}
        self.writer: Writer | None = None
        for name in critics:
            self.peft.add_adapter(name, copy.deepcopy(config))
            self.heads[name] = _head(model, None).requires_grad_(True)
        self.peft.eval()

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return next(self.peft.parameters()).device

    @contextlib.contextmanager
    def role(self, name: str) -> Iterator[Any]:
        """The backbone with the adapter of that name on."""
        if name == WRITER and self.half is not None and self.pace.world is None:
            self.writer = self.writer or Writer(self.peft, self.half)
            yield self.writer.refreshed(ACTOR)
            return
        name = ACTOR if name == WRITER else name
        with arithmetic(self):
            if name == "reference":
                with self.peft.disable_adapter():
                    yield self.peft.get_base_model()
                return
            self.peft.set_adapter(name)
            yield (
                self.peft.get_base_model()
                if name == ACTOR
                else ScalarModel(_body(self.peft), head=self.heads[name])
            )

    def add_scorer(self, name: str, folder: str | Path) -> None:
        """Puts a reward or cost model that training left (an adapter on the same base, a head) beside the others, frozen."""
        from peft import LoraConfig
        from safetensors.torch import load_file

        adapter = Path(folder) / "adapter"
        config = LoraConfig.from_pretrained(str(adapter))
        config.task_type, config.inference_mode = "CAUSAL_LM", True
        self.peft.add_adapter(name, config)
        prefix = self.peft.get_base_model().base_model_prefix
        own = {k: p for k, p in self.peft.named_parameters() if f".{name}." in k}
        with torch.no_grad():
            for key, value in load_file(adapter / "adapter_model.safetensors").items():
                # saved from the body alone, so its names lack the body's own
                there = key.replace("base_model.model.", f"base_model.model.{prefix}.", 1)
                there = there.replace(".weight", f".{name}.weight")
                if there not in own:
                    raise UserError(
                        f"{adapter}: {key} has no place in this model; give the reward model as a judge instead"
                    )
                own.pop(there).copy_(value)
            head = load_file(Path(folder) / "head.safetensors")["weight"]
            self.heads[name] = _head(self.peft.get_base_model(), None).requires_grad_(False)
            self.heads[name].weight.copy_(head)
        if any("lora_B" in k for k in own):
            raise UserError(
                f"{adapter}: lacks weights of {len(own)} layers; give the reward model as a judge instead"
            )

    def start(self, critic: str, scorer: str) -> bool:
        """Lets a critic begin from a reward or cost model (as Safe RLHF does); false where their ranks differ."""
        own = dict(self.named(critic))
        given = {k.replace(f".{scorer}.", f".{critic}."): p for k, p in self.named(scorer)}
        if {k: p.shape for k, p in own.items()} != {k: p.shape for k, p in given.items()}:
            return False
        with torch.no_grad():
            for key, p in own.items():
                p.copy_(given[key])
        return True

    def save_adapter(self, folder: str | Path) -> None:
        """The actor's adapter alone, in peft's layout."""
        self.peft.save_pretrained(str(folder), selected_adapters=[ACTOR])
        inside = Path(folder) / ACTOR
        for path in sorted(inside.iterdir()) if inside.is_dir() else ():
            path.rename(Path(folder) / path.name)
        if inside.is_dir():
            inside.rmdir()

    def merged(self) -> Any:
        """The actor merged into the backbone: a plain model; nothing else of the crew can be used afterwards."""
        self.peft.set_adapter(ACTOR)
        for name in list(self.heads):
            self.peft.delete_adapter(name)
        return self.peft.merge_and_unload()

    def named(self, name: str) -> Iterable[tuple[str, nn.Parameter]]:
        """The adapter's weights and the head."""
        own = [(k, p) for k, p in self.peft.named_parameters() if f".{name}." in k]
        return own + ([("head.weight", self.heads[name].weight)] if name in self.heads else [])

    def state(self, name: str) -> dict[str, Tensor]:
        """The adapter's weights and the head."""
        return {k: p.detach() for k, p in self.named(name)}

    def load(self, name: str, state: dict[str, Tensor]) -> None:
        """Takes up what `state` gave."""
        with torch.no_grad():
            for key, p in self.named(name):
                p.copy_(state[key])

    def spread(self, world: World) -> None:
        """The frozen backbone; adapters and heads are small and stay whole in every process."""
        body = _body(self.peft)
        shard_model(
            body,
            world.size,
            self.device,
            keep=[p for k, p in body.named_parameters() if ".lora_" in k],
        )
        self.pace = Pace(world)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """The backbone in one piece."""
        with unsharded(_body(self.peft)) if self.pace.world else contextlib.nullcontext():
            yield
