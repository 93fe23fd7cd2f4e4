"""Costs, shares and settings as people read them."""

from __future__ import annotations

from collections.abc import Mapping

from .measurement import Measurement, Quantity

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def setting_text(setting: Mapping[str, int]) -> str:
    """Return the circumstances of a measurement: `batch 1, prompt tokens 128`."""
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def percent(share: float | None) -> str:
    """Return a share as people read it; nothing for None."""
    return "" if share is None else f"{share:.1%}"


def arrived(measurement: Measurement) -> str:
    """Return how much of the predicted gain arrived: "unclear" where that is not known to half of it."""
    share, uncertainty = measurement.arrived, measurement.uncertainty
    if share is None or measurement.removed is None:
        return ""
    if uncertainty is not None and measurement.removed + uncertainty <= 0:
        return "nothing"
    planned = measurement.predictions[0].removed
    if uncertainty is None or uncertainty > planned / 2:
        return "unclear"
    return f"{share:.0%}" if measurement.is_counted else f"{share:.0%} ± {uncertainty / planned:.0%}"


def quantity(value: float, unit: str) -> str:
    """Return bytes or seconds with a unit that suits their size."""
    if unit == "s":
        return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.1f} ms"
    return next((f"{value / size:.2f} {name}" for size, name in _UNITS if abs(value) >= size), f"{value:.0f} B")


def planned(measurement: Measurement, name: Quantity) -> str:
    """Return the share of a quantity that the plan removes; nothing where it is not predicted."""
    return next((percent(each.removed) for each in measurement.predictions if each.quantity == name), "")
