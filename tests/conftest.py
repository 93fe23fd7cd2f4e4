"""Settings of every test: how many examples hypothesis draws, and how many of many cases run."""

import gc
import os
from collections import Counter
from importlib.metadata import version

import pytest
from hypothesis import HealthCheck, settings

# Deadlines: a first example imports and compiles what the next one finds ready, and speed is for benchmarks.
# Function-scoped fixtures: `tmp_path` is the only one used with @given, and each example makes its own folder in it.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}

settings.register_profile("default", **_COMMON)
settings.register_profile("small", max_examples=10, **_COMMON)
_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
settings.load_profile(_PROFILE)

# Golden values are of the bundled checkpoint, whatever whoever runs the tests has set for the demo.
os.environ.pop("PRUNECHECK_CHECKPOINT", None)

pytest_plugins = ["pytester", "tests.file_systems"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a smaller draw run one of three cases of a test that is marked `many_cases`, others in 4.x than in 5.x."""
    if _PROFILE != "small":
        return
    third = int(version("transformers").startswith("4."))
    seen: Counter[str] = Counter()
    kept, left_out = [], []
    for item in items:
        test = item.nodeid.partition("[")[0]
        marked = item.get_closest_marker("many_cases") is not None
        (left_out if marked and seen[test] % 3 != third else kept).append(item)
        seen[test] += 1
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish() -> None:
    """Let garbage collections pass over what imports have made: each load that is judged ends with one."""
    gc.collect()
    gc.freeze()
