"""The tests of the installed release of transformers, from its source package on the package index."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "upstream_tests"  # transformers calls it `tests`, as we do ours


def fetched_tests(version: str, cache: Path) -> Path:
    """Return a folder to put on the path, from which transformers' tests are imported as `upstream_tests`.

    The source package of this `version` is downloaded by pip and unpacked below `cache` once.

    Raises subprocess.CalledProcessError where pip finds none; its own messages are on stderr.
    """
    folder = cache / f"transformers-{version}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        requirement = ["--no-deps", "--no-binary", "transformers", f"transformers=={version}"]
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *requirement, "-d", scratch], check=True)
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as source:
            source.extractall(scratch, filter="data")
        (unpacked,) = (path for path in Path(scratch).iterdir() if path.is_dir())
        whole = Path(scratch) / "whole"
        shutil.move(unpacked / "tests", whole / PACKAGE)
        whole.rename(folder)
    return folder
