"""The options that the command line and the pytest suite share, as a user types them."""

import os
from pathlib import Path

import pytest

from harness.errors import CannotRun
from harness.models.modes import DTYPES, PLACES, QUANTISATIONS
from harness.models.options import judging_options, worker_count
from pruning import PlanError, PrunePlan

pytestmark = pytest.mark.newest

NOTHING = {"plan": None, "device_map": None, "dtype": None, "quantisation": None}


def test_left_out_is_everything() -> None:
    """An option that is left out stands for all that there is, and for no plan of one's own."""
    everything = {"plan": None, "device_map": PLACES, "dtype": DTYPES, "quantisation": QUANTISATIONS}
    assert judging_options(**NOTHING) == everything


@pytest.mark.parametrize(
    ("option", "text", "chosen"),
    [
        ("device_map", "plain", ("plain",)),
        ("device_map", "auto,plain", ("auto", "plain")),
        ("device_map", " auto , plain ,", ("auto", "plain")),
        ("device_map", "plain,cpu,none", ("plain",)),
        ("device_map", "disk", ("disk-beside", "disk-inside")),
        ("device_map", "cuda,gpu", ("gpu",)),
        ("device_map", "disk-all", ("disk-all",)),
        ("dtype", "bfloat16", ("bfloat16",)),
        ("quantisation", "4bit,8bit", ("4bit", "8bit")),
        ("quantisation", "none", ()),
        ("quantisation", "", ()),
    ],
)
def test_lists(option: str, text: str, chosen: tuple[str, ...]) -> None:
    """Names are separated by commas, each counts once, and the words of transformers' users are understood."""
    assert judging_options(**{**NOTHING, option: text})[option] == chosen


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        (
            "device_map",
            "plain,moon",
            "--device-map moon is unknown: choose among plain, auto, disk-beside, disk-inside, gpu, gpus, disk-all, "
            "none, cpu, disk, cuda, several separated by commas",
        ),
        ("dtype", "float16", "--dtype float16 is unknown: choose among float32, bfloat16, several separated by commas"),
        (
            "quantisation",
            "2bit",
            "--quantisation 2bit is unknown: choose among 8bit, 4bit, none, several separated by commas",
        ),
    ],
)
def test_unknown_names(option: str, text: str, message: str) -> None:
    """A name that is unknown is refused with the option and all that could have been meant."""
    with pytest.raises(CannotRun) as raised:
        judging_options(**{**NOTHING, option: text})
    assert str(raised.value) == message


def test_plan_file(tmp_path: Path) -> None:
    """The plan that was meant is read from its file, and a file that holds none is refused with its name."""
    plan = PrunePlan(self_attn=(1,), mlp=(2, 3))
    plan.to_file(tmp_path / "plan.json")
    assert judging_options(**{**NOTHING, "plan": str(tmp_path / "plan.json")})["plan"] == plan
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(PlanError) as raised:
        judging_options(**{**NOTHING, "plan": tmp_path / "other.json"})
    assert str(raised.value).startswith(str(tmp_path / "other.json"))
    assert "\n" not in str(raised.value)


def test_worker_count() -> None:
    """`-n` takes a number from 1 on, or `auto` for one process a CPU."""
    assert (worker_count("1"), worker_count("12"), worker_count("auto")) == (1, 12, os.cpu_count())


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two", "", "\u0663", "99999999999"])
def test_impossible_worker_counts(text: str) -> None:
    """Anything else is refused as it was typed."""
    with pytest.raises(CannotRun) as raised:
        worker_count(text)
    assert str(raised.value) == f"-n {text} is no number of processes: give one from 1 on, or auto"
