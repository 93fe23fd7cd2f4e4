"""Draw docs/report.svg, what `check` shows of a faulty checkpoint: `python docs_tests/report_picture.py`."""

import re
from pathlib import Path

from rich.console import Console

from harness.report.outcomes import CheckRecord, Coverage, FoundFault
from harness.report.report import Report
from harness.report.report_view import print_report

PICTURE = Path(__file__).parents[1] / "docs" / "report.svg"
REPORT = Report(
    checkpoint="DST",
    base="SRC",
    plan={"self_attn": [12, 17, 18, 19, 20], "mlp": [7]},
    checks=(
        CheckRecord("stored.keys", "passed", None, 0.1),
        CheckRecord("stored.base-bytes", "failed", "1 kept tensor(s) differ from the base", 0.4),
        CheckRecord("plain-float32.load", "passed", None, 1.2),
        CheckRecord("plain-float32.logits.identity.random", "failed", "100.00% of the logits are off", 0.6),
    ),
    coverage=Coverage(keys=True, bytes=None, logits=False),
    faults=(
        FoundFault(
            "values",
            "bytes-differ",
            "1 kept tensor(s) differ from the base: model.layers.3.mlp.down_proj.weight",
            (
                "model.layers.3.mlp.down_proj.weight: 331776 of 331776 bytes differ",
                "as a consequence 1 more check(s) fail: plain-float32.logits.identity.random",
            ),
            "Copy these tensors from the base, byte for byte.",
        ),
    ),
    findings=(),
    environment={"plan_from": "pruning.json"},
)


def draw() -> str:
    """Return the picture. Fonts are the reader's own: nothing is fetched."""
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=100, file=nowhere, force_terminal=True, color_system="truecolor")
        print_report(REPORT, console=console)
        title = "prunecheck check DST --base SRC"
        drawn = console.export_svg(title=title, unique_id="report")
    return re.sub(r"\s*@font-face \{.*?\}\n", "\n", drawn, flags=re.DOTALL)


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
