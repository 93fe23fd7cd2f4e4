"""Writing: `prune` beside the bare work it cannot do without, and beside what people use in its place.

The source lies in the file cache, so what is measured is the work, not the disk that is read from.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import bare, fresh
from benchmarks.interleaved import Work, interleaved, seconds_of, settle
from benchmarks.record import Amount, Figures, Ratio
from benchmarks.synthetic import write_headers_only, write_synthetic
from pruning import PrunePlan, prune_checkpoint, removed_bytes
from pruning.files.source import read_source
from pruning.plan import layer_count

MERGEKIT = os.environ.get("PRUNECHECK_MERGEKIT", "")

MB = 1_000_000


@dataclass(frozen=True)
class Writing:
    """The synthetic checkpoint, the plan, the bytes that are kept, and where to write."""

    source: Path
    plan: PrunePlan
    ranges: bare.Ranges
    out: Path

    def prepare(self) -> None:
        """Remove what was written, and let the machine come to rest."""
        shutil.rmtree(self.out, ignore_errors=True)
        settle(bare.size(self.ranges))

    def prune(self, *, checksum: bool = True, sync: bool = True) -> None:
        """Prune, in this process."""
        prune_checkpoint(self.source, self.out, self.plan, checksum=checksum, sync=sync)

    @property
    def command(self) -> list[str]:
        """The arguments of the command line."""
        return ["prune", str(self.source), str(self.out), "--self-attn", self.plan.to_lists()["self_attn"]]

    @property
    def prefixes(self) -> list[str]:
        """What the pruned keys begin with."""
        return [f"model.layers.{layer_idx}.self_attn." for layer_idx in self.plan.self_attn]


@pytest.fixture(scope="module")
def writing(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, figures: Figures
) -> Iterator[Writing]:
    """A synthetic checkpoint, of which every second attention is pruned."""
    root = tmp_path_factory.mktemp("writing")
    source = write_synthetic(root / "source", round(pytestconfig.getoption("--size") * 1e9))
    plan = PrunePlan(self_attn=tuple(range(1, layer_count(read_source(source).config), 2)))
    prune_checkpoint(source, root / "out", plan, checksum=False, sync=False)
    ranges = bare.kept_ranges(source, root / "out")
    total = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    figures.subject = (
        f"A bfloat16 Qwen3 of {total / 1e9:.2f} GB in {len(ranges)} shards, {len(plan.self_attn)} attentions pruned, "
        f"{bare.size(ranges) / 1e9:.2f} GB kept."
    )
    yield Writing(source, plan, ranges, root / "out")
    shutil.rmtree(root)


Times = dict[str, list[float]]
Baselines = dict[str, tuple[Work, str]]  # by name: what is run, and the goal
Compare = Callable[[str, Work, Baselines], tuple[list[float], Times]]


@pytest.fixture
def compare(benchmark: BenchmarkFixture, writing: Writing, figures: Figures, rounds: int) -> Compare:
    """Return a function that measures one way of writing beside baselines, each with its goal, and takes both up."""

    def measure(what: str, ours: Work, baselines: Baselines) -> tuple[list[float], Times]:
        works = {name: work for name, (work, _) in baselines.items()}
        times, theirs = interleaved(benchmark, ours, works, prepare=writing.prepare, rounds=rounds)
        for name, (_, goal) in baselines.items():
            figures.add(Ratio.of(what, name, times, theirs[name], goal))
        return times, theirs

    return measure


def test_copy(writing: Writing, compare: Compare) -> None:
    """Without checksums and without waiting for the disk, beside a bare loop of `copy_file_range`."""
    compare(
        "`--no-sync --no-checksum`",
        lambda: writing.prune(checksum=False, sync=False),
        {"`copy_file_range`": (lambda: bare.copy(writing.source, writing.out, writing.ranges), "1.25 at most")},
    )


def test_copy_and_checksums(writing: Writing, compare: Compare, figures: Figures) -> None:
    """With checksums, beside a bare copy and a bare sha256, each on one processor."""
    times, theirs = compare(
        "`--no-sync`",
        lambda: writing.prune(sync=False),
        {
            "`copy_file_range`": (lambda: bare.copy(writing.source, writing.out, writing.ranges), ""),
            "sha256": (lambda: bare.checksum(writing.source, writing.ranges), ""),
        },
    )
    slower = list(map(max, *theirs.values()))
    figures.add(Ratio.of("`--no-sync`", "the slower of these two", times, slower, "2 at most"))


def test_everything(writing: Writing, compare: Compare) -> None:
    """The default, beside copy, sha256 and waiting for the disk one after the other, and copy and disk alone."""

    def together() -> None:
        bare.checksum(writing.source, writing.ranges)
        bare.copy(writing.source, writing.out, writing.ranges, sync=True)

    compare(
        "the default",
        writing.prune,
        {
            "`copy_file_range`, sha256, `fsync`": (together, "1.25 at most"),
            "`copy_file_range`, `fsync`": (
                lambda: bare.copy(writing.source, writing.out, writing.ranges, sync=True),
                "",
            ),
        },
    )


def test_other_ways(writing: Writing, compare: Compare, figures: Figures, tmp_path: Path) -> None:
    """The command as typed, beside other ways to write such a checkpoint, start-up and imports included in each."""
    peaks: dict[str, list[float]] = {}

    def peak_of(what: str, code: str, *arguments: object) -> Callable[[], None]:
        return lambda: peaks.setdefault(what, []).append(fresh.run_fresh(code, *arguments) / MB)

    arguments = (writing.source, writing.out, *writing.prefixes)
    baselines: Baselines = {
        "`from_pretrained`, `save_pretrained`": (
            peak_of("load and save", fresh.LOAD_AND_SAVE, *arguments),
            "0.2 at most",
        ),
        "`safe_open`, `save_file`, shard by shard": (
            peak_of("shard by shard", fresh.SHARD_BY_SHARD, *arguments),
            "0.2 at most",
        ),
    }
    if MERGEKIT:
        configuration = write_mergekit_configuration(writing, tmp_path / "merge.yaml")
        command = [MERGEKIT, str(configuration), str(writing.out), "--lazy-unpickle", "--no-write-model-card"]
        baselines["mergekit passthrough, whole layers"] = (lambda: run_mergekit(command), "0.4 at most")
    ours = peak_of("`prune`", fresh.PRUNE, *writing.command, "--no-sync", "--no-checksum")
    compare("`prunecheck prune --no-sync --no-checksum`", ours, baselines)
    for what, values in peaks.items():
        figures.add(Amount.of(f"peak resident memory, {what}", values, "MB", "under 100" if what == "`prune`" else ""))


def write_mergekit_configuration(writing: Writing, path: Path) -> Path:
    """Have mergekit leave out whole layers, of at least the bytes that the plan removes: it has no smaller unit."""
    config = read_source(writing.source).config
    layers = layer_count(config)
    kept = layers - max(1, -(-len(writing.plan.self_attn) // 4))  # an attention is a quarter of a layer
    path.write_text(
        f"slices:\n  - sources:\n      - model: {writing.source}\n        layer_range: [0, {kept}]\n"
        "merge_method: passthrough\ndtype: bfloat16\n"
    )
    return path


def run_mergekit(command: list[str]) -> None:
    """Run mergekit in its own environment."""
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(process.stderr)


@pytest.mark.skipif(bool(MERGEKIT), reason="it is measured beside the other ways")
def test_mergekit() -> None:
    """What is not measured is said."""
    pytest.skip("PRUNECHECK_MERGEKIT does not name mergekit's command `mergekit-yaml`, in an environment of its own")


def test_everything_takes_little_memory(writing: Writing, figures: Figures, rounds: int) -> None:
    """The command's peak resident memory, everything on."""
    peaks = []
    for _ in range(min(rounds, 3)):
        writing.prepare()
        peaks.append(fresh.run_fresh(fresh.PRUNE, *writing.command) / MB)
    writing.prepare()
    figures.add(Amount.of("peak resident memory, `prune`, the default", peaks, "MB", "under 100"))


