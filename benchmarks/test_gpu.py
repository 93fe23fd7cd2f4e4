"""On a GPU: loading, prefill and decoding of a bfloat16 Qwen3 as large as Qwen3-8B, beside what it cannot do without.

Where there is no GPU all of it is skipped; `--gpu cpu --size 0.1` shows in a minute that it works.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cut_down import cut_down_model
from benchmarks.generation import Models, compare, decode, decode_compiled, prefill
from benchmarks.held_bytes import predicted_bytes, stored_shapes
from benchmarks.interleaved import Work
from benchmarks.large import LARGE, LAYERS_OF_A_SHARD, SMALL, write_large, write_shorter
from benchmarks.loads import STOCK, compare_loads
from benchmarks.record import Amount, Figures, Ratio
from harness.bench.fresh_process import FreshLoads, Which
from harness.bench.inference import cache_bytes, synchronise
from harness.models.forward import cache_of
from harness.models.modes import LoadingMode
from harness.models.resident import resident_weight_bytes
from harness.subject.subject import Subject, read_subject
from harness.tiny import TinySpec
from pruning import PrunePlan, load_pruned, prune_checkpoint

PROMPT, STEPS = 1024, 16
ROOM = 2048  # tokens
GB = 1_000_000_000
WAYS: dict[str, Which] = {"load_pruned": "load_pruned", "by the checkpoint's own code": "pruned", "unpruned": "base"}

pytestmark = [
    # torch uses what it deprecates itself, when its compiler is first loaded.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning"),  # there is no float32 to speak of
]


class Checkpoints(NamedTuple):
    """What is loaded: pruned, and with it the unpruned one; a stock one with as many bytes; all on the disk."""

    spec: TinySpec
    plan: PrunePlan
    pruned: Subject
    as_large: Subject
    kept_bytes: int


@pytest.fixture(scope="module")
def device(pytestconfig: pytest.Config) -> str:
    """Return what runs the model, if there is one."""
    device: str = pytestconfig.getoption("--gpu")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    return device


@pytest.fixture(scope="module")
def mode(device: str) -> LoadingMode:
    """Return the way of loading that puts everything there."""
    return LoadingMode("gpu" if device == "cuda" else "plain", "bfloat16")


@pytest.fixture(scope="module")
def checkpoints(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, figures: Figures, device: str
) -> Iterator[Checkpoints]:
    """Write all checkpoints: a quarter of the attentions is pruned, in one half, and of the mlps, in the other."""
    spec = LARGE if pytestconfig.getoption("--size") >= 1 else SMALL
    half = spec.layers // 2
    plan = PrunePlan(self_attn=tuple(range(0, half, 2)), mlp=tuple(range(half + 1, spec.layers, 2)))
    shorter = spec.layers - len(plan.mlp)
    assert shorter % LAYERS_OF_A_SHARD == 0
    folder: Path = tmp_path_factory.mktemp("gpu")
    base, pruned, as_large = (folder / name for name in ("base", "pruned", "as_large"))
    write_large(spec, base, device)
    kept_bytes = prune_checkpoint(base, pruned, plan, checksum=False, sync=False).bytes_after
    write_shorter(TinySpec(**{**vars(spec), "layers": shorter}), base, as_large)
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    figures.subject = (
        f"{name}, torch {torch.__version__}, transformers {transformers.__version__}. A bfloat16 Qwen3 of "
        f"{spec.layers} layers with hidden size {spec.hidden_size}, {len(plan.self_attn)} attentions and "
        f"{len(plan.mlp)} mlps pruned, {kept_bytes / GB:.1f} GB kept; prompts of {PROMPT} tokens, {STEPS} steps "
        "behind them."
    )
    yield Checkpoints(spec, plan, read_subject(pruned, base), read_subject(as_large, as_large), kept_bytes)
    shutil.rmtree(folder)


@pytest.mark.parametrize("way", WAYS)
def test_load(
    benchmark: BenchmarkFixture, loads: FreshLoads, checkpoints: Checkpoints, mode: LoadingMode, figures: Figures,
    rounds: int, way: str,
) -> None:  # fmt: skip
    """A load, bare and up to the end of the first forward pass, beside that of a stock model with as many bytes."""
    compare_loads(
        benchmark, figures, way, ours=lambda: loads.load(checkpoints.pruned, mode, WAYS[way]),
        baselines={STOCK: lambda: loads.load(checkpoints.as_large, mode, "base")},
        kept_bytes=None if way == "unpruned" else checkpoints.kept_bytes, memory=("gpu", "anonymous"), rounds=rounds,
    )  # fmt: skip


@pytest.fixture(scope="module")
def models(checkpoints: Checkpoints, mode: LoadingMode, device: str, tmp_path_factory: Any) -> Iterator[Models]:
    """Yield both models, which compute the same, and a prompt."""
    spec, plan, pruned, base = checkpoints.spec, checkpoints.plan, checkpoints.pruned.root, checkpoints.pruned.base
    assert base is not None
    arguments = mode.arguments(spec.layers, plan, tmp_path_factory.mktemp("offloaded"))
    ours: Any = load_pruned(pruned, **arguments)
    cut_down = cut_down_model(base.root, pruned, plan, torch.bfloat16, device)
    prompt = torch.randint(0, spec.vocabulary_size, (1, PROMPT), generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        expected, got = (model(input_ids=prompt, use_cache=False).logits for model in (cut_down, ours.eval()))
        assert torch.equal(got, expected)
        del expected, got
        yield Models(ours, cut_down, prompt)


def test_cache_bytes(models: Models, checkpoints: Checkpoints, figures: Figures) -> None:
    """A token costs the kept attentions' share of the KV cache, and one element for each pruned attention."""
    ours, cut_down = (cache_bytes(cache_of(prefill(model, models.prompt))) for model in models[:2])
    assert ours is not None
    assert cut_down is not None
    assert ours - cut_down == len(checkpoints.plan.self_attn) * PROMPT * torch.bfloat16.itemsize
    goal = f"{cut_down / PROMPT:.0f} B, and an element of 2 B for each pruned attention"
    figures.add(Amount.of("KV cache a token", [ours / PROMPT], "B", goal))


