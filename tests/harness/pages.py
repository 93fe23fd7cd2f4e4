"""Records by hand that have everything a page can show."""

import numpy as np

from harness.planning.scan.record import Contribution, Distance, Scan, Window
from harness.planning.search.record import Search, Step
from harness.releases.record import Bisection, Matrix
from harness.releases.set_record import SetRecord
from harness.report.outcomes import CheckRecord, Coverage, FoundFault
from harness.report.report import Report
from pruning import PrunePlan
from pruning.plan import sublayers_of
from tests.harness.reports import COMPLETE, FAULT, failed, passed, report_of, skipped

LAYERS = 30
HOSTILE = "<script>alert(1)</script>'\"><img src=http://127.0.0.1:9/x onerror=alert(2)>{{ 7 * 7 }}\u202e\x1b[2J\r\n"
ENVIRONMENT = {
    "layers": LAYERS,
    "plan_from": "pruning.json",
    "versions": {"prunecheck": "0.1.0", "torch": "2.13.0", "bitsandbytes": None},
    "platform": "Linux-6.1.0-" + "x86_64-with-a-name-that-does-not-end-" * 3,
    "checkpoint_digest": "0123456789abcdef" * 4,
}


def logits(mode: str, allowed: float, *, leaves_at: int | None = None, by: float = 0.2) -> CheckRecord:
    """The check of the logits on random tokens, with what it measured behind each sub-layer."""
    layers = {
        str(each): by if leaves_at is not None and each.layer >= leaves_at else allowed / 100
        for each in sublayers_of(LAYERS)
    }
    largest = max(layers.values())
    numbers = {"difference": largest * 20, "relative": largest, "allowed": allowed, **layers}
    if leaves_at is None:
        return passed(f"{mode}.logits.identity.random", **numbers)
    return failed(f"{mode}.logits.identity.random", f"{mode}: the logits differ " + "very much " * 40, **numbers)


def sound_report() -> Report:
    """A sound report: some checks are skipped, and there is a finding."""
    return report_of(
        passed("stored.keys", keys=310),
        passed("stored.base-bytes", tensors=310, bytes=499_100_000),
        logits("plain-float32", 1e-5),
        passed("plain-float32.cache.dynamic.one-step-at-a-time", difference=1e-5, relative=1.16e-6, allowed=2e-5),
        skipped("plain-float32.cache.none.chunked-prefill", "without a cache there is nothing to fill in chunks"),
        logits("disk-inside-float32", 1e-5),
        logits("plain-bfloat16", 1e-2),
        skipped("disk-beside-8bit.load", "bitsandbytes does not quantise what lies on the disk"),
        plan={"self_attn": [5, 17, 20, 25, 29], "mlp": [16, 17]},
        findings=("1 kept tensor(s) are all zero: lm_head.weight",),
        environment=ENVIRONMENT,
    )


def faulty_report() -> Report:
    """A faulty report: two faults, and where one of them shows."""
    second = FoundFault("residual", "pruned-norm-still-added", "x + norm(x)", ("layers.16", "layers.17"), "Skip it.")
    return report_of(
        failed("stored.base-bytes", FAULT.cause),
        logits("plain-float32", 1e-5, leaves_at=16),
        logits("plain-bfloat16", 1e-2, leaves_at=20, by=float("nan")),
        checkpoint="/models/" + "a-long-name-without-a-space" * 8,
        faults=(FAULT, second),
        coverage=COMPLETE,
        plan={"self_attn": [], "mlp": [16, 17]},
        environment=ENVIRONMENT,
    )


def undecided_report() -> Report:
    """A report without a base."""
    without = "without --base there is nothing to compare with"
    return report_of(
        passed("stored.keys"),
        skipped("stored.base-bytes", without),
        skipped("plain-float32.logits.identity.random", without),
        base=None,
        coverage=Coverage(True, None, False),
    )


