"""The judge as a whole: every known fault ends faulty, under its family, and nothing sound does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from harness.faults import FAULTS, SOUND_VARIANTS
from harness.system.libraries import quiet_libraries
from tests.harness import detection
from tests.harness.checks.cases import (
    WITHOUT_TEXT,
    Case,
    cases_in,
    judge_mutation,
    suitable_case,
    told,
    told_family,
)
from tests.harness.checks.drawing import judge_drawn_sound

# Loads that raise before a version of transformers, so that there is no model to judge.
RAISES_BEFORE = {"stock-class-quantised": "5.0.0"}
# Which check sees a fault first may depend on the version.
NEWEST = transformers.__version__ == "5.23.0"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Return a function from the name of a spec to its unpruned and its sound pruned checkpoint."""
    return cases_in(tmp_path_factory.mktemp("detection"))


@pytest.mark.many_cases
@pytest.mark.parametrize("fault_id", FAULTS)
def test_fault_is_found(fault_id: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """The verdict is faulty, and the first fault that is told is of the family of what was planted."""
    fault = FAULTS[fault_id]
    if reason := fault.needs():
        pytest.skip(reason)
    each = suitable_case(fault, case)
    if Version(transformers.__version__) < Version(RAISES_BEFORE.get(fault_id, "0")):
        assert fault.load is not None
        with quiet_libraries(), pytest.raises(AttributeError), fault.load(each.sound):
            pass
        return
    report = judge_mutation(fault, each, tmp_path, keyword=WITHOUT_TEXT)
    assert report.verdict == "faulty"
    assert report.faults[0].family == told_family(fault), told(report)
    if NEWEST:
        detection.compare_or_keep(fault, report)


@pytest.mark.many_cases
@pytest.mark.parametrize("variant_id", SOUND_VARIANTS)
def test_sound_variant_is_sound(variant_id: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """An unusual checkpoint, or load, in which nothing is wrong is sound."""
    variant = SOUND_VARIANTS[variant_id]
    if reason := variant.needs():
        pytest.skip(reason)
    report = judge_mutation(variant, suitable_case(variant, case), tmp_path)
    assert report.verdict == "sound", told(report)
    if NEWEST:
        detection.compare_or_keep(variant, report)


def test_page_shows_what_is_kept() -> None:
    """docs/faults.md has the tables of what the tests saw, of every fault that the newest transformers can show."""
    content = detection.kept_content()
    assert detection.shown() == detection.tables(content)
    shown_here = [name for name, each in {**FAULTS, **SOUND_VARIANTS}.items() if not each.needs()]
    assert not NEWEST or set(shown_here) <= content.keys()


@settings(max_examples=max(1, settings().max_examples // 20))
@given(data=st.data())
def test_no_false_alarm(data: st.DataObject, tmp_path: Path) -> None:
    """Whatever is pruned out of whatever tiny checkpoint is sound, and nothing but sound."""
    judge_drawn_sound(data, tmp_path)
