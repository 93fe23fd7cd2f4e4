"""The pytest plugin of prunecheck: options, a marker and fixtures.

pytest imports this module at every start, whatever the suite at hand. So it has a name of its own and imports nothing
from `harness`, nor torch, until one of its options or fixtures is used: a repository may well have a `harness/` folder.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

_DIRECTORIES = {
    "pruned": "directory of the pruned checkpoint under test",
    "base": "directory of the unpruned checkpoint it was made from",
}
_OPTIONS: dict[str, tuple[str, str]] = {
    **{name: ("DIR", text) for name, text in _DIRECTORIES.items()},
    "plan": ("FILE", 'the plan that was meant, as JSON: {"self_attn": [12], "mlp": [7]}'),
    "device-map": ("LIST", "places to load into, of harness/models/modes.py: plain,auto,disk-beside,disk-inside,gpu"),
    "dtype": ("LIST", "float32,bfloat16"),
    "quantisation": ("LIST", "8bit,4bit or none"),
}
_OTHER_SPELLINGS = {"quantisation": ("quantization",)}
_SUITE = "harness.suite"
_IS_SUITE = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, under names that no suite has for something else."""
    _add_options(parser, "--prunecheck-")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None, None, None]:
    """Add the short names of the options where the conformance suite is what runs.

    Before any conftest.py is looked for: the value of an option that pytest does not know yet is a path to it, and the
    conftest.py of a stranger's checkpoint would run.
    """
    if any(argument.partition("::")[0].startswith(_SUITE) for argument in args):
        _add_options(parser, "--")
        early_config.known_args_namespace = parser.parse_known_args(args, namespace=copy.copy(early_config.option))
        _refuse_configuration_of_checkpoints(early_config)
        early_config.stash[_IS_SUITE] = True
        _require_libraries()
    if _names_a_checkpoint(early_config.known_args_namespace):
        _harness("errors")  # before a conftest.py or a test imports torch: `harness` sets how its threads wait
    return (yield)


def _require_libraries() -> None:
    """Refuse libraries that are not supported before the suite's conftest.py imports them."""
    try:
        _harness("system.requirements").require_libraries()
    except _harness("errors").CannotRun as error:
        raise pytest.UsageError(str(error)) from None


def _names_a_checkpoint(options: argparse.Namespace) -> bool:
    return any(getattr(options, _place(name), None) is not None for name in _DIRECTORIES)


def _refuse_configuration_of_checkpoints(config: pytest.Config) -> None:
    """Refuse to be configured by a file in a checkpoint.

    pytest looks for its configuration before it knows our options: then the DIR of `--pruned DIR` is to it a path of
    tests, whose pytest.ini counts. `--pruned=DIR` is never taken for one.
    """
    if config.inipath is None:
        return
    for name in _DIRECTORIES:
        value = getattr(config.known_args_namespace, _place(name))
        if value is not None and config.inipath.resolve().is_relative_to(Path(value).resolve()):
            raise pytest.UsageError(
                f"pytest took {config.inipath} for its own configuration: write --{name}={value}, in one word, "
                "and run it from another directory"
            )


def _add_options(parser: pytest.Parser, prefix: str) -> None:
    group = parser.getgroup("prunecheck", "prunecheck: pruned language models")
    # The short and the long name fill the same place: an absent one must not empty it.
    default = None if prefix != "--" else argparse.SUPPRESS
    for name, (metavar, text) in _OPTIONS.items():
        spellings = [f"{prefix}{each}" for each in (name, *_OTHER_SPELLINGS.get(name, ()))]
        group.addoption(*spellings, dest=_place(name), metavar=metavar, help=text, default=default)
    group.addoption(
        f"{prefix}trust-remote-code",
        dest=_place("trust-remote-code"),
        action="store_true",
        default=False if prefix != "--" else argparse.SUPPRESS,
        help="let the pruned checkpoint's own code run; that of a release of prunecheck needs no leave",
    )
    group.addoption(
        f"{prefix}allow-partial",
        dest=_place("allow-partial"),
        action="store_true",
        default=False if prefix != "--" else argparse.SUPPRESS,
        help="let the suite pass though keys, bytes or logits could not be checked, or a check could not decide",
    )


