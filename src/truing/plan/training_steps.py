"""Trains one step from specs: reads its data and judges, and calls the trainer of its kind.

The commands of `truing train` and the steps of a training plan both train by these functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from truing.align.best_of import best_of
from truing.align.prompted import Prompted, prompted
from truing.analysis.labels import read_votes
from truing.core.errors import PlanError, did_you_mean
from truing.core.protocols import Dataset, Judge, Model
from truing.core.types import Sampling
from truing.datasets.run_answers import RunDataset
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions, ProgressCallback
from truing.plan.cost_limits import parse_constraint
from truing.plan.step_inputs import ProbeInputs, RLInputs, SampledInputs, SupervisedInputs
from truing.plan.training_plan import sampling_faults
from truing.specs.extras import needs_extra
from truing.specs.parser import Spec, parse_spec, redact_spec
from truing.specs.resolve import resolve
from truing.train.frozen_prompts import TrainableRows

if TYPE_CHECKING:
    from truing.train.examples import TrainingSet
    from truing.train.labelled_answers import LabelledAnswers
    from truing.train.probe import TrainedProbes
    from truing.train.probe_settings import ProbeSettings
    from truing.train.rl.generate import AnswerGenerator
    from truing.train.rl.policy_models import PolicyModels
    from truing.train.rl.reward_spec import RewardSource, RewardSpec
    from truing.train.rl.run import RLResult
    from truing.train.rl.settings import RLSettings
    from truing.train.rl.trainer import RLTrainer
    from truing.train.settings import TrainingKind, TrainingSettings
    from truing.train.step_loop import SliceLimit
    from truing.train.supervised import TrainingResult

EVALUATION_CONCURRENCY = 256
"""Samples at a time in evaluations of a policy during RL training."""
DEFAULT_SAMPLES = {"distil": 2, "best-of-sft": 8, "iterative-dpo": 8}
"""Answers sampled for each prompt, by kind."""

StepLogCallback = Callable[[dict[str, Any]], None]
SamplingProgress = Callable[[str], AbstractContextManager[ProgressCallback | None]]
"""Takes a title; returns a context manager of the callback that shows the progress of sampling."""


@dataclass(frozen=True)
class StepOptions:
    """How a step runs: the callbacks that show its progress, and where a slice of it ends."""

    on_log: StepLogCallback | None = None
    sampling_progress: SamplingProgress = lambda _: nullcontext()
    limit: SliceLimit | None = None


def spec_for_training(spec: str) -> str:
    """Returns a data spec with the arguments that training needs, unless it sets them itself.

    PKU pairs with contradictory labels are dropped, and the half of the built-in prompts that
    reports measure on is left out.
    """
    parsed = parse_spec(spec)
    if parsed.kind in ("pku", "pku_saferlhf") and "conflicts" not in parsed.args:
        return f"{spec},conflicts=drop"
    if parsed.kind == "builtin" and "half" not in parsed.args:
        return f"{spec},half=train"
    return spec


# -- supervised


def train_supervised_step(
    settings: TrainingSettings,
    inputs: SupervisedInputs,
    options: StepOptions,
    *,
    teacher: Prompted | None = None,
) -> TrainingResult:
    """Reads the data and trains sft, reward, cost, dpo, kto, or distil with its `teacher`."""
    with needs_extra("truing train", "train"):
        from truing.train.supervised import train_supervised
        from truing.train.training_data import check_no_test_overlap, read_training_set

    settings = settings.checked()  # before the data sets are read, which may take minutes
    weights = inputs.weight or (1.0,) * len(inputs.data)
    if len(weights) != len(inputs.data):
        raise PlanError(f"--weight: {len(weights)} numbers for {len(inputs.data)} data sets")
    sources = [
        read_training_set(
            _resolve_trainable(spec, inputs),
            settings.kind,
            weight=weight,
            chosen=inputs.chosen,
            allow_red_team=inputs.allow_red_team,
            limit=inputs.limit,
            harmful=bool(settings.red_model),
        )
        for spec, weight in zip(inputs.data, weights)
    ]
    tests = {
        spec: read_training_set(
            resolve(spec, "data"), settings.kind, limit=inputs.limit, testing=True
        ).items
        for spec in inputs.test
    }
    check_no_test_overlap(sources, tests)
    return train_supervised(
        settings,
        sources,
        fill=_read_benign_pairs(settings.kind) if settings.benign else None,
        wrap=teacher.wrap if teacher is not None else None,
        on_log=options.on_log,
        tests=tests,
        limit=options.limit,
    )


def _read_benign_pairs(kind: TrainingKind) -> TrainingSet | None:
    """Returns pairs about harmless look-alikes of harmful prompts, or None if the kind needs none.

    They top up the data of preference training, so that the model does not learn to refuse
    everything.
    """
    from truing.train.training_data import read_training_set

    if kind not in ("reward", "cost", "dpo", "kto"):
        return None
    return read_training_set(resolve("pairs:benign,half=train", "data"), kind)


def train_sampled_step(
    kind: str, settings: TrainingSettings, inputs: SampledInputs, options: StepOptions
) -> TrainingResult:
    """Samples answers to the prompts of the data sets, and trains on them, in rounds.

    The kinds are distil, best-of-sft and iterative-dpo. Each round samples from the model of the
    round before it and has a seed of its own; the last is in the folder of the step. A finished
    round is read and not repeated.
    """
    faults = sampling_faults(kind, inputs)
    if faults:
        raise PlanError(*(f"--{fault}" for fault in faults))
    for k in range(inputs.rounds):
        is_last = k + 1 == inputs.rounds
        folder = settings.folder if is_last else settings.folder / f"round-{k + 1}"
        base = str(settings.folder / f"round-{k}") if k else settings.base
        round_settings = msgspec.structs.replace(
            settings, out=str(folder), base=base, seed=settings.seed + k
        )
        result = _train_round(kind, round_settings, inputs, options)
        if not result.finished:
            break  # the slice ends in this round
    return result


def _train_round(
    kind: str, settings: TrainingSettings, inputs: SampledInputs, options: StepOptions
) -> TrainingResult:
    base: Model = resolve(f"local:{settings.base}", "model")
    teacher: Prompted | None = None
    model: Model = base
    sample_count = inputs.n or DEFAULT_SAMPLES[kind]
    sampling = Sampling(
        n=sample_count, max_tokens=inputs.max_tokens, temperature=inputs.temperature
    )
    judge: Judge | None = resolve(inputs.by, "judge") if inputs.by else None
    order_by: list[Judge] = []
    if kind == "distil":
        model = teacher = prompted(base, inputs.prompt)
    elif kind == "iterative-dpo" and judge is not None:
        order_by = [judge]
    elif judge is not None:
        ceiling: Judge | None = resolve(inputs.ceiling, "judge") if inputs.ceiling else None
        model = best_of(base, sample_count, judge, ceiling=ceiling, below=inputs.below)
        # The best-of-n model samples n answers itself, at this temperature, and returns one.
        sampling = msgspec.structs.replace(sampling, n=1)
    spec = _sample_answers(
        model, settings, inputs, sampling, options.sampling_progress, judges=order_by
    )
    for orderer in order_by:  # the run folders are read as pairs, ordered by this judge
        runs = parse_spec(spec)
        spec = str(Spec(runs.kind, runs.name, {"by": orderer.name, "gap": str(inputs.gap)}))
    sampled = SupervisedInputs(
        data=(spec,),
        allow_red_team=inputs.allow_red_team,
        allow_measurement_prompts=inputs.allow_measurement_prompts,
    )
    return train_supervised_step(settings, sampled, options, teacher=teacher)


def _sample_answers(
    model: Model,
    settings: TrainingSettings,
    inputs: SampledInputs,
    sampling: Sampling,
    show_progress: SamplingProgress,
    *,
    judges: Sequence[Judge] = (),
) -> str:
    """Answers the prompts of data sets into run folders; returns the spec that reads them."""
    folders = []
    for index, spec in enumerate(inputs.data):
        folder = settings.folder / f"samples-{index}"
        with show_progress(f"answering {redact_spec(spec)}") as progress:
            evaluate_options = EvaluateOptions(
                sampling=sampling, seed=settings.seed, limit=inputs.limit, progress=progress
            )
            # Frozen prompts are left out before they are answered.
            dataset = _resolve_trainable(spec, inputs)
            evaluate(model, dataset, list(judges), folder, options=evaluate_options)
        dataset.log_frozen_rows()
        folders.append(str(folder))
    if len(folders) == 1:
        return str(Spec("run", folders[0]))
    # `run:` reads several folders that are separated by |, which must be quoted in a spec.
    return f'run:"{"|".join(folders)}"'


def train_probe_step(
    settings: ProbeSettings,
    inputs: ProbeInputs,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    on_data: Callable[[LabelledAnswers], None] | None = None,
) -> TrainedProbes:
    """Reads labelled answers and trains linear probes of them on the base's states.

    `on_data` is called with what was read of each data set.
    """
    with needs_extra("truing train probe", "train"):
        from truing.train.labelled_answers import read_labelled_answers
        from truing.train.probe import train_probes

    sources = []
    for spec in inputs.data:
        data: Dataset = resolve(spec_for_training(spec), "data")
        source = read_labelled_answers(
            TrainableRows(data, allow=inputs.allow_measurement_prompts),
            by=inputs.by,
            rater_votes=_votes_of_people(data),
            limit=inputs.limit,
            allow_red_team=inputs.allow_red_team,
        )
        sources.append(source)
        if on_data is not None:
            on_data(source)
    judge_names = {name for source in sources for name in source.judge_names}
    missing = [name for name in inputs.by if name not in judge_names]
    if missing:
        raise PlanError(
            *(
                f"--by {name}: no data set has its verdicts{did_you_mean(name, judge_names)}"
                for name in missing
            )
        )
    return train_probes(settings, sources, on_progress=on_progress)


def _votes_of_people(data: Dataset) -> dict[tuple[str, int], dict[str, list[bool | None]]] | None:
    """Returns what people say of a run's answers, in it and beside it, by answer and question.

    None for a data set that is no run. Raises PlanError for several runs in one spec, whose answers
    are numbered anew.
    """
    if not isinstance(data, RunDataset):
        return None
    if len(data.runs) > 1:
        raise PlanError(f"{data.info.spec}: give each run as a data set of its own")
    by_answer: dict[tuple[str, int], dict[str, list[bool | None]]] = {}
    for (sample_id, index, question), votes in read_votes(data.runs[0]).items():
        by_answer.setdefault((sample_id, index), {})[question] = votes
    return by_answer


def _resolve_trainable(
    spec: str, inputs: SupervisedInputs | SampledInputs | RLInputs
) -> TrainableRows:
    """Returns the data set of a spec, with or without its rows of the frozen measurement set."""
    data: Dataset = resolve(spec_for_training(spec), "data")
    return TrainableRows(data, allow=inputs.allow_measurement_prompts)


# -- reinforcement learning


def train_rl_step(settings: RLSettings, inputs: RLInputs, options: StepOptions) -> RLResult:
    """Resolves data sets and judges, and trains a policy."""
    with needs_extra(f"truing train {settings.method}", "train"):
        from truing.train.rl.run import RLOptions, train_rl
        from truing.train.training_data import read_training_set

    settings = settings.validated(costs=bool(inputs.cost))
    ptx_sources = [
        read_training_set(
            _resolve_trainable(spec, inputs), "sft", allow_red_team=inputs.allow_red_team
        )
        for spec in inputs.ptx_data
    ]
    evaluation_judge: Judge | None = None
    measure = None
    if settings.sample_every:
        evaluation_judge = resolve(inputs.sample_judge, "judge")
        measure = _make_measure(inputs, evaluation_judge, settings.folder)
    rl_options = RLOptions(
        on_log=options.on_log,
        evaluation_judge=evaluation_judge,
        measure=measure,
        ptx_sources=ptx_sources,
        make_generator=generator_factory(inputs.generator),
        limit=inputs.limit,
        slice_limit=options.limit,
        allow_red_team=inputs.allow_red_team,
        allow_frozen=inputs.allow_measurement_prompts,
    )
    reward_spec = _resolve_reward_spec(settings, inputs)
    datasets: list[Dataset] = [resolve(spec_for_training(spec), "data") for spec in inputs.data]
    return train_rl(settings, datasets, reward_spec, rl_options)


def _resolve_reward_spec(settings: RLSettings, inputs: RLInputs) -> RewardSpec:
    from truing.train.rl.reward_spec import RewardSpec

    limits = [parse_constraint(text) for text in inputs.cost_limit]
    return RewardSpec(
        [resolve_scorer(spec, settings) for spec in inputs.reward],
        [resolve_scorer(spec, settings) for spec in inputs.cost],
        inputs.reward_weight,
        inputs.cost_weight,
        {limit.name: resolve_scorer(spec, settings) for limit, spec in limits},
    )


def resolve_scorer(spec: str | Spec, settings: RLSettings) -> RewardSource:
    """Returns the source of a reward or cost: a shared scorer if possible, else a judge.

    A reward or cost model that is an adapter of the run's own base is loaded onto the run's
    backbone, which saves a copy of the base in memory.
    """
    from truing.train.model_card import read_model_card
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


def generator_factory(
    name: str,
) -> Callable[[PolicyModels, RLSettings], AnswerGenerator] | None:
    """Returns the factory of the answer generator of --generator; None for the policy itself.

    Raises PlanError for an unknown generator.
    """
    if name == "local":
        return None
    if name.partition(",")[0] == "vllm" or name.startswith(("http://", "https://")):
        from truing.train.rl.vllm import vllm_generator_factory

        return vllm_generator_factory(name)
    raise PlanError(
        f"--generator {name!r}: must be local, vllm (or vllm,tensor_parallel=N), or the URL "
        "of a vLLM server"
    )


def _make_measure(
    inputs: RLInputs, judge: Judge, folder: Path
) -> Callable[[int, RLTrainer], dict[str, float]]:
    """Returns a function that evaluates the policy during training, into run folders."""
    dataset: Dataset = resolve(inputs.sample_data, "data")
    # "measured_true" is the share of answers for which the judge's question is answered yes.
    metric = "measured_harmful" if judge.question == "harmful" else "measured_true"

    def measure(step: int, trainer: RLTrainer) -> dict[str, float]:
        options = EvaluateOptions(
            sampling=Sampling(max_tokens=trainer.settings.max_new),
            limit=inputs.sample_limit,
            concurrency=EVALUATION_CONCURRENCY,
            seed=trainer.settings.seed,
        )
        policy = trainer.current_policy(f"step-{step}")
        run = evaluate(
            policy, dataset, [judge], folder / "samples" / f"step-{step}", options=options
        )
        verdicts = [j.verdict for j in run.judgements(judge.name) if j.verdict is not None]
        return {metric: sum(verdicts) / len(verdicts)} if verdicts else {}

    return measure
