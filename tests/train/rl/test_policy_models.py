"""The models by role: adapters learn, the reference stays, the sampling copy equals the policy."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from truing.core.errors import PlanError
from truing.distributed.process_group import ProcessGroup
from truing.hf.loading import make_lm_head_contiguous
from truing.train.rl.policy_models import (
    COST_CRITIC,
    CRITICS_BY_METHOD,
    POLICY,
    REFERENCE,
    REWARD_CRITIC,
    ROLLOUT,
    SeparateModels,
    SharedBackboneModels,
)

IDS = torch.tensor([[4, 5, 6, 7], [5, 4, 4, 6]])


def changed_names(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def clone(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.clone() for name, value in state.items()}


def test_adapters_from_a_layer_on_learn_and_sample(make_trainer: Any, task: Any) -> None:
    model = task.model(0)
    last = model.config.num_hidden_layers - 1
    models = SharedBackboneModels(model, task.tokenizer(), rank=4, first_layer=last)
    trainer = make_trainer("grpo", models=models, lora=4, lora_from=last, steps=2, kl=0.1)
    before = clone(models.state_dict(POLICY))
    assert {name.split("layers.")[1].split(".")[0] for name in before} == {str(last)}
    trainer.run()
    assert changed_names(before, models.state_dict(POLICY))


def test_every_adapter_and_head_learns(make_trainer: Any, task: Any) -> None:
    """PEFT asks gradients of the active adapter alone; optimisers must have the others' too."""
    critics = CRITICS_BY_METHOD["ppo-lag"]
    models = SharedBackboneModels(task.model(0), task.tokenizer(), critics, rank=4)
    trainer = make_trainer("ppo-lag", models=models, lora=4, steps=2, kl=0.1)
    roles = (POLICY, *critics)
    before = {role: clone(models.state_dict(role)) for role in roles}
    backbone = {
        name: parameter.detach().clone()
        for name, parameter in models.peft.named_parameters()
        if ".lora_" not in name
    }
    trainer.run()
    for role in roles:
        after = models.state_dict(role)
        trained = {name for name in after if "lora_B" in name or "head" in name}
        assert trained <= changed_names(before[role], after), role
        gradients = [parameter.grad for _, parameter in models.named_parameters(role)]
        assert gradients == [None] * len(gradients), role  # none is left for the next step
    assert not changed_names(backbone, dict(models.peft.named_parameters()))


def test_roles_of_the_shared_backbone_are_separate(task: Any) -> None:
    model = task.model(0)
    base_logits = model(input_ids=IDS).logits
    critics = (REWARD_CRITIC, COST_CRITIC)
    models = SharedBackboneModels(model, task.tokenizer(), critics, rank=4)
    names = {r: {n for n, _ in models.named_parameters(r)} for r in (POLICY, *critics)}
    assert not names[POLICY] & names[REWARD_CRITIC]
    assert "head.weight" in names[COST_CRITIC]
    with models.active(POLICY) as policy:
        policy(input_ids=IDS).logits.square().sum().backward()
    assert all(p.grad is None for _, p in models.named_parameters(REWARD_CRITIC))
    with torch.no_grad():
        for _, parameter in models.named_parameters(POLICY):
            parameter.add_(0.1)
    with models.active(POLICY) as policy:
        assert not torch.allclose(policy(input_ids=IDS).logits, base_logits)
    with models.active(REFERENCE) as reference:
        torch.testing.assert_close(reference(input_ids=IDS).logits, base_logits, rtol=0, atol=0)
    with models.active(REWARD_CRITIC) as critic, torch.no_grad():
        assert float(critic(IDS, torch.ones_like(IDS)).abs().max()) == 0.0


def test_separate_models_start_equal_and_restore_their_state(task: Any) -> None:
    models = SeparateModels(task.model(0), task.tokenizer(), (REWARD_CRITIC,))
    with models.active(POLICY) as policy, models.active(REFERENCE) as reference, torch.no_grad():
        assert torch.equal(policy(input_ids=IDS).logits, reference(input_ids=IDS).logits)
    state = clone(models.state_dict(POLICY))
    with torch.no_grad():
        for _, parameter in models.named_parameters(POLICY):
            parameter.add_(1.0)
    assert changed_names(state, models.state_dict(POLICY))
    models.load_state_dict(POLICY, state)
    assert not changed_names(state, models.state_dict(POLICY))
    with models.active(REWARD_CRITIC) as critic, torch.no_grad():
        assert float(critic(IDS, torch.ones_like(IDS)).abs().max()) == 0.0


@pytest.mark.parametrize("compute_dtype", [torch.float32, None])
def test_the_sampling_copy_equals_the_policy(task: Any, compute_dtype: Any) -> None:
    models = SharedBackboneModels(
        task.model(0), task.tokenizer(), rank=4, compute_dtype=compute_dtype
    )
    with torch.no_grad():
        for name, parameter in models.named_parameters(POLICY):
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    with models.active(ROLLOUT) as rollout_model, torch.no_grad():
        sampling_logits = rollout_model(input_ids=IDS).logits.clone()
        has_adapters = any("lora" in name for name, _ in rollout_model.named_parameters())
        assert has_adapters == (compute_dtype is None)  # without a dtype: the policy itself
    with torch.no_grad():
        models.peft.set_adapter(POLICY)
        policy_logits = models.peft.get_base_model()(input_ids=IDS).logits
        torch.testing.assert_close(sampling_logits, policy_logits, rtol=1e-4, atol=1e-4)
        for _, parameter in models.named_parameters(POLICY):
            parameter.zero_()
    with models.active(ROLLOUT) as rollout_model, torch.no_grad():
        synced_logits = rollout_model(input_ids=IDS).logits
        with models.peft.disable_adapter():
            base_logits = models.peft.get_base_model()(input_ids=IDS).logits
    torch.testing.assert_close(synced_logits, base_logits, rtol=1e-4, atol=1e-4)


def test_the_sampling_copy_keeps_the_frequencies_of_rotary_embeddings(task: Any) -> None:
    models = SharedBackboneModels(
        task.model(0), task.tokenizer(), rank=4, compute_dtype=torch.bfloat16
    )
    base = dict(models.peft.get_base_model().named_buffers())
    with models.active(ROLLOUT) as rollout_model:
        copied = dict(rollout_model.named_buffers())
    frequencies = [name for name in copied if name.endswith("inv_freq")]
    assert frequencies
    for name in frequencies:
        assert copied[name].dtype is torch.float32
        assert torch.equal(copied[name], base[name])


def test_the_head_reads_contiguous_rows(task: Any) -> None:
    model = task.model(0)
    seen: list[bool] = []
    expected = model(input_ids=IDS).logits[:, -2:]
    make_lm_head_contiguous(model)
    make_lm_head_contiguous(model)  # a second call adds no second hook
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(args[0].is_contiguous())
    )
    torch.testing.assert_close(model(input_ids=IDS, logits_to_keep=2).logits, expected)
    assert seen == [True]
    assert len(model.get_output_embeddings()._forward_pre_hooks) == 2


def test_sharded_weights_need_prompts_that_divide(
    make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProcessGroup, "__init__", lambda self: self.__dict__.update(rank=0, size=3))
    with pytest.raises(PlanError, match=r"shard: prompts = 4 does not divide among 3 processes"):
        make_trainer("grpo", shard=True)