def _place(name: str) -> str:
    return f"prunecheck_{name.replace('-', '_')}"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        # A name that `-k` does not match by chance, as it would `load`: pytest counts markers among the keywords.
        "prunecheck_mode(name): the way of loading that a property of the conformance suite is checked in; "
        "choose with -m \"prunecheck_mode(name='plain-float32')\"",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal the suite's tests of one loading mode to one worker: with several, each would load the models again.

    This is no use of xdist_group: with pytest 9.2 and pytest-xdist 3.8.0 groups are not kept together.
    """
    if not config.stash.get(_IS_SUITE, False) or config.getoption("dist") != "load":
        return None
    scheduler = import_module("xdist.scheduler").LoadScopeScheduling(config, log)
    scheduler._split_scope = _scope  # the way of pytest-xdist's documentation, on an instance
    return scheduler


def _scope(nodeid: str) -> str:
    """Return what tests that belong on one worker have in common: `stored`, a loading mode, or their file."""
    file, _, name = nodeid.rpartition("::")
    return name.partition("[")[2].partition(".")[0] if name.startswith("test_property[") else file


def pytest_sessionstart(session: pytest.Session) -> None:
    """Read what the suite is to judge before anything is collected: here a wrong option is told of in one line."""
    options = session.config.option
    if session.config.stash.get(_IS_SUITE, False) and not (options.showfixtures or options.show_fixtures_per_test):
        _harness("suite.preparing").prepared(session.config)
        verdict = _harness("suite.verdict").Verdict(allow_partial=session.config.getoption(_place("allow-partial")))
        session.config.pluginmanager.register(verdict)


@pytest.fixture(scope="session")
def pruned_checkpoint(pytestconfig: pytest.Config) -> Path:
    """The directory of the pruned checkpoint under test, as --prunecheck-pruned names it."""
    return _directory(pytestconfig, "pruned")


@pytest.fixture(scope="session")
def base_checkpoint(pytestconfig: pytest.Config) -> Path:
    """The directory of the unpruned checkpoint, as --prunecheck-base names it."""
    return _directory(pytestconfig, "base")


@pytest.fixture(scope="session")
def pruned_session(
    pytestconfig: pytest.Config, pruned_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The pruned checkpoint, loaded plainly in float32, beside its reference: a harness.models.session.Session."""
    base = pytestconfig.getoption(_place("base"))
    read_subject, errors, pruning = (
        _harness("subject.subject").read_subject,
        _harness("errors"),
        import_module("pruning"),
    )
    trusted = pytestconfig.getoption(_place("trust-remote-code"))
    reason = None
    try:
        subject = read_subject(pruned_checkpoint, base, _plan(pytestconfig), trust_remote_code=trusted)
    except (errors.CannotRun, pruning.PruningError) as error:
        reason = str(error)
    if reason is not None:
        pytest.fail(reason, pytrace=False)
    mode = _harness("models.modes").LoadingMode("plain", "float32")
    session = _harness("models.session").Session(subject, mode, tmp_path_factory.mktemp("prunecheck"))
    yield session
    session.close()


@pytest.fixture(scope="session")
def pruned_model(pruned_session: Any) -> Any:
    """The model of the pruned checkpoint, in float32 and evaluation mode."""
    model, reason = _asked(lambda: pruned_session.model)
    if reason is not None:
        error = pruned_session.load_error
        cause = "" if error is None else f": {_harness('models.session').first_line(error)}"
        option = "--prunecheck-trust-remote-code"
        pytest.fail(f"{reason}{cause}".replace("--trust-remote-code", option), pytrace=False)
    return model


@pytest.fixture
def pruned_reference(pruned_session: Any) -> Any:
    """The stock model of the base without the plan's sub-layers: what the pruned model should compute."""
    _, reason = _asked(lambda: pruned_session.reference)
    if reason is not None:
        pytest.skip(reason)
    with pruned_session.pruned_reference() as reference:
        yield reference


@pytest.fixture(scope="session")
def pruned_tokenizer(pruned_session: Any) -> Any:
    """The tokenizer of the base, or else of the pruned checkpoint; a test is skipped where there is none."""
    tokenizer, reason = _asked(lambda: pruned_session.tokenizer)
    if reason is not None:
        pytest.skip(reason)
    return tokenizer


@pytest.fixture(scope="session")
def prune_plan(pruned_session: Any) -> Any:
    """The plan of the pruned checkpoint: a pruning.PrunePlan."""
    return pruned_session.subject.plan


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """A function from a harness.tiny.TinySpec and a plan to the directories of a tiny checkpoint, unpruned and pruned.

    Called without arguments it makes one of four layers that prunes both kinds of sub-layer. Equal arguments give the
    same directories: a test that changes a file works on a copy.
    """
    made: dict[tuple[Any, Any], tuple[Path, Path]] = {}

    def write(spec: Any = None, plan: Any = None) -> tuple[Path, Path]:
        tiny, pruning = _harness("tiny"), import_module("pruning")
        spec = tiny.TinySpec(layers=4) if spec is None else spec
        plan = pruning.PrunePlan(self_attn=(1, 2), mlp=(1,)) if plan is None else plan
        if (spec, plan) not in made:
            directory = tmp_path_factory.mktemp("tiny")
            base = tiny.write_tiny_checkpoint(spec, directory / "base")
            pruning.prune_checkpoint(base, directory / "pruned", plan, sync=False)
            made[spec, plan] = base, directory / "pruned"
        return made[spec, plan]

    return write


@pytest.fixture(scope="session")
def real_checkpoint() -> Path:
    """The directory of a real Qwen3 checkpoint that talks, fetched once; PRUNECHECK_CHECKPOINT names another."""
    path: Path = _harness("real_checkpoint.cache").real_checkpoint_path()
    return path


def _directory(config: pytest.Config, name: str) -> Path:
    value = config.getoption(_place(name))
    if value is None:
        raise pytest.UsageError(f"this test needs the option --prunecheck-{name} DIR: {_DIRECTORIES[name]}")
    if not Path(value).is_dir():
        raise pytest.UsageError(f"--prunecheck-{name}={value} is not a directory: name one that holds config.json")
    return Path(value)


def _asked(get: Callable[[], Any]) -> tuple[Any, str | None]:
    """Return what a session has, or why it has none: out of the `except`, pytest tells of that in one line."""
    try:
        return get(), None
    except _harness("errors").NotChecked as error:
        return None, str(error)


def _plan(config: pytest.Config) -> Any:
    path = config.getoption(_place("plan"))
    return None if path is None else import_module("pruning").PrunePlan.from_file(path)


def _harness(module: str) -> Any:
    """Import a module of `harness`, ours: another one may stand before it on the path."""
    package = import_module("harness")
    if not Path(str(package.__file__)).parent.joinpath("real_checkpoint", "cache.py").is_file():
        raise pytest.UsageError(
            f"{Path(str(package.__file__)).parent} hides prunecheck's package of the same name: "
            "run pytest without that folder's parent on sys.path, for example with --import-mode=importlib"
        )
    return import_module(f"harness.{module}")
