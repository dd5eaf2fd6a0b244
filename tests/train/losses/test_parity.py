"""Values and gradients of the losses against the numbers of the published projects.

Runs all cases of the parity folder (`TRUING_PARITY`).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.train.parity_cases import assert_close, float64, load_cases

from truing.train import losses as L


def gradients(loss: Any, *leaves: Any) -> Any:
    return torch.autograd.grad(loss, leaves, retain_graph=True)


LEVEL = {"sequence-wise": "sequence", "token-wise": "token"}


@pytest.mark.parametrize("case", load_cases("reward_model_loss"))
def test_reward_model(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    chosen, rejected = (
        float64(inputs["better_scores"], grad=True),
        float64(inputs["worse_scores"], grad=True),
    )
    pairs = L.PairScores(
        chosen,
        rejected,
        torch.tensor(inputs["better_attention_mask"]),
        torch.tensor(inputs["worse_attention_mask"]),
        torch.tensor(inputs["better_input_ids"]),
        torch.tensor(inputs["worse_input_ids"]),
    )
    loss = L.reward_loss(
        pairs, level=LEVEL[inputs["loss_type"]], regularization=inputs["regularization"]
    )
    assert_close(loss, expected["loss"])
    assert_close(pairs.chosen_end, expected["better_end_reward"])
    assert_close(pairs.rejected_end, expected["worse_end_reward"])
    assert_close(pairs.accuracy(), expected["accuracy"])
    for gradient, name in zip(
        gradients(loss, chosen, rejected), ("dloss_dbetter_scores", "dloss_dworse_scores")
    ):
        assert_close(gradient, expected[name])


@pytest.mark.parametrize("case", load_cases("cost_model_loss"))
def test_cost_model(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    safer, unsafer = (
        float64(inputs["safer_costs"], grad=True),
        float64(inputs["unsafer_costs"], grad=True),
    )
    pairs = L.PairScores(
        safer,
        unsafer,
        torch.tensor(inputs["safer_attention_mask"]),
        torch.tensor(inputs["unsafer_attention_mask"]),
        torch.tensor(inputs["safer_input_ids"]),
        torch.tensor(inputs["unsafer_input_ids"]),
    )
    signs = (torch.tensor(inputs["safer_safety_sign"]), torch.tensor(inputs["unsafer_safety_sign"]))
    options = {"level": LEVEL[inputs["loss_type"]], "regularization": inputs["regularization"]}
    loss = L.cost_loss(pairs, signs, **options)
    assert_close(loss, expected["loss"])
    assert_close(L.cost_loss(pairs, torch.stack(signs, -1), **options), expected["loss"])
    assert_close(pairs.chosen_end, expected["safer_end_cost"])
    assert_close(pairs.rejected_end, expected["unsafer_end_cost"])
    assert_close(pairs.accuracy(cost=True), expected["accuracy"])
    assert_close(pairs.sign_accuracy(signs), expected["accuracy_sign"])
    if "dloss_dsafer_costs" in expected:
        for gradient, name in zip(
            gradients(loss, safer, unsafer), ("dloss_dsafer_costs", "dloss_dunsafer_costs")
        ):
            assert_close(gradient, expected[name])


@pytest.mark.parametrize("case", load_cases("trl_reward_trainer"))
def test_trl_reward(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    chosen, rejected = (
        float64(inputs["chosen_rewards"], grad=True),
        float64(inputs["rejected_rewards"], grad=True),
    )
    margin = None if inputs["margin"] is None else float64(inputs["margin"])
    pairs = L.PairScores(chosen, rejected)
    loss = L.reward_loss(pairs, center=inputs["center_rewards_coefficient"], margin=margin)
    assert_close(loss, expected["loss"])
    assert_close(pairs.accuracy(), expected["accuracy"])
    assert_close((chosen - rejected).mean(), expected["mean_margin"])
    for gradient, name in zip(
        gradients(loss, chosen, rejected), ("dloss_dchosen", "dloss_drejected")
    ):
        assert_close(gradient, expected[name])


@pytest.mark.parametrize("case", load_cases("trl_dpo_trainer"))
@pytest.mark.parametrize("masked", [True, False])
def test_trl_dpo(case: Any, masked: bool) -> None:
    inputs, expected = case["inputs"], case["expected"]
    logps = float64(inputs["policy_token_logps_chosen_then_rejected"], grad=True)
    ref = float64(inputs["ref_token_logps_chosen_then_rejected"])
    mask = torch.tensor(inputs["completion_mask_chosen_then_rejected"]) if masked else None
    loss = L.dpo_loss(
        logps,
        ref,
        kind=inputs["loss_type"],
        beta=inputs["beta"],
        label_smoothing=inputs["label_smoothing"],
        mask=mask,
        tau=inputs["discopop_tau"],
    )
    assert_close(loss, expected["loss"])
    assert_close(gradients(loss, logps)[0], expected["dloss_dlogps"])
    chosen, rejected = L.direct_rewards(logps, ref, beta=inputs["beta"])
    for rewards, name in (
        (chosen, "chosen"),
        (rejected, "rejected"),
        (chosen - rejected, "margins"),
    ):
        assert_close(rewards.mean(), expected["metrics"][f"rewards/{name}"])
    accuracy = float((chosen > rejected).double().mean())
    # TRL logs it in float32.
    assert accuracy == pytest.approx(expected["metrics"]["rewards/accuracies"], rel=1e-6)


@pytest.mark.usefixtures("parity_dir")
def test_every_kind_of_dpo_has_a_case() -> None:
    all_cases = load_cases("trl_dpo_trainer")
    assert {c.values[0]["inputs"]["loss_type"] for c in all_cases} == set(L.DPO_KINDS)


@pytest.mark.parametrize("case", load_cases("dpo_loss_safe_rlhf"))
def test_safe_rlhf_dpo_leaves_out_the_first_differing_token(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    all_ids = torch.cat(
        [torch.tensor(inputs["better_input_ids"]), torch.tensor(inputs["worse_input_ids"])]
    )
    mask = torch.cat(
        [
            torch.tensor(inputs["better_attention_mask"]),
            torch.tensor(inputs["worse_attention_mask"]),
        ]
    )
    policy = L.token_log_probs(float64(inputs["policy_logits_better_then_worse"]), all_ids)
    ref = L.token_log_probs(float64(inputs["ref_logits_better_then_worse"]), all_ids)
    first = L.first_difference(*all_ids.chunk(2)).repeat(2)
    # The position of the token that a shifted log-probability belongs to.
    position = torch.arange(1, all_ids.shape[1])
    from_first = (position >= first.unsqueeze(-1)) & mask[:, 1:].bool()
    ours = L.dpo_loss(
        policy * from_first, ref * from_first, kind="sigmoid", beta=inputs["scale_coeff"]
    )
    assert_close(ours, case["reference_only"]["loss_with_first_diverging_token_included"])
    # safe-rlhf slices the shifted row by unshifted indices: one token late at both ends.
    shifted = (position > first.unsqueeze(-1)) & mask[:, :-1].bool()
    theirs = L.dpo_loss(policy * shifted, ref * shifted, kind="sigmoid", beta=inputs["scale_coeff"])
    assert_close(theirs, expected["loss"])
    assert abs(float(ours) - float(theirs)) > 1e-4


@pytest.mark.parametrize("case", load_cases("trl_kto_trainer"))
def test_trl_kto(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    logps = float64(inputs["policy_token_logps"], grad=True)
    loss = L.kto_loss(
        logps,
        float64(inputs["ref_logps_sum"]),
        torch.tensor(inputs["label"]),
        float64(inputs["KL_logps_sum"]),
        float64(inputs["ref_KL_logps_sum"]),
        kind=inputs["loss_type"],
        beta=inputs["beta"],
        weights=(inputs["desirable_weight"], inputs["undesirable_weight"]),
    )
    assert_close(loss, expected["loss"])
    assert_close(gradients(loss, logps)[0], expected["dloss_dlogps"])


@pytest.mark.parametrize("case", load_cases("ptx_loss"))
def test_ptx(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    logits = float64(inputs["logits"], grad=True)
    loss = L.ptx_loss(logits, torch.tensor(inputs["labels"]), coefficient=inputs["ptx_coeff"])
    assert_close(loss, expected["backpropagated"])
    assert_close(L.sft_loss(logits, torch.tensor(inputs["labels"])), expected["ptx_loss_logged"])
    assert_close(gradients(loss, logits)[0], expected["dloss_dlogits"])


@pytest.mark.parametrize("case", load_cases("score_normalizer"))
def test_normalizer(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    normalizer = L.ScoreNormalizer(
        inputs["normalizer_type"], inputs["normalize_function"], inputs["momentum"]
    )
    for batch, state in zip(inputs["batches"], expected["state_after_each_batch"]):
        normalizer.update(float64(batch))
        assert_close(normalizer.mean, state["mean"])
        assert_close(normalizer.var, state["var"])
        assert normalizer.count.tolist() == state["count"]
    assert_close(normalizer(float64(inputs["x"])), expected["normalized_x"])


@pytest.mark.parametrize("case", load_cases("kl_penalised_rewards"))
def test_kl_penalised_rewards(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    base = (float64(inputs["log_probs"]), float64(inputs["ref_log_probs"]))
    options = {"coefficient": inputs["kl_coeff"], "clip": inputs["clip_range_score"]}
    mask = torch.tensor(inputs["sequence_mask"])
    assert_close(
        L.kl_penalised_rewards(*base, float64(inputs["reward"]), mask, **options),
        expected["ppo_rewards"],
    )
    assert_close(
        L.kl_penalised_rewards(*base, float64(inputs["reward"]), mask, **options),
        expected["ppo_lag_rewards"],
    )
    assert_close(
        L.kl_penalised_rewards(*base, float64(inputs["cost"]), mask, **options, sign=-1),
        expected["ppo_lag_costs"],
    )


@pytest.mark.parametrize("case", load_cases("gae"))
def test_gae(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    advantages, returns = L.gae(
        float64(inputs["values"]),
        float64(inputs["rewards"]),
        torch.tensor(inputs["sequence_mask"]),
        inputs["start"],
        gamma=inputs["gamma"],
        lam=inputs["gae_lambda"],
    )
    assert_close(advantages, expected["advantages"])
    assert_close(returns, expected["returns"])


@pytest.mark.parametrize("case", load_cases("critic_loss"))
def test_critic(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    values = float64(inputs["values"], grad=True)
    loss = L.critic_loss(
        values,
        float64(inputs["old_values"]),
        float64(inputs["returns"]),
        torch.tensor(inputs["mask"]),
        clip=inputs["clip_range_value"],
    )
    assert_close(loss, expected["loss"])
    assert_close(gradients(loss, values)[0], expected["dloss_dvalues"])


@pytest.mark.parametrize("case", load_cases("actor_loss"))
def test_combined_and_separate_actor_loss(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    logps, mask = float64(inputs["log_probs"], grad=True), torch.tensor(inputs["mask"])
    a_r, a_c, lam = (
        float64(inputs["reward_advantages"]),
        float64(inputs["cost_advantages"]),
        inputs["lambda"],
    )
    loss = L.ppo_actor_loss(
        logps,
        float64(inputs["old_log_probs"]),
        L.combined_advantage(a_r, a_c, lam),
        mask,
        clip=inputs["clip_range_ratio"],
    )
    assert_close(loss, expected["ppo_lag_loss"])
    assert_close(gradients(loss, logps)[0], expected["ppo_lag_dloss_dlog_probs"])
    plain = L.ppo_actor_loss(
        logps, float64(inputs["old_log_probs"]), a_r, mask, clip=inputs["clip_range_ratio"]
    )
    assert_close(plain, expected["ppo_loss_on_reward_advantages"])
    assert_close(gradients(plain, logps)[0], expected["ppo_dloss_dlog_probs"])
    if case.get("reference_only"):
        separate = L.separate_actor_loss(
            logps,
            float64(inputs["old_log_probs"]),
            (a_r, a_c),
            lam,
            mask,
            clip=inputs["clip_range_ratio"],
            cost_side="min",
        )
        assert_close(separate, case["reference_only"]["paper_separate_clip_loss"])


@pytest.mark.parametrize("case", load_cases("lambda_update"))
def test_multiplier(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]["after_each_rl_step"]
    multiplier = L.LagrangeMultiplier(
        inputs["lambda_init"],
        inputs["lambda_lr"],
        inputs["threshold"],
        maximum=inputs["lambda_max"],
        window=inputs["episode_cost_window_size"],
        delay=inputs["lambda_update_delay_steps"],
    )
    after = iter(expected)
    for batch in inputs["cost_batches"]:
        multiplier.observe(batch)
        for _ in range(inputs["update_iters"]):
            state = next(after)
            assert_close(multiplier.step(), state["lambda"])
            assert_close(multiplier.episode_cost, state["episode_cost"])
            restored = L.LagrangeMultiplier(
                9.0, inputs["lambda_lr"], inputs["threshold"], maximum=inputs["lambda_max"]
            )
            restored.load_state_dict(multiplier.state_dict())
            assert restored.value == multiplier.value


@pytest.mark.parametrize("case", load_cases("trl_group_advantages"))
def test_group_advantages(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    if "rewards_per_func" in inputs:
        advantages = L.group_advantages(
            float64(inputs["rewards_per_func"]),
            float64(inputs["reward_weights"]),
            inputs["num_generations"],
            kind="grpo",
            scale=inputs["scale_rewards"],
        )
    else:
        scale = "batch" if inputs["normalize_advantages"] else "none"
        advantages = L.group_advantages(
            float64(inputs["rewards"]), None, inputs["num_generations"], kind="rloo", scale=scale
        )
    assert_close(advantages, expected["advantages"])


@pytest.mark.parametrize("case", load_cases("trl_grpo_rloo_loss"))
def test_grpo(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    logps = float64(inputs["token_logps"], grad=True)
    ref = None if inputs.get("ref_token_logps") is None else float64(inputs["ref_token_logps"])
    kind = inputs.get("loss_type") or "rloo"
    # TRL's RLOO keeps the sums of whole answers, `[B]`.
    old_log_probs = inputs.get("old_token_logps", inputs.get("old_logps"))
    loss = L.grpo_loss(
        logps,
        float64(old_log_probs),
        ref,
        float64(inputs["advantages"]),
        torch.tensor(inputs["completion_mask"]),
        epsilon=inputs["epsilon"],
        beta=inputs.get("beta") or 0.0,
        kind=kind,
        length=inputs.get("max_completion_length"),
    )
    assert_close(loss, expected["loss"])
    assert_close(gradients(loss, logps)[0], expected["dloss_dlogps"])


@pytest.mark.parametrize("case", load_cases("trl_1_12_ppo"))
def test_trl_ppo(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    last = torch.tensor(inputs["last_response_index"]).unsqueeze(-1)
    position = torch.arange(len(inputs["logprobs"][0]))
    mask, mask_with_next = (position <= last).int(), (position <= last + 1).int()
    logps, ref, values = (
        float64(inputs["logprobs"]),
        float64(inputs["ref_logprobs"]),
        float64(inputs["values"]),
    )
    if inputs["kl_estimator"] == "k1":
        rewards = L.kl_penalised_rewards(
            logps, ref, float64(inputs["scores"]), mask, coefficient=inputs["kl_coef"], place="next"
        )
    else:
        score = L.kl_penalised_rewards(
            logps, ref, float64(inputs["scores"]), mask, coefficient=0.0, place="next"
        )
        rewards = score - inputs["kl_coef"] * L.kl_estimate(logps - ref, "k3")
    if inputs["whiten_rewards"]:
        rewards = L.whiten(rewards, mask_with_next, shift_mean=False)
    assert_close(rewards, expected["rewards"])
    advantages, returns = L.gae(
        values, rewards, mask_with_next, 0, gamma=inputs["gamma"], lam=inputs["lam"]
    )
    white = L.whiten(advantages, mask)
    assert_close(white, expected["advantages_whitened"])
    assert_close(returns, expected["returns"])
    actor = L.ppo_actor_loss(
        float64(inputs["new_logprobs"]),
        logps,
        white,
        mask,
        clip=inputs["cliprange"],
        reduction="token",
    )
    critic = L.critic_loss(
        float64(inputs["new_values"]),
        values,
        returns,
        mask_with_next,
        clip=inputs["cliprange_value"],
        reduction="token",
    )
    assert_close(actor, expected["pg_loss"])
    assert_close(critic, expected["vf_loss"])
    assert_close(actor + inputs["vf_coef"] * critic, expected["loss"])


@pytest.mark.parametrize("case", load_cases("rl_step_end_to_end"))
def test_rl_step(case: Any) -> None:
    """The whole step composed of the pure functions, against what safe-rlhf logs."""
    inputs, expected = case["inputs"], case["expected"]
    hyper, start = inputs["hyperparameters"], inputs["prompt_length"] - 1
    mask = torch.tensor(inputs["attention_mask"])[:, 1:]
    old, ref = float64(inputs["old_log_probs"]), float64(inputs["ref_log_probs"])
    now = L.token_log_probs(float64(inputs["actor_logits_now"]), torch.tensor(inputs["input_ids"]))
    reward, tail = float64(inputs["reward"]), mask[:, start:]
    options = {"coefficient": hyper["kl_coeff"], "clip": hyper["clip_range_score"]}
    span = {"gamma": hyper["gamma"], "lam": hyper["gae_lambda"]}

    def critic(score: Any, values: Any, now_scores: Any, sign: int) -> tuple[Any, Any, Any]:
        shaped = L.kl_penalised_rewards(old, ref, score, mask, **options, sign=sign)
        advantage, returns = L.gae(float64(values), shaped, mask, start, **span)
        loss = L.critic_loss(
            float64(now_scores)[:, :-1][:, start:],
            float64(values)[:, start:],
            returns,
            tail,
            clip=hyper["clip_range_value"],
        )
        return advantage, returns, loss

    if "lambda_value" in inputs:
        reward = reward - inputs["lambda_value"] * float64(inputs["cost"])
        assert_close(reward.mean(), expected["train/shaped_reward"])
    advantage, returns, critic_loss = critic(
        reward, inputs["old_reward_values"], inputs["reward_critic_scores_now"], 1
    )
    assert_close(critic_loss, expected["train/reward_critic_loss"])
    assert_close(
        L.masked_mean(returns, tail),
        expected.get("train/reward_return", expected.get("train/shaped_reward_return")),
    )
    assert_close(
        L.masked_mean(advantage, tail),
        expected.get("train/reward_advantage", expected.get("train/shaped_reward_advantage")),
    )
    if "lambda_init" in inputs:
        multiplier = L.LagrangeMultiplier(
            inputs["lambda_init"],
            inputs["lambda_lr"],
            inputs["threshold"],
            maximum=inputs["lambda_max"],
        )
        multiplier.observe(inputs["episode_cost_window"])
        assert_close(multiplier.episode_cost, expected["train/episode_cost"])
        assert_close(multiplier.step(), expected["train/lambda"])
        cost_advantage, cost_returns, cost_loss = critic(
            float64(inputs["cost"]), inputs["old_cost_values"], inputs["cost_critic_scores_now"], -1
        )
        assert_close(cost_loss, expected["train/cost_critic_loss"])
        assert_close(L.masked_mean(cost_advantage, tail), expected["train/cost_advantage"])
        assert_close(L.masked_mean(cost_returns, tail), expected["train/cost_return"])
        advantage = L.combined_advantage(advantage, cost_advantage, multiplier.value)
    loss = L.ppo_actor_loss(
        now[:, start:], old[:, start:], advantage, tail, clip=hyper["clip_range_ratio"]
    )
    assert_close(loss, expected["train/actor_loss"])
    kl = ((old - ref) * mask)[:, start:].sum(-1).mean()
    assert_close(kl, expected["train/kl_divergence"])
