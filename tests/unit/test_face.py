"""`import prunecheck` and `python -m prunecheck`."""

import subprocess
import sys

import harness
import prunecheck
import pruning


def test_every_public_name_is_there() -> None:
    """The face has the names of both halves, each the same object, and tab completion lists them."""
    for half in (pruning, harness):
        assert set(half.__all__) <= set(dir(half))
        for name in half.__all__:
            assert getattr(prunecheck, name) is getattr(half, name)
    assert set(prunecheck.__all__) == {"__version__", *pruning.__all__, *harness.__all__}
    assert set(prunecheck.__all__) <= set(dir(prunecheck))


def test_the_import_is_light() -> None:
    """Importing the face, and asking it for its names, loads neither torch nor transformers."""
    code = (
        "import sys, prunecheck; dir(prunecheck); prunecheck.PrunePlan; "
        "print(sorted({'torch', 'transformers', 'numpy', 'rich'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "[]\n"


def test_the_module_is_the_command() -> None:
    """`python -m prunecheck` runs the command line."""
    command = [sys.executable, "-m", "prunecheck", "--version"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout == f"prunecheck {prunecheck.__version__}\n"
