"""Settings of every test: how many examples hypothesis draws."""

import os

from hypothesis import HealthCheck, settings

# Deadlines: a first example imports and compiles what the next one finds ready, and speed is for benchmarks.
# Function-scoped fixtures: `tmp_path` is the only one used with @given, and each example makes its own folder in it.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}

settings.register_profile("default", **_COMMON)
settings.register_profile("small", max_examples=10, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Golden values are of the bundled checkpoint, whatever whoever runs the tests has set for the demo.
os.environ.pop("PRUNECHECK_CHECKPOINT", None)

pytest_plugins = ["pytester", "tests.file_systems"]
