"""The first release of a package at which a judgement changes: a binary search over those that the index has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.errors import CannotRun

from .index import between, stable_releases
from .judging import Judge, Listener, Request, judge_set
from .kept import keeping
from .matrix import Progress, judged, once, request_of, step_of
from .record import Bisection
from .set_record import SetRecord


def run_bisect(
    checkpoint: str | Path,
    *,
    package: str,
    good: str,
    bad: str = "latest",
    base: str | Path | None = None,
    judge: Judge = judge_set,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
    **options: Any,
) -> Bisection:
    """Find the first release of a package at which the verdict changes, or, with `keyword`, what its checks come to.

    As many releases are judged as the logarithm to base 2 of their number, and the two ends. Each judgement is kept on
    the disk, and asked for no more. Where a release cannot be judged, the nearest one is. If it changes more than once,
    one of the changes is found.

    Args:
        checkpoint: The directory of the pruned checkpoint.
        package: The name of the package, `transformers` for one.
        good: An older release.
        bad: A newer release, at which the judgement is another; "latest" is the newest stable one.
        base: The unpruned checkpoint: a directory, or a hub id.
        judge: What judges under one set of packages.
        progress: See Progress.
        warn: Called with why a release could not be judged, and with what a judgement says should be known.
        options: Those of `check_checkpoint` that `Request` has: plan, device_map, dtype, quantisation, keyword, ...

    Raises:
        CannotRun: There is no such checkpoint, package or release; `good` or `bad` cannot be judged; or both are
            judged alike, so that there is nothing to find.
    """
    request = request_of(checkpoint, base, options)
    step_of(progress, package, 0, 1)(0, "asking the package index for its releases")
    releases = [str(each) for each in between(stable_releases(package), package, good, bad)]
    search = _Search(package, releases, request, keeping(judge, request), progress, once(warn))
    last, changed = search.run()
    in_order = {release: search.judged[release] for release in releases if release in search.judged}
    return Bisection(
        request.checkpoint, request.base, package, request.keyword, tuple(releases), in_order, last, changed
    )  # fmt: skip


class _Search:
    """The releases, and what is known of them."""

    def __init__(
        self,
        package: str,
        releases: Sequence[str],
        request: Request,
        judge: Judge,
        progress: Progress | None,
        warn: Callable[[str], None],
    ) -> None:
        self.judged: dict[str, SetRecord] = {}
        self._package = package
        self._releases = releases
        self._request = request
        self._judge = judge
        self._progress = progress
        self._warn = warn

    def run(self) -> tuple[str, str]:
        """Return the newest release that is judged as the first one, and the oldest known to be judged otherwise."""
        first, last = self._releases[0], self._releases[-1]
        for release in (first, last):
            if (reason := self._look_at(release).reason) is not None:
                raise CannotRun(f"{self._package} {release} cannot be judged, so nothing can be searched: {reason}")
        alike, otherwise = 0, len(self._releases) - 1
        if self._is_as_the_first(last):
            raise CannotRun(
                f"{self._package} {first} and {last} are judged alike, {self._said(first)}: there is nothing to find"
            )
        while (middle := self._next(alike, otherwise)) is not None:
            release = self._releases[middle]
            if self._look_at(release).report is None:
                continue
            alike, otherwise = (middle, otherwise) if self._is_as_the_first(release) else (alike, middle)
        return self._releases[alike], self._releases[otherwise]

    def _next(self, alike: int, otherwise: int) -> int | None:
        """Return which release to look at: of those that were not, the one nearest to the middle; None at the end."""
        left = [index for index in range(alike + 1, otherwise) if self._releases[index] not in self.judged]
        return min(left, key=lambda index: abs(2 * index - alike - otherwise), default=None)

    def _look_at(self, release: str) -> SetRecord:
        packages = f"{self._package}=={release}"
        done = len(self.judged)
        total = max(2 + math.ceil(math.log2(len(self._releases) - 1)), done + 1)
        step = step_of(self._progress, packages, done, total)
        self.judged[release] = judged(self._judge, packages, self._request, Listener(step, self._warn))
        return self.judged[release]

    def _is_as_the_first(self, release: str) -> bool:
        first, record = self.judged[self._releases[0]], self.judged[release]
        if self._request.keyword is None:
            return record.verdict == first.verdict
        return record.outcomes() == first.outcomes()

    def _said(self, release: str) -> str:
        record = self.judged[release]
        return record.verdict if self._request.keyword is None else f"by the checks of -k {self._request.keyword!r}"
