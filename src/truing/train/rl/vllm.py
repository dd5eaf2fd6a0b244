"""Answers sampled by vLLM, in this process (`--generator vllm`) or by a server (`--generator URL`).

The weights of the policy are pushed before each step: its LoRA adapter as a folder that the engine
or server can read, or whole weights into the engine of this process. With several processes each
has an engine of its own, on its own GPU; with `--generator vllm,tensor_parallel=4` the engines of
four neighbouring processes hold a quarter of the weights each and sample together. A server needs
VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora, --max-lora-rank, and
--logprobs-mode processed_logprobs.

The trainer computes the log-probabilities of all answers again. If vLLM's differ by more than
`max_drift` per token on average, vLLM has old weights or computes differently, and the run stops
(trl #5312, #6688).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import torch

from truing.core.errors import MissingExtra, PlanError, RunError
from truing.distributed.process_group import ProcessGroup
from truing.hf.loading import eos_token_ids
from truing.train.rl.policy_models import POLICY, PolicyModels, SharedBackboneModels
from truing.train.rl.rollout import GeneratedAnswers
from truing.train.rl.settings import RLSettings
from truing.train.rl.vllm_protocol import PolicyVersion, VllmAnswer, VllmEngine
from truing.train.rl.vllm_server import VllmServerEngine
from truing.train.sharding import gather_tensors
from truing.train.trainable_model import find_base_model

# The share of GPU memory that vLLM may take: the models in training need the rest.
_GPU_MEMORY_SHARE = 0.35
# vLLM accepts only certain LoRA ranks, the smallest is 8; adapters of a lower rank fit in.
_SMALLEST_LORA_RANK = 8


def pinned_sampling(settings: RLSettings, seed: int, end_ids: Sequence[int]) -> dict[str, Any]:
    """Returns all sampling parameters of an answer, by vLLM's names.

    Each is sent: one that is left out comes from the `generation_config.json` of the model, and the
    answers are then not drawn from the policy.
    """
    return {
        "max_tokens": settings.max_new,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": 0,  # no limit
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop_token_ids": list(end_ids),
        "seed": seed,
        "logprobs": 0,  # the sampled token's alone
    }


def refuse_nucleus(settings: RLSettings) -> None:
    """Raises PlanError for top_p < 1.

    Within a nucleus vLLM's log-probabilities are up to -log(top_p) higher than those of the policy:
    more than old weights change them, and the importance weights are biased.
    """
    if settings.top_p < 1:
        raise PlanError(
            f"top_p {settings.top_p}: vLLM gives log-probabilities within the nucleus, which "
            f"cannot be compared with the policy's; use top_p 1, or --generator local"
        )


class VllmGenerator:
    """An `AnswerGenerator` on a vLLM engine; pushes the newest weights before each batch."""

    def __init__(
        self,
        models: PolicyModels,
        settings: RLSettings,
        engine: VllmEngine,
        end_ids: Sequence[int],
        *,
        max_drift: float = 0.2,
    ) -> None:
        refuse_nucleus(settings)
        self.models = models
        self.settings = settings
        self.engine = engine
        self.end_ids = frozenset(end_ids)
        self.max_drift = max_drift
        self.processes = ProcessGroup()
        self.version = 0
        self._name = ""

    def __call__(
        self, prompts: Sequence[Sequence[int]], uniform_draws: np.ndarray
    ) -> GeneratedAnswers:
        """Samples answers under the newest weights; each has a seed from its own random stream."""
        started = time.perf_counter()
        self.engine.push_weights(self.models, self._next_version())
        end_ids = sorted(self.end_ids)
        sampling = [
            pinned_sampling(self.settings, int(row[0] * 2**31), end_ids) for row in uniform_draws
        ]
        answers = self.engine.sample(prompts, sampling)
        ids = tuple(tuple(self._ids_with_end(answer)) for answer in answers)
        log_probs = torch.zeros(len(ids), max(map(len, ids), default=1))
        for row, answer in enumerate(answers):
            log_probs[row, : len(answer.log_probs)] = torch.tensor(answer.log_probs)
        return GeneratedAnswers(
            ids,
            log_probs,
            tuple(answer.ended for answer in answers),
            time.perf_counter() - started,
        )

    def _ids_with_end(self, answer: VllmAnswer) -> list[int]:
        """Returns the token ids with the end token, which some versions of vLLM leave out."""
        if not answer.ended or (answer.ids and answer.ids[-1] in self.end_ids):
            return answer.ids
        return [*answer.ids, min(self.end_ids)]

    def _next_version(self) -> PolicyVersion:
        """Writes the adapter for vLLM to read, unless the policy has whole weights."""
        root = self.settings.folder / "pushed"
        if not self._name:
            # A server may still hold the adapters of a run that crashed, and refuses their names.
            # All processes must send the same name: that of the first.
            self._name = f"policy-{self.processes.share_text(uuid4().hex[:8])}"
            if self.processes.is_main:
                shutil.rmtree(root, ignore_errors=True)
        self.version += 1
        name = f"{self._name}-{self.version}"
        if not isinstance(self.models, SharedBackboneModels):
            return PolicyVersion(self.version, name, None)
        folder = root / name
        if self.processes.is_main:
            # The previous version stays: vLLM may read it until the new one is loaded.
            shutil.rmtree(root / f"{self._name}-{self.version - 2}", ignore_errors=True)
            self.models.save_policy_adapter(folder)
        self.processes.barrier()
        return PolicyVersion(self.version, name, folder.resolve())

    def check_drift(self, drift: float) -> None:
        """Raises RunError if vLLM's log-probabilities are not those of the policy."""
        if drift > self.max_drift:
            raise RunError(
                f"vLLM's log-probabilities differ by {drift:.3g} per token from the policy's "
                f"(limit {self.max_drift:.3g}): its weights are out of step, it computes in "
                f"another precision, or a server runs without --logprobs-mode processed_logprobs; "
                f"no gradient step was taken on these answers"
            )


