"""Generation by vLLM, against stand-ins that hold a model of their own and use pushed weights."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.distributed.processes import run_in_processes

from truing.core.errors import MissingExtra, PlanError, RunError
from truing.distributed.process_group import ProcessGroup
from truing.train.rl.generate import LocalGenerator
from truing.train.rl.policy_models import SeparateModels, SharedBackboneModels
from truing.train.rl.settings import RLSettings
from truing.train.rl.trainer import TrainerOptions
from truing.train.rl.vllm import (
    InProcessEngine,
    VllmGenerator,
    engine_options,
    parse_generator,
    pinned_sampling,
)
from truing.train.rl.vllm_protocol import VllmAnswer
from truing.train.rl.vllm_server import VllmServerEngine, _parse_completion

END_ID = 1
# What released versions of vLLM take, by record_vllm.py: the oldest and the newest of the extra.
RELEASES = json.loads(Path(__file__).with_name("vllm_signatures.json").read_text())
SIGNATURES = RELEASES[max(RELEASES)]["classes"]


def refuse_unknown(names: Any, signature: list[str], what: str) -> None:
    """Raises TypeError as the real function would for a keyword that it does not have."""
    unknown = set(names) - set(signature)
    if unknown:
        raise TypeError(f"{what} got an unexpected keyword argument {sorted(unknown)}")


class ServedModel:
    """A second copy of the base model; adapters are read from their folders, as vLLM does.

    With `ignores_new_adapters` it goes on with the first adapter.
    """

    def __init__(self, task: Any) -> None:
        self.model = task.model(0)
        self.adapter_folders: dict[str, str] = {}
        self.ignores_new_adapters = False

    def load_adapter(self, name: str, folder: str) -> None:
        from peft import PeftModel

        if isinstance(self.model, PeftModel):
            self.model.load_adapter(folder, adapter_name=name)
        else:
            self.model = PeftModel.from_pretrained(self.model, folder, adapter_name=name)
        self.adapter_folders[name] = folder

    def sample(self, adapter: str | None, prompt: list[int], seed: int, max_tokens: int) -> Any:
        """Returns (ids, log-probabilities, finish reason) of one answer."""
        if adapter is not None and not self.ignores_new_adapters:
            self.model.set_adapter(adapter)
        model = self.model if adapter is None else self.model.get_base_model()
        generator = LocalGenerator(model.eval(), frozenset({END_ID}))
        answers = generator([prompt], np.random.default_rng(seed).random((1, max_tokens)))
        ids = list(answers.ids[0])
        log_probs = answers.log_probs[0, : len(ids)].tolist()
        return ids, log_probs, "stop" if answers.ended[0] else "length"


@pytest.fixture
def server(task: Any) -> Iterator[Any]:
    """An HTTP server with the routes of `vllm serve --enable-lora`."""
    served, lock = ServedModel(task), threading.Lock()

    def answer(path: str, body: dict[str, Any]) -> bytes:
        request_type = {
            "/v1/load_lora_adapter": "LoadLoRAAdapterRequest",
            "/v1/unload_lora_adapter": "UnloadLoRAAdapterRequest",
            "/v1/completions": "CompletionRequest",
        }[path]
        refuse_unknown(body, SIGNATURES[request_type]["fields"], path)
        if path == "/v1/load_lora_adapter":
            assert body["lora_name"] not in served.adapter_folders, "it has been loaded already"
            served.load_adapter(body["lora_name"], body["lora_path"])
            return b"Success"
        if path == "/v1/unload_lora_adapter":
            del served.adapter_folders[body["lora_name"]]
            return b"Success"
        assert body["model"] in served.adapter_folders
        assert body["return_token_ids"]
        # Left out, these come from the model's generation_config.json.
        assert body["top_k"] == 0 and body["repetition_penalty"] == 1.0
        ids, log_probs, finish_reason = served.sample(
            body["model"], body["prompt"], body["seed"], body["max_tokens"]
        )
        choice = {
            "token_ids": ids,
            "finish_reason": finish_reason,
            "logprobs": {"token_logprobs": log_probs},
        }
        return json.dumps({"choices": [choice]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                data = answer(self.path, body)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{http_server.server_port}", served=served)
    http_server.shutdown()
    http_server.server_close()


@pytest.fixture
def open_engine() -> Iterator[Callable[[str], VllmServerEngine]]:
    """Returns a function that connects to a server; the connections end with the test."""
    with ExitStack() as engines:
        yield lambda url: engines.enter_context(closing(VllmServerEngine(url)))


def build_models(task: Any, lora: int) -> Any:
    model, tokenizer = task.model(0), task.tokenizer()
    if lora:
        return SharedBackboneModels(model, tokenizer, rank=lora)
    return SeparateModels(model, tokenizer)


def build_generator(task: Any, engine: Any, out: Path, lora: int) -> VllmGenerator:
    settings = RLSettings(method="grpo", out=str(out), lora=lora, max_new=6)
    return VllmGenerator(build_models(task, lora), settings, engine, [END_ID])


def build_trainer(make_trainer: Any, task: Any, engine: Any, out: Path, lora: int) -> Any:
    generator = build_generator(task, engine, out, lora)
    return make_trainer(
        "grpo",
        models=generator.models,
        options=TrainerOptions(generator=generator),
        lora=lora,
        out=str(out),
        lr=3e-2,
        max_new=6,
        steps=3,
    )


def test_a_server_samples_from_the_newest_policy(
    make_trainer: Any, task: Any, server: Any, open_engine: Any, tmp_path: Path
) -> None:
    engine = open_engine(server.url + "/v1")
    last = build_trainer(make_trainer, task, engine, tmp_path / "run", 4).run().values
    assert last["drift"] < 1e-5
    assert last["kl_k3"] > 0.01  # the policy has moved, and the server with it
    (loaded,) = server.served.adapter_folders
    assert loaded.startswith("policy-") and loaded.endswith("-3")
    pushed = sorted(path.name for path in (tmp_path / "run" / "pushed").iterdir())
    assert pushed == [f"{loaded[:-2]}-2", loaded]


def test_a_run_after_a_crash_sends_names_that_the_server_does_not_have(
    make_trainer: Any, task: Any, server: Any, open_engine: Any, tmp_path: Path
) -> None:
    """The server outlives the run and keeps its adapters; it refuses a name that it has."""
    for _ in range(2):
        engine = open_engine(server.url)
        build_trainer(make_trainer, task, engine, tmp_path / "run", 4).generate_rollout(0)
    assert len(server.served.adapter_folders) == 2
    assert len(list((tmp_path / "run" / "pushed").iterdir())) == 1


def test_old_weights_in_the_server_stop_the_run(
    make_trainer: Any, task: Any, server: Any, open_engine: Any, tmp_path: Path
) -> None:
    engine = open_engine(server.url)
    trainer = build_trainer(make_trainer, task, engine, tmp_path / "run", 4)
    trainer.sampler.generator.max_drift = 1e-4
    server.served.ignores_new_adapters = True
    with pytest.raises(RunError, match="out of step"):
        trainer.run()


def test_a_server_takes_no_whole_weights(
    task: Any, server: Any, open_engine: Any, tmp_path: Path
) -> None:
    generator = build_generator(task, open_engine(server.url), tmp_path, 0)
    with pytest.raises(PlanError, match="takes adapters"):
        generator([[4]], np.zeros((1, 4)))


def test_an_unreachable_server_is_named(task: Any, open_engine: Any, tmp_path: Path) -> None:
    engine = open_engine("http://127.0.0.1:9")
    endpoint = engine._load_adapter
    endpoint.retry_policy = type(endpoint.retry_policy)(retries=0)
    with pytest.raises(RunError, match="load_lora_adapter"):
        build_generator(task, engine, tmp_path, 2)([[4]], np.zeros((1, 4)))


def test_an_answer_without_token_ids_needs_a_newer_server() -> None:
    with pytest.raises(ValueError, match=r"vLLM 0\.10\.2"):
        _parse_completion(b'{"choices": [{"text": "gold"}]}')


def test_a_missing_end_token_is_added(task: Any, tmp_path: Path) -> None:
    class EngineWithoutEndTokens:
        def push_weights(self, *_: Any) -> None:
            pass

        def sample(self, *_: Any) -> list[VllmAnswer]:
            return [
                VllmAnswer([4], [-0.5], True),
                VllmAnswer([4, END_ID], [-0.5, -0.7], True),
                VllmAnswer([5], [-0.2], False),
            ]

    generator = build_generator(task, EngineWithoutEndTokens(), tmp_path, 0)
    answers = generator([[4]] * 3, np.zeros((3, 4)))
    assert answers.ids == ((4, END_ID), (4, END_ID), (5,))
    assert answers.ended == (True, True, False)
    assert answers.log_probs.shape == (3, 2)


class FakeLLM:
    """The part of `vllm.LLM` that `InProcessEngine` uses; it takes what the newest vLLM takes."""

    served: Any = None

    def __init__(self, **options: Any) -> None:
        known = [*SIGNATURES["LLM"]["__init__"], *SIGNATURES["EngineArgs"]["fields"]]
        refuse_unknown(options, known, "LLM")
        self.options = options
        self.calls: list[Any] = []
        self.worker = SimpleNamespace(get_model=lambda: self)

    def load_weights(self, named_weights: Any) -> None:
        assert "sleep" not in self.calls[-1:], "the engine sleeps"
        self.served.model.load_state_dict(dict(named_weights), strict=False)

    def collective_rpc(self, method: Any, **arguments: Any) -> Any:
        refuse_unknown(arguments, SIGNATURES["LLM"]["collective_rpc"], "collective_rpc")
        return [method(self.worker, *arguments["args"])]

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset")

    def sleep(self, **arguments: Any) -> None:
        refuse_unknown(arguments, SIGNATURES["LLM"]["sleep"], "sleep")
        self.calls.append(f"sleep {arguments['level']}")

    def wake_up(self, **arguments: Any) -> None:
        refuse_unknown(arguments, SIGNATURES["LLM"]["wake_up"], "wake_up")
        self.calls.append(f"wake {arguments['tags'][0]}")

    def generate(self, prompts: Any, params: Any, **arguments: Any) -> Any:
        refuse_unknown(arguments, SIGNATURES["LLM"]["generate"], "generate")
        lora_request = arguments["lora_request"]
        adapter = None
        if lora_request is not None:
            adapter = lora_request.name
            if adapter not in self.served.adapter_folders:
                self.served.load_adapter(adapter, lora_request.path)
        for prompt, sampling in zip(prompts, params):
            ids, log_probs, finish_reason = self.served.sample(
                adapter, prompt["prompt_token_ids"], sampling.seed, sampling.max_tokens
            )
            candidates = [
                {token: SimpleNamespace(logprob=log_prob)}
                for token, log_prob in zip(ids, log_probs)
            ]
            completion = SimpleNamespace(
                token_ids=ids, logprobs=candidates, finish_reason=finish_reason
            )
            yield SimpleNamespace(outputs=[completion])


def make_sampling_params(**parameters: Any) -> SimpleNamespace:
    refuse_unknown(parameters, SIGNATURES["SamplingParams"]["fields"], "SamplingParams")
    return SimpleNamespace(**parameters)


@pytest.fixture
def fake_vllm(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a package `vllm` with `FakeLLM` into sys.modules."""
    package: Any = ModuleType("vllm")
    request: Any = ModuleType("vllm.lora.request")
    package.LLM, package.TokensPrompt = FakeLLM, dict
    package.SamplingParams = make_sampling_params
    request.LoRARequest = lambda name, number, path: SimpleNamespace(name=name, path=path)
    for module in (package, ModuleType("vllm.lora"), request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    FakeLLM.served = ServedModel(task)


@pytest.mark.parametrize(("lora", "max_lora_rank"), [(4, 8), (0, None)])
@pytest.mark.usefixtures("fake_vllm")
def test_the_engine_of_this_process_samples_from_the_newest_policy(
    make_trainer: Any, task: Any, tmp_path: Path, lora: int, max_lora_rank: int | None
) -> None:
    engine = InProcessEngine(RLSettings(method="grpo", out="", lora=lora), "base")
    last = build_trainer(make_trainer, task, engine, tmp_path / "run", lora).run().values
    assert last["drift"] < 1e-5
    assert last["kl_k3"] > 0.01
    assert engine._llm.options.get("max_lora_rank") == max_lora_rank
    assert engine._llm.calls == ([] if lora else ["reset"] * 3)


@pytest.mark.parametrize(("lora", "level"), [(4, 1), (0, 2)])
@pytest.mark.usefixtures("fake_vllm")
def test_on_a_gpu_the_engine_sleeps_while_the_policy_learns(
    make_trainer: Any, task: Any, tmp_path: Path, lora: int, level: int
) -> None:
    """Weights are awake before they are pushed, the cache only for sampling."""
    engine = InProcessEngine(RLSettings(method="grpo", out="", lora=lora), "base", gpu=True)
    build_trainer(make_trainer, task, engine, tmp_path / "run", lora).run()
    assert engine._llm.options["enable_sleep_mode"]
    push = [] if lora else ["reset"]
    step = ["wake weights", *push, "wake kv_cache", f"sleep {level}"]
    assert engine._llm.calls == [*push, f"sleep {level}", *step, *step]


class TwoProcesses(ProcessGroup):
    def __init__(self) -> None:
        super().__init__()
        self.size = 2


@pytest.mark.parametrize("version", sorted(RELEASES))
def test_released_versions_take_what_the_engines_send(version: str) -> None:
    release = RELEASES[version]
    classes = release["classes"]
    arguments = [*classes["LLM"]["__init__"], *classes["EngineArgs"]["fields"]]
    for lora in (0, 4):
        settings = RLSettings(method="grpo", out="", lora=lora)
        options = engine_options(settings, TwoProcesses(), gpu=True, tensor_parallel=2)
        refuse_unknown(options, arguments, "LLM")
    # Each process has an engine on its own device, not all of them on GPU 0.
    backend = options["distributed_executor_backend"]
    assert backend == "external_launcher"
    assert backend in release["literals"]["DistributedExecutorBackend"]
    assert options["logprobs_mode"] in release["literals"]["LogprobsMode"]
    sampling = pinned_sampling(settings, 3, [END_ID])
    refuse_unknown(sampling, classes["SamplingParams"]["fields"], "SamplingParams")
    request = {**sampling, "model": "", "prompt": [], "return_token_ids": True}
    refuse_unknown(request, classes["CompletionRequest"]["fields"], "a completion")
    assert {"lora_name", "lora_path"} <= set(classes["LoadLoRAAdapterRequest"]["fields"])
    assert {"lora_name"} <= set(classes["UnloadLoRAAdapterRequest"]["fields"])
    assert classes["LoRARequest"]["fields"][:3] == ["lora_name", "lora_int_id", "lora_path"]
    assert {"method", "args"} <= set(classes["LLM"]["collective_rpc"])
    assert {"lora_request", "use_tqdm"} <= set(classes["LLM"]["generate"])
    assert {"tags"} <= set(classes["LLM"]["wake_up"]) and "level" in classes["LLM"]["sleep"]
    assert "get_model" in classes["WorkerBase"]
    assert len(release["environment"]) == 2


def test_processes_that_do_not_divide_into_groups_are_refused() -> None:
    settings = RLSettings(method="grpo", out="")
    with pytest.raises(PlanError, match="2 processes do not divide into groups of 4"):
        engine_options(settings, TwoProcesses(), gpu=True, tensor_parallel=4)
    assert [parse_generator(name) for name in ("vllm", "vllm,tensor_parallel=4")] == [1, 4]
    assert parse_generator("http://host:8000/v1,a") is None
    for name in ("vllm,tensor_parallel=0", "vllm,tp=2", "vllm,tensor_parallel=two"):
        with pytest.raises(PlanError, match=r"tensor_parallel=N, at least 1"):
            parse_generator(name)


class EngineOfAGroup:
    """An engine that answers each prompt with its last token and its seed, and notes prompts."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.prompts: list[list[int]] = []

    def generate(self, prompts: Any, params: Any, **_: Any) -> Any:
        self.prompts = [prompt["prompt_token_ids"] for prompt in prompts]
        for prompt, sampling in zip(self.prompts, params):
            ids = [prompt[-1], sampling.seed]
            candidates = [{token: SimpleNamespace(logprob=-0.5)} for token in ids]
            completion = SimpleNamespace(token_ids=ids, logprobs=candidates, finish_reason="stop")
            yield SimpleNamespace(outputs=[completion])


def sample_together(tensor_parallel: int) -> tuple[Any, list[list[int]], list[list[int]]]:
    """Returns the engine's parallelism, what it was asked, and the answers of this process."""
    package: Any = ModuleType("vllm")
    request: Any = ModuleType("vllm.lora.request")
    package.LLM, package.TokensPrompt = EngineOfAGroup, dict
    package.SamplingParams, request.LoRARequest = make_sampling_params, None
    modules = {"vllm": package, "vllm.lora": ModuleType("vllm.lora"), "vllm.lora.request": request}
    sys.modules.update(modules)
    settings = RLSettings(method="grpo", out="")
    engine = InProcessEngine(settings, "base", tensor_parallel=tensor_parallel)
    rank = ProcessGroup().rank
    prompts = [[rank, 10 * rank + k] for k in range(1 + rank)]
    sampling = [pinned_sampling(settings, 100 + rank, [END_ID]) for _ in prompts]
    answers = [answer.ids for answer in engine.sample(prompts, sampling)]
    return engine._llm.options["tensor_parallel_size"], engine._llm.prompts, answers


@pytest.mark.slow
def test_engines_of_a_group_get_the_same_requests() -> None:
    """Four processes, engines in pairs: each pair samples the prompts of both, each its own."""
    results = run_in_processes(sample_together, 4, 2)
    own = [[[rank, 10 * rank + k] for k in range(1 + rank)] for rank in range(4)]
    for rank, (size, asked, answers) in enumerate(results):
        assert size == 2
        pair = rank // 2 * 2
        assert asked == own[pair] + own[pair + 1]
        assert answers == [[prompt[-1], 100 + rank] for prompt in own[rank]]


def test_the_extra_allows_the_versions_that_were_checked(root: Path) -> None:
    import tomllib

    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    (requirement,) = extras["optional-dependencies"]["vllm"]
    oldest, newest = sorted(RELEASES)[0], sorted(RELEASES)[-1]
    following = int(newest.split(".")[1]) + 1
    assert requirement == f"vllm>={oldest.removesuffix('.0')},<0.{following}"


def test_another_engine_needs_no_copy_of_the_policy(
    make_trainer: Any, task: Any, server: Any, open_engine: Any, tmp_path: Path
) -> None:
    """The merged copy that samples in half precision is built only where the policy samples."""
    trainer = build_trainer(make_trainer, task, open_engine(server.url), tmp_path / "run", 4)
    trainer.models.compute_dtype = torch.bfloat16
    trainer.sampler.generator.max_drift = 1.0
    trainer.train_step()
    assert trainer.models.rollout_model is None


def test_a_nucleus_is_refused(task: Any, tmp_path: Path) -> None:
    """vLLM's log-probabilities would be those within the nucleus, and hide old weights."""
    generator = build_generator(task, None, tmp_path, 0)
    generator.max_drift = 0.01
    with pytest.raises(RunError, match=r"limit 0\.01.*processed_logprobs"):
        generator.check_drift(0.05)
    settings = RLSettings(method="grpo", out=str(tmp_path), lora=0, top_p=0.95)
    with pytest.raises(PlanError, match=r"top_p 0\.95.*--generator local"):
        VllmGenerator(generator.models, settings, generator.engine, [END_ID])


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtra, match=r"truing\[vllm\]"):
        InProcessEngine(RLSettings(method="grpo", out=""), "base")
