"""Coverage-guided fuzzing of the reader of safetensors headers: `tox -e fuzz`.

The first byte of an input is the number of bytes behind the header, and all else is the header, whose length is put
before it; if it is 255, the rest is the whole file. What fails is left in a file `crash-*`, which the same command
takes as an argument.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pruning"]):
    pass  # imported here to be instrumented; differential.py uses it

from tests.unit.checkpoints import raw_shard
from tests.unit.differential import assert_as_the_library

# In memory where there is such a place: a million files are written.
_FOLDER = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


def main() -> None:
    """Fuzz with the options and folders of the corpus that the command line names (see `-help=1`)."""
    with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
        path = Path(folder) / "model.safetensors"

        def target(data: bytes) -> None:
            count, rest = data[:1], data[1:]
            content = rest if count in (b"", b"\xff") else raw_shard(rest, bytes(range(count[0])))
            assert_as_the_library(path, content)

        atheris.Setup(sys.argv, target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
