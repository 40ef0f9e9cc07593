"""Choose the settings of a job for a time that the user gives, or for quality, by `init --budget` and `--preset`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from wsss_ray.core.plan import Stage
from wsss_ray.preflight.dry_run import CheckError
from wsss_ray.preflight.forecast import Forecast, forecast
from wsss_ray.preflight.memory import free_memory
from wsss_ray.preflight.survey.ladder import ladder, longest_that_fits, words, worse
from wsss_ray.preflight.survey.sizes import JobSizes
from wsss_ray.preflight.survey.survey import Survey
from wsss_ray.preflight.survey.write import composed
from wsss_ray.reporting.words import roughly

Preset = Literal["quick", "best"]

_ROOM = 0.95  # share of a budget to fill, as two trials of a job differ
_DURATION = re.compile(r"(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,7})s)?")


@dataclass(frozen=True)
class Chosen:
    """Settings, and what was said when they were chosen.

    Attributes:
        sizes: The settings.
        why: The choice in one line, for the job file and the user.
        worse: What the settings give up.
    """

    sizes: JobSizes
    why: str
    worse: tuple[str, ...] = ()


def duration(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `10m`, `1h30m` or `2h`.

    Raises:
        ValueError: if the text is none.

    Example:
        >>> duration("1h30m")
        5400.0
    """
    found = _DURATION.fullmatch(text.strip())
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found is not None else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if total == 0:
        raise ValueError(f"--budget {text!r}: is not a duration. Give hours, minutes and seconds, such as 90s, 10m, 1h30m or 2h.")
    return float(total)


def by_preset(found: Survey, preset: Preset) -> Chosen:
    """Choose the settings that score best, or the smallest.

    Args:
        found: The inspection of the folder.
        preset: `best`: what the project knows to score best, whatever time it takes. `quick`: the smallest that make sense.
    """
    rungs = ladder(found.sizes(), found.num_train)
    if preset == "quick":
        chosen = rungs[-1]
        return Chosen(chosen, f"--preset quick: {words(chosen)}", tuple(worse(chosen, rungs[0])))
    why = f"--preset best: {words(rungs[0])}"
    if rungs[0].saliency is not None or rungs[0].networks.clip is not None:
        return Chosen(rungs[0], why)
    lacks = "no saliency: on photographs it scores best. Run pip install 'wsss-ray[saliency]', then init again"
    return Chosen(rungs[0], why, (lacks,))


def by_budget(found: Survey, out: Path, budget: str, *, begin: Callable[[JobSizes, int], Callable[[Stage], None]]) -> Chosen:
    """Choose the best settings whose predicted time fits a budget, by the trial and the estimate of `check`.

    Args:
        found: The inspection of the folder.
        out: The job file that will be written.
        budget: A duration; see `duration`.
        begin: Called with the settings of each trial and their number of stages. Returns what is called with each stage.

    Raises:
        ValueError: if the budget is no duration, if the job cannot be tried, or if even the smallest settings take longer.
        OSError: if the temporary store cannot be written.
    """
    most = duration(budget)
    tried: dict[JobSizes, Forecast] = {}

    def seconds_of(sizes: JobSizes) -> float:
        return _predict(found, out, sizes, tried, begin).seconds

    rungs = ladder(found.sizes(), found.num_train)
    chosen = longest_that_fits(rungs, seconds_of, _ROOM * most)
    if chosen is None:
        least = seconds_of(rungs[-1])
        sam = ", or go without --sam" if found.networks.sam is not None else ""
        raise ValueError(
            f"--budget {budget}: the smallest job for these {found.num_train} images takes about {roughly(least)} on this "
            f"machine ({words(rungs[-1])}). Give more time, or take fewer images{sam}."
        )
    share = f"about {roughly(seconds_of(chosen))} of {roughly(most)} on this machine"
    return Chosen(chosen, f"--budget {budget}: {share}, with {words(chosen)}", tuple(worse(chosen, rungs[0])))


def _predict(
    found: Survey,
    out: Path,
    sizes: JobSizes,
    tried: dict[JobSizes, Forecast],
    begin: Callable[[JobSizes, int], Callable[[Stage], None]],
) -> Forecast:
    """Estimate a job. It is tried unless one that differs in epochs only has been."""
    alike = replace(sizes, epochs=1.0, label_epochs=1.0)
    with composed(found, out, sizes) as job:
        plan = job.plan()
        try:
            if alike not in tried:
                watch = begin(sizes, len(plan.stages))
                tried[alike] = forecast(job, plan, found.machine, memory=free_memory(), begin=watch)
        except CheckError as error:
            raise ValueError(f"--budget: a trial of the job failed: {error}") from error
        return tried[alike].of_other_lengths(job, plan)