def hostile_report() -> Report:
    """A report in which every text is a stranger's who means ill."""
    return report_of(
        failed(f"{HOSTILE}.load", HOSTILE),
        skipped("stored.keys", HOSTILE),
        CheckRecord("stored.plan", "passed", None, 0.1, {HOSTILE: 1}),
        CheckRecord(
            f"{HOSTILE}.logits.identity.random", "passed", None, 0.1,
            {"allowed": 1, "difference": 0, "layers.0.mlp": float("inf"), "layers.1.mlp": 0},
        ),
        checkpoint=HOSTILE,
        base=HOSTILE,
        faults=(FoundFault("keys", HOSTILE, HOSTILE, (HOSTILE,), HOSTILE),),
        findings=(HOSTILE,),
        environment={"plan_from": HOSTILE, "layers": 10**9, "versions": {HOSTILE: HOSTILE}, "platform": HOSTILE},
    )  # fmt: skip


def scan_of(checkpoint: str = "/models/base", text: str = "prose") -> Scan:
    """A scan of two windows in which the later layers matter more, and one value is not finite."""
    rng = np.random.default_rng(0)

    def values(mean: float) -> tuple[float, ...]:
        return tuple(map(float, mean + rng.normal(0, 0.01, 2)))

    metrics = ("nll", "influence", "angular")
    contributions = [
        Contribution(sublayer, layer, {"nll": values(0.02 * layer), "influence": values(0.1)})
        for sublayer in ("self_attn", "mlp", "layer")
        for layer in range(LAYERS)
    ]
    contributions[5] = Contribution("self_attn", 5, {"nll": (0.1, None), "influence": (0.1, 0.2)})
    distances = [
        Distance(first, layers, values(0.1 * layers)) for layers in (1, 2) for first in range(LAYERS - layers + 1)
    ]
    windows = (Window(text, 0, 2.5), Window(text, 128, 2.7))
    plan = {"self_attn": [3], "mlp": []}
    return Scan(
        checkpoint, plan, LAYERS, "plain-float32", metrics, 128, windows, tuple(contributions), tuple(distances),
        ENVIRONMENT,
    )  # fmt: skip


def search_of(checkpoint: str = "/models/base", text: str = "prose") -> Search:
    """A search of twelve steps whose cost rises ever faster, on a checkpoint that lacked something before."""
    removed = [PrunePlan(**{"mlp" if index % 4 == 3 else "self_attn": (index,)}) for index in range(5, 17)]
    plan, steps = PrunePlan(), []
    for number, each in enumerate(removed, 1):
        plan |= each
        nll = (2.5 + 0.004 * number**2, 2.7 + 0.003 * number**2)
        steps.append(Step(each.to_dict(), plan.to_dict(), 538_000_000 - 5_000_000 * number, nll))
    return Search(
        checkpoint, {"self_attn": [3], "mlp": []}, LAYERS, 538_000_000, "plain-bfloat16", "greedy", 1, {"--drop": 12},
        128, (Window(text, 0, 2.5), Window(text, 128, 2.7)), tuple(steps), ENVIRONMENT,
    )  # fmt: skip


def matrix_of(text: str, *reports: Report) -> Matrix:
    """A matrix of one set for each report, and one that could not run; every name in it is a text."""
    sets = [SetRecord(f"{text}{number}", {text: text}, report, None, 1.0) for number, report in enumerate(reports)]
    return Matrix(text, text, (*sets, SetRecord(text, {}, None, text, 0.0)))


def bisection_of(text: str, before: Report, after: Report) -> Bisection:
    """A search whose answer is open: the release in the middle could not be judged; every name in it is a text."""
    sets = matrix_of(text, before, after).sets
    releases = ("1.0" + text, "2.0" + text, "3.0" + text)
    judged = dict(zip((releases[0], releases[2], releases[1]), sets, strict=True))
    return Bisection(text, text, text, text, releases, judged, releases[0], releases[2])