def test_bytes_held(models: Models, checkpoints: Checkpoints, mode: LoadingMode, figures: Figures) -> None:
    """What a load holds is what its mode predicts."""
    predicted = predicted_bytes(checkpoints.pruned.root, mode, checkpoints.plan)
    held = resident_weight_bytes(models.ours)
    assert held == predicted
    figures.add(Amount.of("tensor bytes held", [held], "B", f"{predicted} B, to the byte"))


class Floor(NamedTuple):
    """The seconds that a prompt, and a step behind it, take at the least: by multiply-adds, and by bytes."""

    prompt: float
    step: float


@pytest.fixture(scope="module")
def floor(checkpoints: Checkpoints, figures: Figures, device: str) -> Floor:
    """Measure how fast the device multiplies and copies, and tell what that means for this model."""
    shapes = {
        name: shape
        for name, shape in stored_shapes(checkpoints.pruned.root).items()
        if len(shape) == 2 and "embed_tokens" not in name
    }
    elements = sum(rows * columns for rows, columns in shapes.values())
    of_head = checkpoints.spec.vocabulary_size * checkpoints.spec.hidden_size
    size = checkpoints.spec.hidden_size
    matrix = torch.randn((2 * size, 2 * size), device=device).to(torch.bfloat16)
    source = torch.randn((size, size * 32), device=device)
    target = torch.empty_like(source)
    rate = 2 * (2 * size) ** 3 / _shortest(lambda: matrix @ matrix)
    bandwidth = 2 * source.nbytes / _shortest(lambda: target.copy_(source))
    figures.add(Amount.of("a bfloat16 matrix product", [rate / 1e12], "TFLOP/s", ""))
    figures.add(Amount.of("copying on the device, bytes read and written", [bandwidth / GB], "GB/s", ""))
    return Floor(
        prompt=2 * ((elements - of_head) * PROMPT + of_head) / rate,
        step=elements * torch.bfloat16.itemsize / bandwidth,
    )


def _shortest(work: Work) -> float:
    times = []
    for _ in range(10):
        synchronise()
        begin = time.perf_counter()
        for _ in range(5):
            work()
        synchronise()
        times.append((time.perf_counter() - begin) / 5)
    return min(times)


def test_prefill(benchmark: BenchmarkFixture, models: Models, floor: Floor, figures: Figures, rounds: int) -> None:
    """A prompt takes as long as in the model that never had what is pruned."""
    times = compare(
        benchmark, figures, "prefill", models, lambda model: lambda: prefill(model, models.prompt), 3 * rounds
    )
    figures.add(Ratio.of("prefill", "multiply-adds over the rate", times, [floor.prompt] * len(times), ""))


@pytest.mark.parametrize("how", ["eager", "torch.compile", "torch.compile with CUDA graphs"])
def test_decode(
    benchmark: BenchmarkFixture, models: Models, floor: Floor, figures: Figures, rounds: int, how: str
) -> None:
    """A step behind a prompt takes as long as in the model that never had what is pruned."""
    options = {"mode": "reduce-overhead"} if how.endswith("CUDA graphs") else {}

    def make(model: Any) -> Work:
        if how == "eager":
            return decode(model, models.prompt, STEPS)
        return decode_compiled(model, models.prompt, STEPS, ROOM, **options)

    times = compare(benchmark, figures, f"decoding, {how}", models, make, 3 * rounds)
    figures.add(Ratio.of(f"decoding, {how}", "bytes over the bandwidth", times, [STEPS * floor.step] * len(times), ""))