def test_many_tensors(benchmark: BenchmarkFixture, figures: Figures, rounds: int, tmp_path: Path) -> None:
    """A plan for 50,000 tensors in 100 shards, of which the files hold the headers alone."""
    source = write_headers_only(tmp_path / "source", tensors=50_000, shards=100)
    plan = PrunePlan(self_attn=tuple(range(0, 500, 2)))
    code = (
        "import sys, typer, rich.progress\nfrom pruning import PrunePlan, removed_bytes\n"
        "removed_bytes(sys.argv[1], PrunePlan(self_attn=range(0, 500, 2)))"
    )
    times = seconds_of(benchmark, lambda: removed_bytes(source, plan), rounds=rounds)
    figures.add(Amount.of("to plan 50,000 tensors in 100 shards", times, "s", "under 5"))
    peaks = [fresh.run_fresh(code, source) / MB for _ in range(min(rounds, 3))]
    figures.add(Amount.of("peak resident memory of that", peaks, "MB", "under 100"))


def test_help(benchmark: BenchmarkFixture, figures: Figures, rounds: int) -> None:
    """How long the command takes to begin: `prunecheck prune --help`."""
    times = seconds_of(
        benchmark, lambda: fresh.run_fresh(fresh.PRUNE, "prune", "--help"), rounds=3 * rounds, warmup_rounds=2
    )
    figures.add(Amount.of("`prunecheck prune --help`", times, "s", "under 0.3"))
