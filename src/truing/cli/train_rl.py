"""`truing train ppo|ppo-lag|reward-shaping|rloo|grpo`: RL on the scores of judges.

Every method takes rewards (`--reward SPEC...`) and, except ppo, costs (`--cost SPEC...`) from any
judge. Reward and cost models that were trained with adapters on the same base share its backbone.
The same command continues an interrupted run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from truing.cli.parameters import Flag, Strings
from truing.cli.train_rl_flags import ConstraintFlags, PolicyFlags, RLRunFlags, SampleFlags
from truing.cli.training import spec_for_training
from truing.cli.training_monitor import TrainingMonitor
from truing.core.errors import PlanError
from truing.core.protocols import Dataset, Judge
from truing.core.types import Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.specs.extras import needs_extra
from truing.specs.parser import Spec, parse_spec
from truing.specs.resolve import resolve

if TYPE_CHECKING:
    from truing.train.rl.constraint_settings import ConstraintSettings
    from truing.train.rl.generate import AnswerGenerator
    from truing.train.rl.policy_models import PolicyModels
    from truing.train.rl.reward_spec import RewardSource
    from truing.train.rl.run import RLResult
    from truing.train.rl.settings import Method, RLSettings
    from truing.train.rl.trainer import RLTrainer

# rloo and grpo compare the answers to one prompt, and need several.
DEFAULT_GROUP_SIZE = 4
EVALUATION_CONCURRENCY = 256

# Flags that are not settings of the run: they are read here, or name objects.
_NOT_SETTINGS = frozenset(
    {
        "limit",
        "allow_red_team",
        "allow_measurement_prompts",
        "generator",
        "n",
        "workers",
        "reward_weight",
        "ptx_data",
        "cost",
        "cost_weight",
        "cost_limit",
    }
)


@dataclass(frozen=True)
class RLJob:
    """An RL command: its method, data and reward specs, output folder and flags."""

    method: Method
    data: list[str]
    rewards: list[str]
    out: Path
    run: RLRunFlags
    policy: PolicyFlags
    constraint: ConstraintFlags
    samples: SampleFlags

    @property
    def costs(self) -> list[str]:
        """The specs of the cost judges."""
        return self.constraint.cost or []

    def limits(self) -> list[tuple[ConstraintSettings, Spec]]:
        """Returns the constraints of --cost-limit and the specs of their costs."""
        from truing.cli.train_rl_constraints import parse_constraint

        return [parse_constraint(text) for text in self.constraint.cost_limit or []]

    def settings(self) -> RLSettings:
        """Returns the validated settings; raises PlanError with all faults."""
        from truing.train.rl.settings import GROUP_METHODS, RLSettings

        fields = {**vars(self.run), **vars(self.policy), **vars(self.constraint)}
        n = self.run.n
        if n is None:
            n = DEFAULT_GROUP_SIZE if self.method in GROUP_METHODS else 1
        settings = RLSettings(
            method=self.method,
            out=str(self.out),
            n=n,
            sample_every=self.samples.sample_every,
            constraints=tuple(settings for settings, _ in self.limits()),
            **{name: value for name, value in fields.items() if name not in _NOT_SETTINGS},
        )
        return settings.validated(costs=bool(self.costs))


def _make_command(method: Method, summary: str) -> Callable[..., int]:
    """Returns the command of a method. All five have the same flags."""

    def command(
        *,
        data: Strings,
        out: Path,
        reward: Strings,
        run: RLRunFlags | None = None,
        policy: PolicyFlags | None = None,
        constraint_flags: ConstraintFlags | None = None,
        samples: SampleFlags | None = None,
        json: Flag = False,
    ) -> int:
        job = RLJob(
            method,
            data,
            reward,
            out,
            run or RLRunFlags(),
            policy or PolicyFlags(),
            constraint_flags or ConstraintFlags(),
            samples or SampleFlags(),
        )
        if job.run.workers:
            return _train_on_ray(job, json)
        return _train(job, json)

    command.__name__ = method.replace("-", "_")
    command.__doc__ = f"""{summary}

    Parameters
    ----------
    data
        Specs of data sets whose prompts are answered.
    out
        Folder for the log, the checkpoints, the samples and the model.
    reward
        Specs of judges whose value, probability or verdict is to be raised.
    json
        Print the result as JSON.
    """
    return command


ppo = _make_command(
    "ppo", "Proximal policy optimisation with a critic and a KL penalty to the base."
)
ppo_lag = _make_command(
    "ppo-lag",
    "PPO-Lagrangian: raises the reward while λ holds the cost below a threshold (two critics).",
)
reward_shaping = _make_command(
    "reward-shaping", "PPO on reward - ν × cost with a fixed ν: the baseline for ppo-lag."
)
rloo = _make_command(
    "rloo", "REINFORCE leave-one-out, without a critic; with --cost under a constraint."
)
grpo = _make_command(
    "grpo", "Group-relative policy optimisation, without a critic; with --cost under a constraint."
)


def _train_on_ray(job: RLJob, json: bool) -> int:
    """Trains in every worker of a Ray cluster, then prints the result from the folder."""
    with needs_extra("truing train --workers", "ray"):
        from truing.distributed.ray_launcher import run_on_ray

    run_on_ray(lambda: _train(job, json=True, quiet=True), workers=job.run.workers, out=job.out)
    # Nothing is left to train: this call only reads the finished run.
    return _train(job, json)


def _train(job: RLJob, json: bool, *, quiet: bool = False) -> int:
    """Resolves the specs, trains, prints the result (unless `quiet`); returns exit status 0."""
    with needs_extra(f"truing train {job.method}", "train"):
        from truing.train.rl.reward_spec import RewardSpec
        from truing.train.rl.run import RLOptions, train_rl
        from truing.train.training_data import read_training_set

    settings = job.settings()
    reward_spec = RewardSpec(
        [_resolve_scorer(spec, settings) for spec in job.rewards],
        [_resolve_scorer(spec, settings) for spec in job.costs],
        job.policy.reward_weight or (),
        job.constraint.cost_weight or (),
        {limit.name: _resolve_scorer(spec, settings) for limit, spec in job.limits()},
    )
    ptx_sources = [
        read_training_set(
            resolve(spec_for_training(spec), "data"),
            "sft",
            allow_red_team=job.run.allow_red_team,
            allow_frozen=job.run.allow_measurement_prompts,
        )
        for spec in job.policy.ptx_data or ()
    ]
    evaluation_judge: Judge | None = None
    measure = None
    if job.samples.sample_every:
        evaluation_judge = resolve(job.samples.sample_judge, "judge")
        measure = _make_measure(job.samples, evaluation_judge, job.out)
    datasets: list[Dataset] = [resolve(spec_for_training(spec), "data") for spec in job.data]
    monitor = TrainingMonitor(
        f"{job.method}:{job.out.name}",
        settings.steps,
        threshold=settings.threshold if job.costs else None,
        quiet=json,
    )
    with monitor:
        options = RLOptions(
            on_log=monitor,
            evaluation_judge=evaluation_judge,
            measure=measure,
            ptx_sources=ptx_sources,
            make_generator=_generator_factory(job.run.generator),
            limit=job.run.limit,
            allow_red_team=job.run.allow_red_team,
            allow_frozen=job.run.allow_measurement_prompts,
        )
        result = train_rl(settings, datasets, reward_spec, options)
    # Under `accelerate launch` every process runs this command; the first one prints.
    if not quiet and os.environ.get("RANK", "0") == "0":
        _print_result(result, as_json=json)
    return 0


def _resolve_scorer(spec: str | Spec, settings: RLSettings) -> RewardSource:
    """Returns what scores answers: a shared scorer if possible, else the judge of the spec.

    A reward or cost model that is an adapter of the run's own base is loaded onto the run's
    backbone, which saves a copy of the base in memory.
    """
    from truing.train.model_folder import read_model_card
    from truing.train.rl.reward_signals import answer_length_signal
    from truing.train.rl.reward_spec import SharedScorer
    from truing.train.trainable_model import find_base_model

    parsed = parse_spec(spec) if isinstance(spec, str) else spec
    if str(parsed) == "length":
        return answer_length_signal()
    # Arguments such as dtype= would have no effect on a shared backbone; without LoRA there is
    # none.
    if parsed.kind in ("reward", "preference", "cost") and settings.lora and not parsed.args:
        card = read_model_card(parsed.name)
        base = find_base_model(settings.base)
        same_base = card is not None and card.base_sha256 == base.weights.sha256
        if same_base and (Path(parsed.name) / "adapter").is_dir():
            return SharedScorer(parsed.name)
    judge: Judge = resolve(parsed, "judge")
    return judge


def _generator_factory(
    name: str,
) -> Callable[[PolicyModels, RLSettings], AnswerGenerator] | None:
    """Returns what makes the answer generator of --generator; None is the policy itself."""
    if name == "local":
        return None
    if name == "vllm" or name.startswith(("http://", "https://")):
        from truing.train.rl.vllm import vllm_generator_factory

        return vllm_generator_factory(name)
    raise PlanError(f"--generator {name!r}: must be local, vllm, or the URL of a vLLM server")


def _make_measure(
    samples: SampleFlags, judge: Judge, out: Path
) -> Callable[[int, RLTrainer], dict[str, float]]:
    """Returns a function that evaluates the policy during training, into run folders."""
    dataset: Dataset = resolve(samples.sample_data, "data")
    metric = "measured_harmful" if judge.question == "harmful" else "measured_true"

    def measure(step: int, trainer: RLTrainer) -> dict[str, float]:
        options = EvaluateOptions(
            sampling=Sampling(max_tokens=trainer.settings.max_new),
            limit=samples.sample_limit,
            concurrency=EVALUATION_CONCURRENCY,
            seed=trainer.settings.seed,
        )
        policy = trainer.current_policy(f"step-{step}")
        run = evaluate(policy, dataset, [judge], out / "samples" / f"step-{step}", options=options)
        verdicts = [j.verdict for j in run.judgements(judge.name) if j.verdict is not None]
        return {metric: sum(verdicts) / len(verdicts)} if verdicts else {}

    return measure


def _print_result(result: RLResult, *, as_json: bool) -> None:
    last = {k: v for k, v in result.last.items() if isinstance(v, (int, float, str))}
    if as_json:
        fields = {
            "folder": str(result.folder),
            "steps": result.steps,
            "done_now": result.done_now,
            "last": last,
            "left_out": result.left_out,
            "warnings": list(result.warnings),
            "red_model": result.lineage.red_model,
        }
        print(msgspec.json.encode(fields).decode())
        return
    if not result.done_now:
        print(f"{result.folder}: was trained already ({result.steps} steps)")
    if result.left_out:
        print(f"{result.left_out} prompts were longer than --max-prompt and left out")
    if last.get("halted"):
        print(f"stopped at step {result.steps}: {last['halted']}")
    print(f"{result.folder}  (local:{result.folder}, log.jsonl, training.html, manifest.json)")
