"""What the tests of detection saw: kept in fixtures/detection.json, shown in docs/faults.md.

With the environment variable PRUNECHECK_REWRITE set the tests write both anew; else they require that the same checks
see the same faults, and the documentation's test that the page shows what is kept.
"""

from __future__ import annotations

import json
import os
from itertools import takewhile
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.faults import FAULTS, SOUND_VARIANTS, Fault, SoundVariant
from harness.report.report import Report

_ROOT = Path(__file__).parents[2]
KEPT, PAGE = _ROOT / "fixtures" / "detection.json", _ROOT / "docs" / "faults.md"
_BEGIN, _END = "<!-- written by tests/harness/test_detection.py -->\n", "<!-- end -->\n"


def seen_by(report: Report) -> dict[str, Any]:
    """Return which checks failed, the family that was told first, and the seconds until the first check failed."""
    before = takewhile(lambda check: check.outcome != "failed", report.checks)
    failed = [check for check in report.checks if check.outcome == "failed"]
    return {
        "verdict": report.verdict,
        "family": report.faults[0].family if report.faults else None,
        "checks": [check.name for check in failed],
        "seconds": round(sum(check.seconds for check in [*before, *failed[:1]]), 1),
    }


def compare_or_keep(mutation: Fault | SoundVariant, report: Report) -> None:
    """Require that the first check that fails is the one that is kept, or keep what is seen now."""
    seen = seen_by(report)
    if not os.environ.get("PRUNECHECK_REWRITE"):
        kept = kept_content()[mutation.id]
        assert (seen["verdict"], seen["checks"][:1]) == (kept["verdict"], kept["checks"][:1])
        return
    with FileLock(f"{KEPT}.lock"):
        content = kept_content() | {mutation.id: seen}
        lines = (f"{json.dumps(name)}: {json.dumps(content[name])}" for name in _names() if name in content)
        KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        text = PAGE.read_text(encoding="utf-8")
        before, after = text.split(_BEGIN)[0], text.split(_END)[1]
        PAGE.write_text(f"{before}{_BEGIN}{tables(content)}{_END}{after}", encoding="utf-8")
    Path(f"{KEPT}.lock").unlink(missing_ok=True)


def kept_content() -> dict[str, Any]:
    """Return what is kept, by the name of the fault or of the sound variant."""
    content: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    return content


def shown() -> str:
    """Return the part of the page that the tests write."""
    return PAGE.read_text(encoding="utf-8").split(_BEGIN)[1].split(_END)[0]


def tables(content: dict[str, Any]) -> str:
    """Return the tables of the page, in Markdown."""
    lines = [
        "| fault | family | in | what is done | caught by | after | and by |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, fault in FAULTS.items():
        seen = content.get(name)
        caught, after, others = "not shown by this version, on this machine", "", ""
        if seen is not None:
            caught, after = f"`{seen['checks'][0]}`", f"{seen['seconds']:.1f} s"
            others = _shortened(seen["checks"][1:])
        cells = (f"`{name}`", fault.family, fault.where, fault.description.replace("|", "\\|"), caught, after, others)
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    lines += ["", "| sound variant | what it is | verdict |", "|---|---|---|"]
    for name, variant in SOUND_VARIANTS.items():
        if name in content:
            lines.append(f"| `{name}` | {variant.description} | {content[name]['verdict']} |")
    return "\n".join(lines) + "\n"


def _shortened(names: list[str]) -> str:
    shown_names = ", ".join(f"`{name}`" for name in names[:3])
    return shown_names + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _names() -> list[str]:
    return [*FAULTS, *SOUND_VARIANTS]