def load_policy_weights(worker: Any, weights: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Runs in a worker of vLLM: loads weights by their names in the model's checkpoint."""
    worker.get_model().load_weights(weights)


def engine_options(
    settings: RLSettings, processes: ProcessGroup, *, gpu: bool, tensor_parallel: int = 1
) -> dict[str, Any]:
    """Returns the arguments of `vllm.LLM` besides the model.

    Raises PlanError if the processes do not divide into groups of `tensor_parallel`.
    """
    if processes.size % tensor_parallel:
        raise PlanError(
            f"tensor_parallel={tensor_parallel}: {processes.size} processes do not divide into "
            f"groups of {tensor_parallel}"
        )
    options: dict[str, Any] = {
        "dtype": settings.dtype,
        "max_model_len": settings.max_length,
        "gpu_memory_utilization": _GPU_MEMORY_SHARE,
        "enable_prefix_caching": True,
        # After the temperature, as the trainer computes them.
        "logprobs_mode": "processed_logprobs",
        "seed": settings.seed,
    }
    if settings.lora:
        rank = max(_SMALLEST_LORA_RANK, settings.lora)
        options |= {"enable_lora": True, "max_lora_rank": rank}
    if processes.size > 1:
        # The engine takes rank, device and process group of the process that it runs in; without
        # it the engines of all processes would start on GPU 0.
        options["distributed_executor_backend"] = "external_launcher"
        options["tensor_parallel_size"] = tensor_parallel
    if gpu:
        options["enable_sleep_mode"] = True
    return options


class InProcessEngine:
    """vLLM in the training process, on the same device; it sleeps while the policy learns.

    The engines of `tensor_parallel` neighbouring processes sample together. vLLM requires that all
    of them get the same requests in the same order, and each returns all answers.
    """

    def __init__(
        self, settings: RLSettings, path: str, *, gpu: bool = False, tensor_parallel: int = 1
    ) -> None:
        self._processes = ProcessGroup()
        self._tensor_parallel = tensor_parallel
        options = engine_options(
            settings, self._processes, gpu=gpu, tensor_parallel=tensor_parallel
        )
        # In a process of its own the engine could not take weights without copying them through
        # a socket. The variable is read at the import.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        try:
            import vllm
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise MissingExtra("vllm", "generation by vLLM (package vllm)") from error
        self._vllm = vllm
        self._lora_request_type = LoRARequest
        self._llm = vllm.LLM(model=path, **options)
        self._lora_request: Any = None
        # Level 2 drops the weights, which the next step pushes anyway; adapters need the base.
        self._sleep_level = (1 if settings.lora else 2) if gpu else 0
        self._sleeps = False

    def push_weights(self, models: PolicyModels, version: PolicyVersion) -> None:
        """Sets the adapter of the next batch, or copies every tensor of the policy."""
        self._wake_up("weights")
        if version.adapter is not None:
            # vLLM caches adapters by their number, so every version needs a new one.
            self._lora_request = self._lora_request_type(
                version.name, version.number, str(version.adapter)
            )
        else:
            with models.active(POLICY) as policy:
                # One tensor at a time: the whole weights of a sharded policy may not fit.
                weights = ((n, gather_tensors(p.data)) for n, p in policy.named_parameters())
                self._llm.collective_rpc(load_policy_weights, args=(weights,))
            # Cached prefixes were computed with the old weights.
            self._llm.reset_prefix_cache()
        self._wake_up("kv_cache")
        self._sleeps = False

    def _wake_up(self, tag: str) -> None:
        if self._sleeps:
            self._llm.wake_up(tags=[tag])

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[dict[str, Any]]
    ) -> list[VllmAnswer]:
        """Samples all answers in one batch, and frees the memory of the engine."""
        prompts, sampling, own_rows = self._join_requests(prompts, sampling)
        outputs = self._llm.generate(
            [self._vllm.TokensPrompt(prompt_token_ids=list(p)) for p in prompts],
            [self._vllm.SamplingParams(**parameters) for parameters in sampling],
            lora_request=self._lora_request,
            use_tqdm=False,
        )
        answers = []
        for output in outputs:
            completion = output.outputs[0]
            log_probs = [
                candidates[token].logprob
                for token, candidates in zip(completion.token_ids, completion.logprobs)
            ]
            ended = completion.finish_reason == "stop"
            answers.append(VllmAnswer(list(completion.token_ids), log_probs, ended))
        if self._sleep_level:
            self._llm.sleep(level=self._sleep_level)
            self._sleeps = True
        return answers[own_rows]

    def _join_requests(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[dict[str, Any]]
    ) -> tuple[Sequence[Sequence[int]], Sequence[dict[str, Any]], slice]:
        """Returns the requests of all engines that sample together, and which are this one's."""
        if self._tensor_parallel == 1:
            return prompts, sampling, slice(None)
        requests = msgspec.json.encode([[list(p), s] for p, s in zip(prompts, sampling)]).decode()
        first = self._processes.rank // self._tensor_parallel * self._tensor_parallel
        group = self._processes.gather_texts(requests)[first : first + self._tensor_parallel]
        parts = [msgspec.json.decode(text) for text in group]
        position = self._processes.rank - first
        begin = sum(len(part) for part in parts[:position])
        joined = [request for part in parts for request in part]
        return [r[0] for r in joined], [r[1] for r in joined], slice(begin, begin + len(prompts))


