"""`truing train ppo|ppo-lag|reward-shaping|rloo|grpo`: RL from the opinions of judges, with a constraint on cost.

Every method takes rewards (`--reward SPEC...`) and, but for ppo, costs (`--cost SPEC...`) from any judge. Reward and
cost models
that were trained with adapters on the same base share its backbone. The same command goes on where it stopped.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from truing.cli.training import Data, Flag, Weights, for_training
from truing.cli.training_monitor import Live
from truing.core.errors import PlanError
from truing.specs.parser import parse_spec
from truing.specs.resolve import load_object, resolve

Specs = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class Run:
    """The run.

    Parameters
    ----------
    base
        The model to start from: smollm2, a folder in the Hugging Face layout, a hub id.
    steps
        Rollouts, each with its gradient steps.
    prompts
        Prompts a step.
    n
        Answers to each prompt; rloo and grpo compare them.
    epochs
        Passes of gradient steps over a step's answers.
    minibatch
        Answers a gradient step; 0 = all.
    micro
        Answers that are held in memory at once; changes nothing else.
    max_new
        Tokens of the longest answer.
    max_prompt
        Prompts with more tokens are left out.
    temperature
        Of the answers that are drawn; training uses the same distribution.
    top_p
        Below 1, answers come from a narrower distribution than training assumes.
    lr
        The actor's learning rate; 0 = 1e-4 for adapters, 1e-5 for whole models.
    critic_lr
        The critics'; 0 = half of the actor's.
    warmup
        Share of the steps over which the rates rise.
    schedule
        How they fall afterwards.
    clip_norm
        The gradient's norm is clipped to this; 0 = not.
    lora
        Rank of the adapters; 0 trains whole models, in separate copies.
    dtype
        auto (bfloat16 where the hardware has it), float32 or bfloat16; weights stay in float32.
    shard
        Spread the weights over the processes of `accelerate launch` or Ray (FSDP2).
    workers
        Ray Train workers; 0 = this process, or those of `accelerate launch -m truing train ...`.
    generator
        local, or vllm (in this process), or the URL of `vllm serve`.
    seed
        Seed of initialisation, order and answers.
    save_every
        Steps between checkpoints.
    keep
        Checkpoints that are kept.
    template
        auto (the tokenizer's chat template) or plain.
    limit
        Take only the first so many prompts.
    tensorboard
        Write event files under OUT/tb.
    allow_red_team
        Train on prompts of red-teaming dialogues after all.
    red_model
        The reason for training towards harm; marks the folder for good.
    """

    base: str = "smollm2"
    steps: int = 100
    prompts: int = 16
    n: int | None = None
    epochs: int = 1
    minibatch: int = 0
    micro: int = 8
    max_new: int = 64
    max_prompt: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    lr: float = 0.0
    critic_lr: float = 0.0
    warmup: float = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    clip_norm: float = 1.0
    lora: int = 16
    dtype: str = "auto"
    shard: Flag = False
    workers: int = 0
    generator: str = "local"
    seed: int = 0
    save_every: int = 10
    keep: int = 2
    template: Literal["auto", "plain"] = "auto"
    limit: int | None = None
    tensorboard: bool = True
    allow_red_team: Flag = False
    red_model: str | None = None


@Parameter(name="*")
@dataclass(frozen=True)
class Policy:
    """How the policy learns.

    Parameters
    ----------
    reward_weight
        Weights of the rewards, in the order of --reward.
    clip
        Ratios are clipped to 1 ± this.
    clip_value
        Values move at most this far from the old ones.
    gamma
        Discount.
    gae_lambda
        λ of generalised advantage estimation.
    reduction
        Mean by answer (row) or over all tokens (token).
    whiten
        Advantages with mean 0 and variance 1.
    kl
        β of the KL to the reference.
    kl_place
        In the reward (k1) or the loss (k3); auto = loss for grpo, else reward.
    kl_target
        Above 0, β is moved so that the KL of an answer stays here.
    kl_step_limit
        Above 0, ends the passes over a rollout when the policy has moved this far (KL a token).
    kl_limit
        Above 0, ends the run when the KL of an answer to the reference is above it.
    clip_reward
        Rewards are clipped to ± this.
    normalise_reward
        By running statistics: none, running, ema.
    normalise_cost
        Costs are scaled by theirs; the threshold stays in the cost's own unit.
    truncation_penalty
        Taken off the reward of an answer that was cut off.
    scale
        Group advantages are divided by the deviation of the group, the batch, or not.
    loss
        How grpo averages: grpo, bnpo, dr_grpo, dapo.
    ptx
        Weight of the language-model loss on --ptx-data.
    ptx_data
        Specs of data sets with answers to imitate on the side.
    """

    reward_weight: Weights = None
    clip: float = 0.2
    clip_value: float | None = 5.0
    gamma: float = 1.0
    gae_lambda: float = 0.95
    reduction: Literal["row", "token"] = "row"
    whiten: Flag = False
    kl: float = 0.02
    kl_place: Literal["auto", "reward", "loss"] = "auto"
    kl_target: float = 0.0
    kl_step_limit: float = 0.0
    kl_limit: float = 0.0
    clip_reward: float | None = None
    normalise_reward: Literal["none", "running", "ema"] = "none"
    normalise_cost: Literal["none", "running", "ema"] = "none"
    truncation_penalty: float = 0.0
    scale: Literal["group", "batch", "none", "auto"] = "auto"
    loss: Literal["grpo", "bnpo", "dr_grpo", "dapo", "auto"] = "auto"
    ptx: float = 0.0
    ptx_data: Specs = None


@Parameter(name="*")
@dataclass(frozen=True)
class Limit:
    """The constraint.

    Parameters
    ----------
    cost
        Specs of judges whose value, probability or verdict is the cost.
    cost_weight
        Weights of the costs, in the order of --cost.
    threshold
        What λ holds the cost below.
    constraint
        The mean cost, or the mean of the worst --tail (cvar).
    tail
        The worst share that cvar looks at.
    lambda_init
        λ at the start.
    lambda_lr
        Its rate.
    lambda_max
        Its upper bound.
    lambda_min
        Its lower bound.
    window
        Answers whose mean cost it answers.
    delay
        Gradient steps before it moves.
    surrogate
        Advantages combined and then clipped, or each clipped by itself.
    nu
        The fixed price of reward-shaping.
    """

    cost: Specs = None
    cost_weight: Weights = None
    threshold: float = 0.0
    constraint: Literal["mean", "cvar"] = "mean"
    tail: float = 0.1
    lambda_init: float = 1.0
    lambda_lr: float = 0.1
    lambda_max: float | None = 5.0
    lambda_min: float | None = None
    window: int = 128
    delay: int = 0
    surrogate: Literal["combined", "separate"] = "combined"
    nu: float = 1.0


@Parameter(name="*")
@dataclass(frozen=True)
class Samples:
    """What is measured on the way.

    Parameters
    ----------
    sample_every
        Steps between samples; each becomes a run folder under OUT/samples.
    sample_data
        Spec of the data set that is answered.
    sample_judge
        Spec of the judge that measures it; it must have no part in the training.
    sample_limit
        Rows of the data set.
    """

    sample_every: int = 0
    sample_data: str = "builtin:safety"
    sample_judge: str = "moderation:open"
    sample_limit: int = 64


_RUN = ("limit", "allow_red_team", "generator", "n", "workers")
_POLICY = ("reward_weight", "ptx_data")
_LIMIT = ("cost", "cost_weight")


def _verb(method: str, doc: str) -> Any:
    """The command of a method; all five take the same options."""

    def command(
        *,
        data: Data,
        out: Path,
        reward: Data,
        run: Run | None = None,
        policy: Policy | None = None,
        limit: Limit | None = None,
        samples: Samples | None = None,
        json: Flag = False,
    ) -> int:
        how = (run or Run(), policy or Policy(), limit or Limit())
        what = (data, reward, out)
        if how[0].workers:
            return _train_on_ray(method, what, how, samples or Samples(), json)
        return _train(method, what, how, samples or Samples(), json)

    command.__name__ = method.replace("-", "_")
    command.__doc__ = f"""{doc}

    Parameters
    ----------
    data
        Specs of data sets whose prompts are answered.
    out
        Where the log, the checkpoints, the samples and the model go.
    reward
        Specs of judges whose value, probability or verdict is to be raised.
    json
        Print the result as JSON.
    """
    return command


ppo = _verb("ppo", "Proximal policy optimisation with a critic and a KL penalty to the base.")
ppo_lag = _verb(
    "ppo-lag",
    "PPO-Lagrangian: reward is raised while λ holds the cost below a threshold (two critics).",
)
reward_shaping = _verb(
    "reward-shaping",
    "PPO on reward - ν × cost with a fixed ν: the baseline that ppo-lag is measured by.",
)
rloo = _verb("rloo", "REINFORCE leave-one-out, without a critic; with --cost under a constraint.")
grpo = _verb(
    "grpo", "Group-relative policy optimisation, without a critic; with --cost under a constraint."
)


def _train_on_ray(
    method: str, what: Any, how: tuple[Run, Policy, Limit], samples: Samples, json: bool
) -> int:
    """The same command in every worker of a Ray cluster; shows what the first one left."""
    whole = (method, what, how, samples)
    load_object("truing.distributed.ray_launcher:run_on_ray")(
        lambda: _train(*whole, True, quiet=True), workers=how[0].workers, out=what[2]
    )
    return _train(*whole, json)


def _train(
    method: str,
    what: tuple[list[str], list[str], Path],
    how: tuple[Run, Policy, Limit],
    samples: Samples,
    json: bool,
    *,
    quiet: bool = False,
) -> int:
    (data, rewards, out), (run, policy, limit) = what, how
    settings = _settings(method, out, how, samples)
    costs = limit.cost or []
    settings = settings.validated(costs=bool(costs))
    reward_spec = load_object("truing.train.rl.run:RewardSpec")(
        [_steer(s, settings) for s in rewards],
        [_steer(s, settings) for s in costs],
        policy.reward_weight or (),
        limit.cost_weight or (),
    )
    read = load_object("truing.train.training_data:read_training_set")
    ptx = [
        read(resolve(for_training(s), "data"), "sft", allow_red_team=run.allow_red_team)
        for s in policy.ptx_data or ()
    ]
    evaluation_judge = resolve(samples.sample_judge, "judge") if samples.sample_every else None
    sets = [resolve(for_training(s), "data") for s in data]
    shown = Live(
        f"{method}:{out.name}",
        settings.steps,
        threshold=settings.threshold if costs else None,
        quiet=json,
    )
    with shown:
        options = load_object("truing.train.rl.run:RLOptions")(
            on_log=shown,
            evaluation_judge=evaluation_judge,
            measure=None if evaluation_judge is None else _measure(samples, evaluation_judge, out),
            ptx_sources=ptx,
            make_generator=_generator(run.generator),
            limit=run.limit,
            allow_red_team=run.allow_red_team,
        )
        result = load_object("truing.train.rl.run:train_rl")(settings, sets, reward_spec, options)
    if quiet or os.environ.get("RANK", "0") != "0":  # under accelerate the first process speaks
        return 0
    return _end(result, as_json=json)


def _settings(method: str, out: Path, how: tuple[Run, Policy, Limit], samples: Samples) -> Any:
    run, policy, limit = how
    parts = ((run, _RUN), (policy, _POLICY), (limit, _LIMIT))
    plain = {k: v for part, drop in parts for k, v in vars(part).items() if k not in drop}
    n = run.n if run.n is not None else 4 if method in ("rloo", "grpo") else 1
    made = load_object("truing.train.rl.settings:RLSettings")
    return made(method=method, out=str(out), n=n, sample_every=samples.sample_every, **plain)


def _steer(spec: str, settings: Any) -> Any:
    """A reward or cost model on the same base shares the backbone; every other spec is a judge."""
    given = parse_spec(spec)
    if given.kind in ("reward", "preference", "cost") and settings.lora and not given.args:
        card = load_object("truing.train.model_folder:read_model_card")(given.name)
        base = load_object("truing.train.trainable_model:find_base_model")(settings.base)
        if (
            card is not None
            and card.base_sha256 == base.weights.sha256
            and (Path(given.name) / "adapter").is_dir()
        ):
            return load_object("truing.train.rl.run:SharedScorer")(given.name)
    return resolve(given, "judge")


def _generator(name: str) -> Any:
    if name == "local":
        return None
    if name == "vllm" or name.startswith(("http://", "https://")):
        return load_object("truing.train.rl.vllm:vllm_generator_factory")(name)
    raise PlanError(f"--generator {name!r} is none of local, vllm, or the URL of a vLLM server")


def _measure(samples: Samples, judge: Any, out: Path) -> Any:
    """Every k steps: the policy as it is answers a data set, into a run folder, and a judge apart says what it thinks."""
    data = resolve(samples.sample_data, "data")

    def measure(step: int, trainer: Any) -> dict[str, float]:
        from truing.core.types import Sampling
        from truing.evaluation.evaluate import evaluate
        from truing.evaluation.options import EvaluateOptions

        sampling = Sampling(max_tokens=trainer.settings.max_new)
        options = EvaluateOptions(
            sampling=sampling,
            limit=samples.sample_limit,
            concurrency=256,
            seed=trainer.settings.seed,
        )
        folder = evaluate(
            trainer.current_policy(f"step-{step}"),
            data,
            [judge],
            out / "samples" / f"step-{step}",
            options=options,
        )
        verdicts = [j.verdict for j in folder.judgements(judge.name) if j.verdict is not None]
        name = "harmful" if judge.question == "harmful" else "true"
        return {f"measured_{name}": sum(verdicts) / len(verdicts)} if verdicts else {}

    return measure


def _end(result: Any, *, as_json: bool) -> int:
    import msgspec

    last = {k: v for k, v in result.last.items() if isinstance(v, (int, float, str))}
    if as_json:
        facts = {
            "folder": str(result.folder),
            "steps": result.steps,
            "done_now": result.done_now,
            "last": last,
            "left_out": result.left_out,
            "warnings": list(result.warnings),
            "red_model": result.lineage.red_model,
        }
        print(msgspec.json.encode(facts).decode())
        return 0
    if not result.done_now:
        print(f"{result.folder}: was trained already ({result.steps} steps)")
    if result.left_out:
        print(f"{result.left_out} prompts were longer than --max-prompt and left out")
    if last.get("halted"):
        print(f"stopped at step {result.steps}: {last['halted']}")
    print(f"{result.folder}  (local:{result.folder}, log.jsonl, training.html, manifest.json)")
    return 0
