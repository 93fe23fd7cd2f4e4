"""How far what a model says may be off: the limits of the judge of text, each with what was seen on both sides of it.

Limits, in nats a token, with the extremes seen on the CPU (transformers 5.23.0): the controls of
tests/harness/text_controls.py and more of their kind on the real checkpoint, and tiny random checkpoints.
"""

from __future__ import annotations

from typing import Final

# Candidate and reference over the same kernels. Correct: at most 4e-12 in float32 (over a cache) and 2e-17 elsewhere,
# where both round alike. Faults: at least 7e-8 in float32 and 6e-4 in bfloat16, both from a stock class whose random
# weights happen to be tiny beside this checkpoint's residual stream; the next are 6e-3 (positions off by one), 0.02
# (one attention without its cache), 0.04 (one sub-layer too few).
DRIFT_LIMITS: Final = {"float32": 1e-8, "bfloat16": 1e-4, "8bit": 1e-4, "4bit": 1e-4}

# Candidate over its cache and reference without, thus over other kernels. Correct, for plans that do not ruin the
# model: at most 7e-12, 1.2e-3, 0.015 and 1.5e-3. A ruined model amplifies rounding, to 0.3 in 8-bit, so the reference's
# own deviation counts as well: the candidate's was 0.9 to 1.1 times that. Faults: at least 0.011 in float32, 0.013 in
# bfloat16, 0.02 in 8-bit, where only `cached_drift` sees a fault so small.
OWN_DRIFT_LIMITS: Final = {"float32": 1e-8, "bfloat16": 5e-3, "8bit": 5e-2, "4bit": 5e-3}
OWN_DRIFT_FACTOR: Final = 3.0

# Candidate over kernels of its own (attention, mlp or norms written anew), tiny random models of 3 and 10 layers: at
# most 6e-13 in float32, 4.5e-4 in bfloat16, 2.1e-3 in 8-bit, 3.9e-4 in 4-bit, with a cache or without, and 7 times what
# the reference's own cache makes. So `drift` and `cached_drift` get the limits above, and all three this factor;
# float32, where nothing is wider, sees the smaller faults.
OTHER_KERNELS_FACTOR: Final = 10.0

# Correct: at most 0. Text behind a wrong tokenizer, or without the chat template: at least 2.2.
EXCESS_LIMIT: Final = 0.5
STANDARD_ERRORS: Final = 5.0  # of sampling: what chance explains; at most 1.6 were seen in correct models

# Over fifteen prompts, and over the three of them that are worst. Plans under which the model still answers (up to 8 of
# its least harmful sub-layers): at most 0.17 and 0.21 in float32, 0.24 and 0.264 in 4-bit; the demo's plan: 0.12 and
# 0.18. Plans under which it does not (attention 0; 14 of the least harmful): at least 0.304 and 0.273. A thin margin,
# since ruin has degrees: 9 sub-layers in 4-bit have 0.263 and 0.293. Prompts count, as text alone varies twice as much.
PLAN_COST_LIMIT: Final = 0.27

# 4-bit under plans that do not ruin the model: at most 0.15. 8-bit that underflows: at least 0.43.
PRECISION_COST_LIMIT: Final = 0.3


def limits_of(numbers: dict[str, float], precision: str, *, other_kernels: bool = False) -> dict[str, float]:
    """Return the largest value that each number may have in a sound model."""
    factor = OTHER_KERNELS_FACTOR if other_kernels else OWN_DRIFT_FACTOR
    own_drift = max(OWN_DRIFT_LIMITS[precision], factor * numbers.get("reference_own_drift", 0.0))
    drift = own_drift if other_kernels else DRIFT_LIMITS[precision]
    return {
        "drift": drift,
        "cached_drift": drift,
        "own_drift": own_drift,
        "run_on": 0,
        "stops_short": 0,
        "excess": EXCESS_LIMIT,
        "plan_cost": PLAN_COST_LIMIT,
        "precision_cost": PRECISION_COST_LIMIT,
    }
