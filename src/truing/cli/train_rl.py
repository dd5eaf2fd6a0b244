"""`truing train ppo|ppo-lag|reward-shaping|rloo|grpo`: RL on the scores of judges.

Every method takes rewards (`--reward SPEC...`) and, except ppo, costs (`--cost SPEC...`) from any
judge. Reward and cost models that were trained with adapters on the same base share its backbone.
The same command continues an interrupted run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from truing.cli.parameters import Flag, Strings
from truing.cli.settings_flags import setting_values
from truing.cli.tables import print_json, print_next_steps, print_text
from truing.cli.train_rl_flags import ConstraintFlags, PolicyFlags, RLRunFlags, SampleFlags
from truing.cli.training import (
    is_first_process,
    make_slice_limit,
    print_memory_plan,
    print_training_state,
)
from truing.specs.extras import needs_extra
from truing.specs.parser import Spec
from truing.train.rl.settings import Method

if TYPE_CHECKING:
    from truing.plan.step_inputs import RLInputs
    from truing.train.rl.constraint_settings import ConstraintSettings
    from truing.train.rl.run import RLResult
    from truing.train.rl.settings import RLSettings


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
    def inputs(self) -> RLInputs:
        """The specs of data sets and judges."""
        from truing.plan.step_inputs import RLInputs

        flags = (self.run, self.policy, self.constraint, self.samples)
        values = {k: v for part in flags for k, v in setting_values(part, RLInputs).items()}
        return RLInputs(data=tuple(self.data), reward=tuple(self.rewards), **values)

    def limits(self) -> list[tuple[ConstraintSettings, Spec]]:
        """Returns the constraints of --cost-limit and the specs of their costs."""
        from truing.plan.cost_limits import parse_constraint

        return [parse_constraint(text) for text in self.inputs.cost_limit]

    def settings(self) -> RLSettings:
        """Returns the validated settings; raises PlanError with all faults."""
        from truing.plan.training_plan import DEFAULT_GROUP_SIZE
        from truing.train.rl.settings import GROUP_METHODS, RLSettings

        flags = (self.run, self.policy, self.constraint, self.samples)
        values = {k: v for part in flags for k, v in setting_values(part, RLSettings).items()}
        if values["n"] is None:
            values["n"] = DEFAULT_GROUP_SIZE if self.method in GROUP_METHODS else 1
        limits = tuple(settings for settings, _ in self.limits())
        settings = RLSettings(method=self.method, out=str(self.out), constraints=limits, **values)
        return settings.validated(costs=bool(self.inputs.cost))


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
            out.resolve() if run is not None and run.workers else out,
            run or RLRunFlags(),
            policy or PolicyFlags(),
            constraint_flags or ConstraintFlags(),
            samples or SampleFlags(),
        )
        if job.run.plan_memory:
            return print_memory_plan(job.settings(), as_json=json)
        if job.run.workers:
            return _train_on_ray(job, json)
        result = _train(job, quiet=json)
        if is_first_process():
            _print_result(result, as_json=json)
        return 0

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
    """Trains in every worker of a Ray cluster and prints the result; the driver trains nothing."""
    with needs_extra("truing train --workers", "ray"):
        from truing.distributed.ray_launcher import run_on_ray
    from truing.train.rl.run import RLResult

    settings = job.settings()
    data = run_on_ray(
        lambda: msgspec.json.encode(_train(job, quiet=True), enc_hook=str),
        workers=job.run.workers,
        out=job.out,
        device=settings.device,
    )
    result = msgspec.json.decode(data, type=RLResult, dec_hook=lambda kind, text: kind(text))
    _print_result(result, as_json=json)
    return 0


def _train(job: RLJob, *, quiet: bool) -> RLResult:
    """Trains, or resumes, and returns the result; shows the progress unless `quiet`."""
    from truing.cli.training_monitor import TrainingMonitor
    from truing.plan.training_steps import StepOptions, train_rl_step

    settings = job.settings()
    monitor = TrainingMonitor(
        f"{job.method}:{job.out.name}",
        settings.steps,
        threshold=settings.threshold if job.inputs.cost else None,
        quiet=quiet,
    )
    limit = make_slice_limit(job.run.max_steps, job.run.max_minutes)
    with monitor:
        return train_rl_step(settings, job.inputs, StepOptions(on_log=monitor, limit=limit))


def _print_result(result: RLResult, *, as_json: bool) -> None:
    last = {k: v for k, v in result.last.items() if isinstance(v, (int, float, str))}
    if as_json:
        fields = {
            "folder": str(result.folder),
            "steps": result.steps,
            "done_now": result.done_now,
            "finished": result.finished,
            "last": last,
            "left_out": result.left_out,
            "warnings": list(result.warnings),
            "red_model": result.lineage.red_model,
        }
        print_json(msgspec.json.encode(fields))
        return
    print_training_state(result)
    if not result.finished:
        return
    if result.left_out:
        print_text(f"{result.left_out} prompts were longer than --max-prompt and left out")
    if last.get("halted"):
        print_text(f"stopped at step {result.steps}: {last['halted']}")
    print_text(f"{result.folder}  (local:{result.folder}, log.jsonl, training.html, manifest.json)")
    print_next_steps([("truing", "run", "--model", f"local:{result.folder}")])
