"""Sweeps over many drawn checkpoints: every fault is found wherever it is planted, and nothing sound is called faulty.

They take long: `python3 -m tox -e sweep` runs them. A small draw of each is in every run, in test_detection.py.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.faults import FAULTS
from tests.harness.checks.drawing import judge_drawn_fault, judge_drawn_sound

SOUND_CHECKPOINTS = 500
# Most checkpoints are none that a fault can be planted in: those are thrown away before anything is judged.
_MANY_ARE_FILTERED = [HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@pytest.mark.sweep
@pytest.mark.parametrize("part", range(10))
@settings(max_examples=SOUND_CHECKPOINTS // 10)
@given(data=st.data())
def test_no_false_alarm_among_many(part, data, tmp_path):
    """Whatever is pruned out of whatever tiny checkpoint is sound, and nothing but sound."""
    judge_drawn_sound(data, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("fault_id", FAULTS)
@settings(max_examples=6, suppress_health_check=_MANY_ARE_FILTERED)
@given(data=st.data())
def test_fault_is_found_wherever_it_is_planted(fault_id, data, tmp_path):
    """The verdict is faulty, and the first fault that is told is of the family of what was planted."""
    judge_drawn_fault(FAULTS[fault_id], data, tmp_path)
