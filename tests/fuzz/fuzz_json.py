"""Coverage-guided fuzzing of the readers of configs, indexes, manifests and plans: `tox -e fuzz`.

The first byte of an input says which of these it is, and all else is the file. What fails is left in a file
`crash-*`, which the same command takes as an argument.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pruning"]):
    pass

from tests.unit.hostile_json import KINDS, Stage

# In memory where there is such a place: a million files are written.
_FOLDER = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


def main() -> None:
    """Fuzz with the options and folders of the corpus that the command line names (see `-help=1`)."""
    with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
        stage = Stage(Path(folder))

        def target(data: bytes) -> None:
            if data:
                stage.try_bytes(KINDS[data[0] % len(KINDS)], data[1:])

        atheris.Setup(sys.argv, target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