def parse_generator(name: str) -> int | None:
    """Returns the tensor parallelism of `vllm` or `vllm,tensor_parallel=N`; None for other names.

    Raises PlanError for other options of vllm.
    """
    kind, _, options = name.partition(",")
    if kind != "vllm":
        return None
    if not options:
        return 1
    key, _, value = options.partition("=")
    if key != "tensor_parallel" or not value.isdecimal() or int(value) < 1:
        raise PlanError(f"--generator {name}: the option of vllm is tensor_parallel=N, at least 1")
    return int(value)


def vllm_generator_factory(name: str) -> Callable[[PolicyModels, RLSettings], VllmGenerator]:
    """Returns a function that makes the generator of `--generator NAME` once the models are loaded.

    `name` is "vllm" or "vllm,tensor_parallel=N" for the engine in this process, or the URL of a
    server.
    """
    tensor_parallel = parse_generator(name)

    def make_generator(models: PolicyModels, settings: RLSettings) -> VllmGenerator:
        refuse_nucleus(settings)  # before the engine is started
        engine: VllmEngine
        if tensor_parallel is not None:
            path = str(find_base_model(settings.base).weights.path)
            gpu = models.device.type == "cuda"
            engine = InProcessEngine(settings, path, gpu=gpu, tensor_parallel=tensor_parallel)
        else:
            engine = VllmServerEngine(name)
        with models.active(POLICY) as policy:
            end_ids = sorted(eos_token_ids(policy, models.tokenizer))
        return VllmGenerator(models, settings, engine, end_ids)

    return make_generator
