"""Records as JSON: a frozen dataclass is the schema, msgspec reads by it, and each file says its schema's number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec

from harness.errors import CannotRun
from pruning import PruningError

from .files import read_record


class JsonRecord:
    """A frozen dataclass that is kept as a JSON object.

    A class raises ValueError in `__post_init__` for values that its types allow and its meaning does not.
    """

    NAME: ClassVar[str]
    """What people call it."""
    KIND: ClassVar[str | None] = None
    """What `kind` says in the JSON; None where the JSON has no such entry."""
    SCHEMA: ClassVar[int] = 1
    READABLE: ClassVar[tuple[int, ...]] = (1,)
    """The schemas that this class still reads."""

    @classmethod
    def is_in(cls, content: object) -> bool:
        """Whether JSON says of itself that it is such a record, of whatever schema."""
        return isinstance(content, Mapping) and "schema" in content and content.get("kind") == cls.KIND

    def fields(self) -> dict[str, Any]:
        """Return what the JSON has beside `schema` and `kind`; classes add what follows from it, for readers alone."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # each class is a dataclass

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON holds it."""
        return {"schema": self.SCHEMA, **({} if self.KIND is None else {"kind": self.KIND}), **self.fields()}

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Read what `to_dict` wrote; raises ValueError, in one line, for anything else."""
        schemas = " or ".join(map(str, cls.READABLE))
        if not cls.is_in(content) or content["schema"] not in cls.READABLE:  # type: ignore[index]  # it is a mapping
            raise ValueError(f"not a {cls.NAME} of schema {schemas}")
        try:
            return msgspec.convert(content, cls)
        except (ValueError, PruningError) as error:
            raise ValueError(f"not a {cls.NAME} of schema {schemas}: {error}") from None

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a record's JSON file; raises CannotRun, naming it."""
        try:
            return cls.from_dict(read_record(path, cls.NAME))
        except ValueError as error:
            raise CannotRun(f"{path} is not a {cls.NAME} of prunecheck: {error}") from None


def json_schema(record: type[JsonRecord]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a record's file."""
    schema = msgspec.json.schema(record)
    inner = schema["$defs"][record.__name__]
    said: dict[str, Any] = {"schema": {"enum": list(record.READABLE)}}
    if record.KIND is not None:
        said["kind"] = {"const": record.KIND}
    inner["properties"] = {**said, **inner["properties"]}
    inner["required"] = [*said, *inner["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
