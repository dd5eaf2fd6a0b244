"""The loop on the tiny task: what it logs, that pieces do not matter, that it resumes, and bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from truing.core.errors import DataError, PlanError, RunError  # noqa: E402
from truing.train.rl.reward_signals import FunctionSignal, Signals  # noqa: E402
from truing.train.rl.settings import METHODS, RLSettings  # noqa: E402
from truing.train.rl.trainer import Extras  # noqa: E402
from truing.train.training_log import read_log  # noqa: E402

CONTRACT = {"step", "loss", "reward_mean", "kl_k1", "kl_k3", "clip_fraction", "entropy"}


def weights(trainer: Any) -> list[Any]:
    crew = trainer.crew
    return [p.detach().clone() for name in ("actor", *crew.critics) for _, p in crew.named(name)]


def equal(a: list[Any], b: list[Any], **tolerance: float) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, **tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_logs_what_the_contract_names(trainer: Any, method: str) -> None:
    run = trainer(method)
    run.run()
    rows = list(read_log(run.settings.out))
    assert [r["step"] for r in rows] == [1, 2]
    wanted = (
        CONTRACT
        if method == "ppo"
        else CONTRACT | {"lambda", "cost_mean", "cost_positive", "cost_cvar10", "worst_category"}
    )
    assert wanted <= set(rows[0])
    assert all(math.isfinite(v) for r in rows for v in r.values() if isinstance(v, float))
    assert rows[0]["kl_k1"] == pytest.approx(0, abs=1e-5)  # the policy is still the reference
    assert rows[1]["kl_k3"] > 0


@pytest.mark.parametrize("method", ["ppo-lag", "grpo", "rloo"])
@pytest.mark.parametrize(
    "more", [{}, {"reduction": "token", "whiten": True, "loss": "dapo", "surrogate": "separate"}]
)
def test_pieces_do_not_change_a_step(trainer: Any, method: str, more: dict[str, Any]) -> None:
    made = []
    for micro, score in ((64, 64), (1, 3)):
        run = trainer(method, dtype=torch.float64, micro=micro, score_micro=score, **more)
        run.one_step()
        made.append(weights(run))
    assert len(made) == 2 and len(made[0]) == len(made[1]) > 0
    equal(*made, rtol=1e-7, atol=1e-9)


def test_the_logged_kl_is_the_kl_that_is_trained_on(trainer: Any) -> None:
    run = trainer("ppo", dtype=torch.float64, kl=0.3)
    run.one_step()
    rollout = run.rollout(1)
    own, whole = run.scored(rollout)
    from truing.train.losses import kl_penalised_rewards
    from truing.train.rl.step_metrics import describe

    row = describe(run.settings, rollout, own, whole, run.world)
    shaped = kl_penalised_rewards(
        rollout.log_probs, rollout.ref_log_probs, whole[0], rollout.answer, coefficient=0.3
    )
    trained = whole[0].mean() - (shaped * rollout.answer).sum(-1).mean()
    assert row["kl_k1"] == pytest.approx(float(trained) / 0.3, rel=1e-9)
    assert abs(row["kl_k1"]) > 1e-6


@pytest.mark.parametrize("method", ["ppo-lag", "grpo"])
def test_a_resumed_run_takes_the_same_next_steps(trainer: Any, method: str, tmp_path: Path) -> None:
    given = {
        "save_every": 2,
        "kl_target": 1.0,
        "normalise_reward": "ema",
        "normalise_cost": "running",
    }
    whole = trainer(method, out=str(tmp_path / "whole"), steps=5, **given)
    whole.run()
    out = str(tmp_path / "cut")

    def stop(row: dict[str, Any]) -> None:
        if row["step"] == 3:  # one step after the checkpoint: it is done again
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(method, out=out, steps=5, extras=Extras(tell=stop), **given).run()
    again = trainer(method, out=out, steps=5, **given)
    again.run()
    equal(weights(whole), weights(again), rtol=0, atol=0)
    assert whole.state()["constraint"] == again.state()["constraint"]
    plain = [
        [{k: v for k, v in r.items() if "seconds" not in k} for r in read_log(p)]
        for p in (tmp_path / "whole", out)
    ]
    assert plain[0] == plain[1] and len(plain[0]) == 5


def test_another_plan_does_not_resume_here(trainer: Any) -> None:
    trainer("grpo", save_every=1).run()
    with pytest.raises(PlanError, match="other settings"):
        trainer("grpo", save_every=1, kl=0.5).run()
    with pytest.raises(PlanError, match="not of ppo"):
        trainer("ppo", save_every=1).run()
    assert trainer("grpo", save_every=1, steps=3).run()["reward_mean"]  # more steps go on


def told(run: Any) -> str:
    run.run()
    return " ".join(str(r.get("warning", "")) for r in read_log(run.settings.out))


def flat(value: float) -> Any:
    return FunctionSignal("flat", lambda r: torch.full((len(r.texts),), value))


def test_equal_rewards_are_told(trainer: Any) -> None:
    assert "all rewards of the step are equal" in told(
        trainer("grpo", signals=Signals([flat(1.0)]))
    )


@pytest.mark.parametrize(("value", "words"), [(5.0, "does not fall"), (-5.0, "does not bind")])
def test_costs_that_never_cross_the_threshold_are_told(
    trainer: Any, task: Any, value: float, words: str
) -> None:
    signals = Signals([FunctionSignal("gold", task.reward)], [flat(value)])
    run = trainer(
        "grpo", signals=signals, steps=21, epochs=1, minibatch=0, lambda_max=None, lambda_lr=0.001
    )
    assert words in told(run)


def test_a_multiplier_at_its_bound_is_told(trainer: Any, task: Any) -> None:
    signals = Signals([FunctionSignal("gold", task.reward)], [flat(5.0)])
    assert "λ stands at its bound" in told(trainer("ppo-lag", signals=signals, lambda_max=1.01))


def test_nan_rewards_stop_the_run_and_leave_nothing_half_done(trainer: Any, tmp_path: Path) -> None:
    run = trainer("ppo", signals=Signals([flat(math.nan)]))
    before = weights(run)
    with pytest.raises(RunError, match="never counts as safe"):
        run.run()
    equal(before, weights(run), rtol=0, atol=0)
    some = FunctionSignal("some", lambda r: torch.tensor([math.nan] + [1.0, 2.0] * 3 + [0.0]))
    assert "12% of the answers could not be scored" in told(
        trainer("grpo", signals=Signals([some]), out=str(tmp_path / "b"))
    )


def test_prompts_longer_than_the_window_are_left_out(task: Any) -> None:
    from truing.core.types import Conversation, Sample
    from truing.train.batches import ExampleEncoder
    from truing.train.rl.rollout import read_prompts

    encoder = ExampleEncoder(task.tokenizer(), _plain())
    samples = [
        Sample(conversation=Conversation.of(" ".join(["ash"] * n)), id=f"s{n}") for n in (1, 30)
    ]
    kept, left = read_prompts(samples, encoder, longest=20)
    assert [p.sample.id for p in kept] == ["s1"] and left == ["s30"]
    with pytest.raises(DataError, match="none of 1 prompts"):
        read_prompts(samples[1:], encoder, longest=20)


def _plain() -> Any:
    from truing.train.settings import TrainingSettings

    return TrainingSettings(kind="distil", out="", template="plain")


def test_settings_say_all_faults_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        RLSettings(method="grpo", out="", n=1, top_p=0.0, lambda_init=9.0, minibatch=5).checked(
            costs=False
        )
    assert len(caught.value.faults) == 4
    for method, costs, words in (
        ("ppo-lag", False, "needs a cost"),
        ("ppo", True, "no use for a cost"),
        ("ppl", True, "unknown"),
    ):
        with pytest.raises(PlanError, match=words):
            RLSettings(method=method, out="").checked(costs=costs)  # type: ignore[arg-type]


def test_early_stops(trainer: Any, tmp_path: Path) -> None:
    run = trainer("ppo", epochs=8, lr=0.05, kl_step_limit=0.01)
    run.run()
    assert all(r["stopped_after"] < 16 for r in read_log(run.settings.out))
    run = trainer("ppo", steps=50, lr=0.01, kl_limit=0.5, out=str(tmp_path / "limit"))
    run.run()
    rows = list(read_log(run.settings.out))
    assert len(rows) < 50 and "kl_limit" in rows[-1]["halted"]
    last = rows[-1]["step"]
    assert (
        json.loads((Path(run.settings.out) / f"checkpoint-{last}" / "mark.json").read_text())[
            "step"
        ]
        == last
    )


def test_pre_training_text_is_mixed_in(trainer: Any) -> None:
    ids = torch.tensor([[4, 5, 6, 7], [8, 9, 10, 1]])

    def mix(k: int) -> Any:
        return ids, torch.ones_like(ids), ids

    run = trainer("ppo", ptx=4.0, steps=25, lr=3e-3, epochs=1, minibatch=0, extras=Extras(mix=mix))
    run.run()
    rows = list(read_log(run.settings.out))
    assert rows[-1]["ptx_loss"] < 0.6 * rows[0]["ptx_loss"]


def test_half_precision_reads_the_answers_again(trainer: Any, task: Any) -> None:
    from truing.train.rl.policy_models import SeparateCrew

    crew = SeparateCrew(task.model(0), task.tokenizer(), ("reward_critic",), half=torch.bfloat16)
    run = trainer("ppo", crew=crew)
    row = run.one_step()
    assert 0 < row["drift"] < 0.05
    assert all(p.dtype is torch.float32 for _, p in crew.named("actor"))


def test_a_constraint_that_was_broken_once_is_no_idle_one() -> None:
    from truing.train.rl.diagnosis import Watch

    watch = Watch(RLSettings(method="ppo-lag", out=""))
    line = {"lambda": 1.0, "lambda_at_bound": 0.0}
    said = [w for v in [0.5] + [-0.5] * 40 for w in watch.hear({**line, "violation": v})]
    assert not any("does not bind" in w for w in said)
    watch = Watch(RLSettings(method="ppo-lag", out=""))
    said = [w for _ in range(100) for w in watch.hear({**line, "violation": -0.5})]
    assert sum("does not bind" in w for w in said) == 3  # at steps 20, 40 and 80


def test_negative_kl_length_and_hacking_are_told() -> None:
    from truing.train.rl.diagnosis import Watch

    watch = Watch(RLSettings(method="grpo", out="", top_p=0.9))
    said = " ".join(w for _ in range(6) for w in watch.hear({"kl_k1": -0.5, "kl_k3": 0.6}))
    assert "top_p = 0.9 draws from a narrower distribution" in said
    watch = Watch(RLSettings(method="grpo", out=""))
    assert "newest weights" in " ".join(
        w for _ in range(6) for w in watch.hear({"kl_k1": -0.5, "kl_k3": 0.6})
    )
    watch = Watch(RLSettings(method="grpo", out=""))
    said = " ".join(
        w for k in range(12) for w in watch.hear({"length": 10 + 2 * k, "length_reward": 0.8})
    )
    assert "reward follows length (r = 0.80)" in said
    watch = Watch(RLSettings(method="grpo", out=""))
    watch.hear({"reward_mean": 0.0, "measured_harmful": 0.1})
    assert "the reward is being gamed" in " ".join(
        watch.hear({"reward_mean": 1.0, "measured_harmful": 0.4})
    )
    assert watch.hear({"reward_mean": 1.0, "distinct": 1 / 64, "entropy": 0.0})[-1].startswith(
        "every answer of the step is the same"
    )
