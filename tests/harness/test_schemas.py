"""The JSON Schemas of the records, as the documentation has them."""

import json
import os
from pathlib import Path

import pytest

from harness.bench.record import Benchmark
from harness.planning.scan.record import Scan
from harness.planning.search.record import Search
from harness.releases.record import Bisection, Matrix
from harness.report.report import Report
from harness.report.schema import JsonRecord, json_schema
from tests.harness.bench.records import benchmark_of
from tests.harness.pages import faulty_report, scan_of, search_of

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"
RECORDS: list[type[JsonRecord]] = [Report, Benchmark, Scan, Search, Matrix, Bisection]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.NAME)
def test_the_documentation_has_the_schema(record: type[JsonRecord]) -> None:
    """Each record's schema is in docs/schemas, as its types give it."""
    path, schema = FOLDER / f"{record.NAME}.json", json.loads(json.dumps(json_schema(record)))
    if os.environ.get("PRUNECHECK_REWRITE"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == schema


@pytest.mark.parametrize(
    "record", [faulty_report(), benchmark_of(), scan_of(), search_of()], ids=lambda record: record.NAME
)
def test_what_is_written_holds_to_the_schema(record: JsonRecord) -> None:
    """A record as JSON is valid by its schema, and is not with a value of another type."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema(type(record)))
    content = json.loads(json.dumps(record.to_dict()))
    validator.validate(content)
    for broken in (content | {"schema": 99}, content | {"checkpoint": 5}, content | {"environment": []}):
        assert not validator.is_valid(broken)
