"""The losses against the published projects' own numbers: every case that lies in the parity folder, values and
gradients.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from truing.train import losses as L  # noqa: E402

FOLDER = Path(
    os.environ.get("TRUING_PARITY") or Path(__file__).parents[2].parent / "shared" / "parity"
)
TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}


def cases(name: str) -> list[Any]:
    path = FOLDER / f"{name}.json"
    if not path.exists():
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(f"{path}: the parity cases are not there (TRUING_PARITY)")
        return [
            pytest.param(
                None,
                marks=pytest.mark.skip(reason=f"no parity cases at {path} (set TRUING_PARITY)"),
            )
        ]
    return [pytest.param(c, id=c["id"]) for c in json.loads(path.read_text())["cases"]]


def t(x: Any, *, grad: bool = False) -> Any:
    made = torch.tensor(x, dtype=torch.float64)
    return made.requires_grad_() if grad else made


def ids(x: Any) -> Any:
    return torch.tensor(x)


def close(got: Any, want: Any) -> None:
    got = got if isinstance(got, torch.Tensor) else torch.tensor(got, dtype=torch.float64)
    torch.testing.assert_close(
        got.detach().double(), torch.as_tensor(want, dtype=torch.float64), **TOLERANCE
    )


def grads(loss: Any, *leaves: Any) -> Any:
    return torch.autograd.grad(loss, leaves, retain_graph=True)


LEVEL = {"sequence-wise": "sequence", "token-wise": "token"}


@pytest.mark.parametrize("case", cases("reward_model_loss"))
def test_reward_model(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    w, l = t(i["better_scores"], grad=True), t(i["worse_scores"], grad=True)  # noqa: E741
    pairs = L.PairScores(
        w,
        l,
        ids(i["better_attention_mask"]),
        ids(i["worse_attention_mask"]),
        ids(i["better_input_ids"]),
        ids(i["worse_input_ids"]),
    )
    loss = L.reward_loss(pairs, level=LEVEL[i["loss_type"]], regularization=i["regularization"])
    close(loss, want["loss"])
    close(pairs.chosen_end, want["better_end_reward"])
    close(pairs.rejected_end, want["worse_end_reward"])
    close(pairs.accuracy(), want["accuracy"])
    for got, name in zip(grads(loss, w, l), ("dloss_dbetter_scores", "dloss_dworse_scores")):
        close(got, want[name])


@pytest.mark.parametrize("case", cases("cost_model_loss"))
def test_cost_model(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    s, u = t(i["safer_costs"], grad=True), t(i["unsafer_costs"], grad=True)
    pairs = L.PairScores(
        s,
        u,
        ids(i["safer_attention_mask"]),
        ids(i["unsafer_attention_mask"]),
        ids(i["safer_input_ids"]),
        ids(i["unsafer_input_ids"]),
    )
    signs = (ids(i["safer_safety_sign"]), ids(i["unsafer_safety_sign"]))
    options = {"level": LEVEL[i["loss_type"]], "regularization": i["regularization"]}
    loss = L.cost_loss(pairs, signs, **options)
    close(loss, want["loss"])
    close(L.cost_loss(pairs, torch.stack(signs, -1), **options), want["loss"])
    close(pairs.chosen_end, want["safer_end_cost"])
    close(pairs.rejected_end, want["unsafer_end_cost"])
    close(pairs.accuracy(cost=True), want["accuracy"])
    close(pairs.sign_accuracy(signs), want["accuracy_sign"])
    if "dloss_dsafer_costs" in want:
        for got, name in zip(grads(loss, s, u), ("dloss_dsafer_costs", "dloss_dunsafer_costs")):
            close(got, want[name])


@pytest.mark.parametrize("case", cases("trl_reward_trainer"))
def test_trl_reward(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    w, l = t(i["chosen_rewards"], grad=True), t(i["rejected_rewards"], grad=True)  # noqa: E741
    margin = None if i["margin"] is None else t(i["margin"])
    pairs = L.PairScores(w, l)
    loss = L.reward_loss(pairs, center=i["center_rewards_coefficient"], margin=margin)
    close(loss, want["loss"])
    close(pairs.accuracy(), want["accuracy"])
    close((w - l).mean(), want["mean_margin"])
    for got, name in zip(grads(loss, w, l), ("dloss_dchosen", "dloss_drejected")):
        close(got, want[name])


@pytest.mark.parametrize("case", cases("trl_dpo_trainer"))
@pytest.mark.parametrize("masked", [True, False])
def test_trl_dpo(case: Any, masked: bool) -> None:
    i, want = case["inputs"], case["expected"]
    logps = t(i["policy_token_logps_chosen_then_rejected"], grad=True)
    ref = t(i["ref_token_logps_chosen_then_rejected"])
    mask = ids(i["completion_mask_chosen_then_rejected"]) if masked else None
    loss = L.dpo_loss(
        logps,
        ref,
        kind=i["loss_type"],
        beta=i["beta"],
        label_smoothing=i["label_smoothing"],
        mask=mask,
        tau=i["discopop_tau"],
    )
    close(loss, want["loss"])
    close(grads(loss, logps)[0], want["dloss_dlogps"])
    w, l = L.direct_rewards(logps, ref, beta=i["beta"])  # noqa: E741
    for got, name in ((w, "chosen"), (l, "rejected"), (w - l, "margins")):
        close(got.mean(), want["metrics"][f"rewards/{name}"])
    accuracy = float((w > l).double().mean())
    assert accuracy == pytest.approx(
        want["metrics"]["rewards/accuracies"], rel=1e-6
    )  # TRL gives it in float32


def test_every_kind_of_dpo_has_a_case() -> None:
    found = cases("trl_dpo_trainer")
    if found[0].values[0] is not None:
        assert {c.values[0]["inputs"]["loss_type"] for c in found} == set(L.DPO_KINDS)
    assert len(L.DPO_KINDS) == 15


@pytest.mark.parametrize("case", cases("dpo_loss_safe_rlhf"))
def test_safe_rlhf_dpo_leaves_out_a_token_that_we_keep(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    all_ids = torch.cat([ids(i["better_input_ids"]), ids(i["worse_input_ids"])])
    mask = torch.cat([ids(i["better_attention_mask"]), ids(i["worse_attention_mask"])])
    policy = L.token_log_probs(t(i["policy_logits_better_then_worse"]), all_ids)
    ref = L.token_log_probs(t(i["ref_logits_better_then_worse"]), all_ids)
    first = L.first_difference(*all_ids.chunk(2)).repeat(2)
    at = torch.arange(
        1, all_ids.shape[1]
    )  # position of the token that a shifted log-probability belongs to
    from_first = (at >= first.unsqueeze(-1)) & mask[:, 1:].bool()
    ours = L.dpo_loss(policy * from_first, ref * from_first, kind="sigmoid", beta=i["scale_coeff"])
    close(ours, case["reference_only"]["loss_with_first_diverging_token_included"])
    # [d, end] taken on the shifted row: begins one token late, and ends one (of padding) late
    shifted = (at > first.unsqueeze(-1)) & mask[:, :-1].bool()
    theirs = L.dpo_loss(policy * shifted, ref * shifted, kind="sigmoid", beta=i["scale_coeff"])
    close(theirs, want["loss"])
    assert abs(float(ours) - float(theirs)) > 1e-4


@pytest.mark.parametrize("case", cases("trl_kto_trainer"))
def test_trl_kto(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    logps = t(i["policy_token_logps"], grad=True)
    loss = L.kto_loss(
        logps,
        t(i["ref_logps_sum"]),
        ids(i["label"]),
        t(i["KL_logps_sum"]),
        t(i["ref_KL_logps_sum"]),
        kind=i["loss_type"],
        beta=i["beta"],
        weights=(i["desirable_weight"], i["undesirable_weight"]),
    )
    close(loss, want["loss"])
    close(grads(loss, logps)[0], want["dloss_dlogps"])


@pytest.mark.parametrize("case", cases("ptx_loss"))
def test_ptx(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    logits = t(i["logits"], grad=True)
    loss = L.ptx_loss(logits, ids(i["labels"]), coefficient=i["ptx_coeff"])
    close(loss, want["backpropagated"])
    close(L.sft_loss(logits, ids(i["labels"])), want["ptx_loss_logged"])
    close(grads(loss, logits)[0], want["dloss_dlogits"])


@pytest.mark.parametrize("case", cases("score_normalizer"))
def test_normalizer(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    n = L.ScoreNormalizer(i["normalizer_type"], i["normalize_function"], i["momentum"])
    for batch, state in zip(i["batches"], want["state_after_each_batch"]):
        n.update(t(batch))
        close(n.mean, state["mean"])
        close(n.var, state["var"])
        assert n.count.tolist() == state["count"]
    close(n(t(i["x"])), want["normalized_x"])


@pytest.mark.parametrize("case", cases("kl_penalised_rewards"))
def test_kl_penalised_rewards(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    base = (t(i["log_probs"]), t(i["ref_log_probs"]))
    options = {"coefficient": i["kl_coeff"], "clip": i["clip_range_score"]}
    mask = ids(i["sequence_mask"])
    close(L.kl_penalised_rewards(*base, t(i["reward"]), mask, **options), want["ppo_rewards"])
    close(L.kl_penalised_rewards(*base, t(i["reward"]), mask, **options), want["ppo_lag_rewards"])
    close(
        L.kl_penalised_rewards(*base, t(i["cost"]), mask, **options, sign=-1), want["ppo_lag_costs"]
    )


@pytest.mark.parametrize("case", cases("gae"))
def test_gae(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    advantages, returns = L.gae(
        t(i["values"]),
        t(i["rewards"]),
        ids(i["sequence_mask"]),
        i["start"],
        gamma=i["gamma"],
        lam=i["gae_lambda"],
    )
    close(advantages, want["advantages"])
    close(returns, want["returns"])


@pytest.mark.parametrize("case", cases("critic_loss"))
def test_critic(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    values = t(i["values"], grad=True)
    loss = L.critic_loss(
        values, t(i["old_values"]), t(i["returns"]), ids(i["mask"]), clip=i["clip_range_value"]
    )
    close(loss, want["loss"])
    close(grads(loss, values)[0], want["dloss_dvalues"])


@pytest.mark.parametrize("case", cases("actor_loss"))
def test_actor_and_its_two_readings(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    logps, mask = t(i["log_probs"], grad=True), ids(i["mask"])
    a_r, a_c, lam = t(i["reward_advantages"]), t(i["cost_advantages"]), i["lambda"]
    loss = L.ppo_actor_loss(
        logps,
        t(i["old_log_probs"]),
        L.combined_advantage(a_r, a_c, lam),
        mask,
        clip=i["clip_range_ratio"],
    )
    close(loss, want["ppo_lag_loss"])
    close(grads(loss, logps)[0], want["ppo_lag_dloss_dlog_probs"])
    plain = L.ppo_actor_loss(logps, t(i["old_log_probs"]), a_r, mask, clip=i["clip_range_ratio"])
    close(plain, want["ppo_loss_on_reward_advantages"])
    close(grads(plain, logps)[0], want["ppo_dloss_dlog_probs"])
    if case.get("reference_only"):
        apart = L.separate_actor_loss(
            logps,
            t(i["old_log_probs"]),
            (a_r, a_c),
            lam,
            mask,
            clip=i["clip_range_ratio"],
            cost_side="min",
        )
        close(apart, case["reference_only"]["paper_separate_clip_loss"])


@pytest.mark.parametrize("case", cases("lambda_update"))
def test_multiplier(case: Any) -> None:
    i, want = case["inputs"], case["expected"]["after_each_rl_step"]
    m = L.LagrangeMultiplier(
        i["lambda_init"],
        i["lambda_lr"],
        i["threshold"],
        maximum=i["lambda_max"],
        window=i["episode_cost_window_size"],
        delay=i["lambda_update_delay_steps"],
    )
    after = iter(want)
    for batch in i["cost_batches"]:
        m.observe(batch)
        for _ in range(i["update_iters"]):
            state = next(after)
            close(m.step(), state["lambda"])
            close(m.episode_cost, state["episode_cost"])
            m2 = L.LagrangeMultiplier(9.0, i["lambda_lr"], i["threshold"], maximum=i["lambda_max"])
            m2.load_state_dict(m.state_dict())
            assert m2.value == m.value


@pytest.mark.parametrize("case", cases("trl_group_advantages"))
def test_group_advantages(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    if "rewards_per_func" in i:
        got = L.group_advantages(
            t(i["rewards_per_func"]),
            t(i["reward_weights"]),
            i["num_generations"],
            kind="grpo",
            scale=i["scale_rewards"],
        )
    else:
        scale = "batch" if i["normalize_advantages"] else "none"
        got = L.group_advantages(
            t(i["rewards"]), None, i["num_generations"], kind="rloo", scale=scale
        )
    close(got, want["advantages"])


@pytest.mark.parametrize("case", cases("trl_grpo_rloo_loss"))
def test_grpo(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    logps = t(i["token_logps"], grad=True)
    ref = None if i.get("ref_token_logps") is None else t(i["ref_token_logps"])
    kind = i.get("loss_type") or "rloo"
    loss = L.grpo_loss(
        logps,
        t(i["old_token_logps"]),
        ref,
        t(i["advantages"]),
        ids(i["completion_mask"]),
        epsilon=i["epsilon"],
        beta=i.get("beta") or 0.0,
        kind=kind,
        length=i.get("max_completion_length"),
    )
    close(loss, want["loss"])
    close(grads(loss, logps)[0], want["dloss_dlogps"])


@pytest.mark.parametrize("case", cases("trl_1_12_ppo"))
def test_trl_ppo(case: Any) -> None:
    i, want = case["inputs"], case["expected"]
    last = ids(i["last_response_index"]).unsqueeze(-1)
    at = torch.arange(len(i["logprobs"][0]))
    mask, one_more = (at <= last).int(), (at <= last + 1).int()
    logps, ref, values = t(i["logprobs"]), t(i["ref_logprobs"]), t(i["values"])
    if i["kl_estimator"] == "k1":
        rewards = L.kl_penalised_rewards(
            logps, ref, t(i["scores"]), mask, coefficient=i["kl_coef"], place="next"
        )
    else:
        score = L.kl_penalised_rewards(
            logps, ref, t(i["scores"]), mask, coefficient=0.0, place="next"
        )
        rewards = score - i["kl_coef"] * L.kl_estimate(logps - ref, "k3")
    if i["whiten_rewards"]:
        rewards = L.whiten(rewards, one_more, shift_mean=False)
    close(rewards, want["rewards"])
    advantages, returns = L.gae(values, rewards, one_more, 0, gamma=i["gamma"], lam=i["lam"])
    white = L.whiten(advantages, mask)
    close(white, want["advantages_whitened"])
    close(returns, want["returns"])
    actor = L.ppo_actor_loss(
        t(i["new_logprobs"]), logps, white, mask, clip=i["cliprange"], reduction="token"
    )
    critic = L.critic_loss(
        t(i["new_values"]), values, returns, one_more, clip=i["cliprange_value"], reduction="token"
    )
    close(actor, want["pg_loss"])
    close(critic, want["vf_loss"])
    close(actor + i["vf_coef"] * critic, want["loss"])


@pytest.mark.parametrize("case", cases("rl_step_end_to_end"))
def test_rl_step(case: Any) -> None:
    """The whole step composed of the pure functions, against what safe-rlhf logs."""
    i, want = case["inputs"], case["expected"]
    h, start = i["hyperparameters"], i["prompt_length"] - 1
    mask = ids(i["attention_mask"])[:, 1:]
    old, ref = t(i["old_log_probs"]), t(i["ref_log_probs"])
    now = L.token_log_probs(t(i["actor_logits_now"]), ids(i["input_ids"]))
    reward, tail = t(i["reward"]), mask[:, start:]
    options = {"coefficient": h["kl_coeff"], "clip": h["clip_range_score"]}
    span = {"gamma": h["gamma"], "lam": h["gae_lambda"]}

    def critic(score: Any, values: Any, now_scores: Any, sign: int) -> tuple[Any, Any, Any]:
        shaped = L.kl_penalised_rewards(old, ref, score, mask, **options, sign=sign)
        advantage, returns = L.gae(t(values), shaped, mask, start, **span)
        loss = L.critic_loss(
            t(now_scores)[:, :-1][:, start:],
            t(values)[:, start:],
            returns,
            tail,
            clip=h["clip_range_value"],
        )
        return advantage, returns, loss

    if "lambda_value" in i:
        reward = reward - i["lambda_value"] * t(i["cost"])
        close(reward.mean(), want["train/shaped_reward"])
    advantage, returns, critic_loss = critic(
        reward, i["old_reward_values"], i["reward_critic_scores_now"], 1
    )
    close(critic_loss, want["train/reward_critic_loss"])
    close(
        L.masked_mean(returns, tail),
        want.get("train/reward_return", want.get("train/shaped_reward_return")),
    )
    close(
        L.masked_mean(advantage, tail),
        want.get("train/reward_advantage", want.get("train/shaped_reward_advantage")),
    )
    if "lambda_init" in i:
        multiplier = L.LagrangeMultiplier(
            i["lambda_init"], i["lambda_lr"], i["threshold"], maximum=i["lambda_max"]
        )
        multiplier.observe(i["episode_cost_window"])
        close(multiplier.episode_cost, want["train/episode_cost"])
        close(multiplier.step(), want["train/lambda"])
        cost_advantage, cost_returns, cost_loss = critic(
            t(i["cost"]), i["old_cost_values"], i["cost_critic_scores_now"], -1
        )
        close(cost_loss, want["train/cost_critic_loss"])
        close(L.masked_mean(cost_advantage, tail), want["train/cost_advantage"])
        close(L.masked_mean(cost_returns, tail), want["train/cost_return"])
        advantage = L.combined_advantage(advantage, cost_advantage, multiplier.value)
    loss = L.ppo_actor_loss(
        now[:, start:], old[:, start:], advantage, tail, clip=h["clip_range_ratio"]
    )
    close(loss, want["train/actor_loss"])
    kl = ((old - ref) * mask)[:, start:].sum(-1).mean()
    close(kl, want["train/kl_divergence"])
