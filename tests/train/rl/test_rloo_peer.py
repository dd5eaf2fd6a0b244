"""Two RLOO steps of TRL's own trainer, replayed: advantages, loss and gradients (`make test-peers`).

TRL samples and trains; here the same answers, rewards and weights must give the same numbers. The
second step repeats the rollout of the first, so its ratios are not 1.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.peers import peer_python

from truing.distributed.process_group import ProcessGroup
from truing.train.rl.advantages import ScoreNormalizers, compute_advantages
from truing.train.rl.constraint_set import ConstraintSet
from truing.train.rl.forward import answer_log_probs
from truing.train.rl.policy_loss import policy_loss
from truing.train.rl.reward_signals import GlobalScores
from truing.train.rl.rollout import Rollout
from truing.train.rl.settings import RLSettings

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1200)]

GROUP, KL, CLIP = 4, 0.05, 0.02  # a narrow clip, so that some ratios of the second step are outside

# Trains the model in the folder for two steps and writes what the loss read and returned.
TRL_SCRIPT = """
import sys
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import RLOOConfig, RLOOTrainer

folder, group, kl, clip = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
steps = []

def reward(completion_ids, **_):
    return [float(sum(t % 3 == 0 for t in ids)) for ids in completion_ids]

class Recording(RLOOTrainer):
    def _calculate_rewards(self, *arguments, **options):
        self.last_rewards = super()._calculate_rewards(*arguments, **options)
        return self.last_rewards

    def _get_per_token_logps_and_entropies(self, model, *arguments, **options):
        result = super()._get_per_token_logps_and_entropies(model, *arguments, **options)
        if model is self.ref_model:
            self.last_reference = result[0]
        return result

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        # The rows are shuffled before they come to the loss.
        return {**output, "row": torch.arange(len(output["completion_ids"]))}

    def _compute_loss(self, model, inputs):
        order = inputs["row"].argsort()
        weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        loss = super()._compute_loss(model, inputs)
        parameters = dict(model.named_parameters())
        gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        tensors = {k: v[order] for k, v in inputs.items() if torch.is_tensor(v) and v.dim()}
        steps.append({
            "weights": weights,
            "inputs": tensors,
            "loss": loss.detach(),
            "gradients": dict(zip(parameters, gradients)),
            "rewards": self.last_rewards.sum(1),
            "reference": self.last_reference,
        })
        return loss

config = RLOOConfig(
    output_dir=folder + "/trl", report_to=[], use_cpu=True, bf16=False, learning_rate=1e-2,
    lr_scheduler_type="constant", per_device_train_batch_size=2 * group, num_generations=group,
    max_completion_length=8, beta=kl, epsilon=clip, temperature=1.0, max_steps=2, num_iterations=2,
    steps_per_generation=1, gradient_accumulation_steps=1, save_strategy="no",
    gradient_checkpointing=False, disable_dropout=True, seed=3, shuffle_dataset=False,
)
prompts = ["ash bay", "gum hay ivy", "fog", "dew elm"]
trainer = Recording(
    model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64),
    reward_funcs=reward, args=config,
    processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
    train_dataset=Dataset.from_list([{"prompt": p} for p in prompts]),
)
trainer.ref_model = trainer.ref_model.double()
trainer.train()
torch.save(steps, folder + "/steps.pt")
"""


@pytest.fixture(scope="module")
def trl_steps(task: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What TRL's loss read and returned in each step."""
    folder = tmp_path_factory.mktemp("rloo")
    task.model(0, dtype=torch.float64).save_pretrained(folder)
    task.tokenizer().save_pretrained(folder)
    arguments = [str(folder), str(GROUP), str(KL), str(CLIP)]
    command = [peer_python("trl"), "-W", "ignore", "-c", TRL_SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    steps: list[dict[str, Any]] = torch.load(Path(folder) / "steps.pt", weights_only=True)
    return steps


def as_rollout(step: dict[str, Any], old_log_probs: Any) -> Rollout:
    """The answers of TRL's step with the log-probabilities of the policy that sampled them."""
    inputs = step["inputs"]
    count = len(inputs["completion_ids"])
    return Rollout(
        prompts=(None,) * count,  # type: ignore[arg-type]
        global_rows=tuple(range(count)),
        input_ids=torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
        attention_mask=torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
        answer_mask=inputs["completion_mask"],
        log_probs=old_log_probs,
        ended=(True,) * count,
        texts=("text",) * count,
        ref_log_probs=step["reference"],
    )


def test_advantages_loss_and_gradients_are_those_of_trl(
    task: ModuleType, trl_steps: list[dict[str, Any]]
) -> None:
    settings = RLSettings(
        method="rloo",
        out="",
        prompts=2,
        n=GROUP,
        kl=KL,
        clip=CLIP,
        truncation_penalty=0.0,
        importance_cap=0.0,
    )
    policy = task.model(0, dtype=torch.float64)
    policy.load_state_dict(trl_steps[0]["weights"])
    first = as_rollout(trl_steps[0], trl_steps[0]["reference"])
    with torch.no_grad():
        old_log_probs = answer_log_probs(policy, first)
    assert len(trl_steps) == 2
    for step in trl_steps:
        rollout = as_rollout(step, old_log_probs)
        scored = torch.ones(len(rollout.texts), dtype=torch.bool)
        advantages = compute_advantages(
            settings,
            rollout,
            GlobalScores(step["rewards"].double(), {}, scored),
            {},
            kl_coefficient=KL,
            constraints=ConstraintSet.from_settings(settings, costs=False),
            normalizers=ScoreNormalizers.from_settings(settings),
            processes=ProcessGroup(),
        )
        torch.testing.assert_close(
            advantages.reward.advantages, step["inputs"]["advantages"].double(), atol=1e-5, rtol=0
        )
        policy.load_state_dict(step["weights"])
        policy.zero_grad()
        new_log_probs = answer_log_probs(policy, rollout)
        # TRL's advantages are in single precision: with them the rest must agree in double.
        trl_advantages = step["inputs"]["advantages"].double(), {}
        loss = policy_loss(settings, new_log_probs, rollout, trl_advantages, {}, KL)
        torch.testing.assert_close(loss, step["loss"].double(), atol=1e-6, rtol=1e-6)
        loss.backward()
        for name, parameter in policy.named_parameters():
            expected = step["gradients"][name].double()
            torch.testing.assert_close(parameter.grad, expected, atol=1e-6, rtol=1e-5)


def test_the_second_step_has_ratios_on_both_sides_of_the_clip(
    trl_steps: list[dict[str, Any]],
) -> None:
    first, second = trl_steps
    assert torch.equal(first["inputs"]["completion_ids"], second["inputs"]["completion_ids"])
    change = (second["loss"] - first["loss"]).abs()
    assert float(change) > 1e-4
