"""Jobs: configurations that one process computes, and what they wait for."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ce_align.config import NETWORKS, StageConfig
from ce_align.digests import digest_json
from ce_align.names import plain_path, split_name
from ce_align.runner import grouped, named
from ce_align.stages.train import training_folder
from ce_align.trainer.presets import TrainConfig

__all__ = ["READING", "Cost", "Job", "jobs_of"]

#: Stages that read whatever rows are there, in the order in which they wait for one
#: another: what is drawn shows correlations, and a report shows all.
READING = ("correlate", "table", "figure", "report")

#: Minutes that a configuration takes; None if nobody knows.
Cost = Callable[[StageConfig], float | None]


@dataclass(frozen=True)
class Job:
    """What one process computes.

    Attributes
    ----------
    id : of these configurations, whoever plans them
    name : for people
    stage : of the first configuration
    configs : of one or, if they are short, several groups of the runner
    needs : jobs without which it cannot be done, such as the training of its network
    follows : jobs that must have ended, done or failed
    minutes : that it is expected to take; None if nobody knows
    """

    id: str
    name: str
    stage: str
    configs: tuple[StageConfig, ...]
    needs: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    minutes: float | None = None

    def waits_for(self) -> tuple[str, ...]:
        """All jobs that come before it."""
        return (*self.needs, *self.follows)


def jobs_of(
    configs: Iterable[StageConfig],
    runs: Path = Path("runs"),
    *,
    minutes: float | None = None,
    cost: Cost = lambda config: None,
) -> list[Job]:
    """Jobs of configurations, those that others wait for first.

    Every training is a job. Of other stages what shares a network in memory is one, and
    short ones are packed together, unless one of them waits for a training that
    another does not wait for.

    Parameters
    ----------
    configs : of any stages
    runs : folder of trainings, by which networks are recognised that are yet to be
    minutes : that a packed job takes about; None packs nothing
    cost : minutes of a configuration
    """
    stages = grouped(configs)
    jobs: list[Job] = []
    trained: dict[str, str] = {}
    for config in (one for group in stages.pop("train", ()) for one in group):
        jobs.append(_job("train", [config], (), (), cost(config), runs))
        if isinstance(config, TrainConfig):
            folder = plain_path(str(training_folder(config, runs)))
            trained[folder] = jobs[-1].id
    packed: dict[tuple[str, tuple[str, ...]], list[_Pack]] = defaultdict(list)
    for stage, groups in stages.items():
        if stage in READING:
            continue
        for group in groups:
            for needs, part in _parts(group, trained, minutes, cost):
                packs, taken = packed[stage, needs], _minutes(part, cost)
                if not packs or not packs[-1].has_room(taken, minutes):
                    packs.append(_Pack())
                packs[-1].add(part, taken)
    for (stage, needs), packs in packed.items():
        for one in packs:
            jobs.append(_job(stage, one.configs, needs, (), one.minutes, runs))
    for readers in (READING[:1], READING[1:3], READING[3:]):
        before = tuple(job.id for job in jobs)
        of_level = [
            config
            for stage in readers
            for group in stages.get(stage, ())
            for config in group
        ]
        if of_level:
            stage, taken = of_level[0].stage, _minutes(of_level, cost)
            jobs.append(_job(stage, of_level, (), before, taken, runs))
    return jobs


@dataclass
class _Pack:
    """Groups that one job computes."""

    configs: list[StageConfig] = field(default_factory=list)
    minutes: float | None = 0.0

    def has_room(self, taken: float | None, most: float | None) -> bool:
        known = None not in (self.minutes, taken, most)
        return known and (self.minutes or 0) + (taken or 0) <= (most or 0)

    def add(self, group: Sequence[StageConfig], taken: float | None) -> None:
        self.configs += group
        known = self.minutes is not None and taken is not None
        self.minutes = (self.minutes or 0) + (taken or 0) if known else None


def _parts(
    group: Sequence[StageConfig],
    trained: Mapping[str, str],
    minutes: float | None,
    cost: Cost,
) -> Iterator[tuple[tuple[str, ...], list[StageConfig]]]:
    """A group by the trainings that its parts wait for, and these.

    Networks of a group meet the same images, which are rendered once for all of them.
    They are taken apart only where they wait for different trainings, or one job would
    be too long.
    """
    taken = _minutes(group, cost)
    too_long = minutes is not None and taken is not None and taken > minutes
    parts: dict[tuple[Any, ...], list[StageConfig]] = {}
    for config in group:
        names = [getattr(config, field, None) for field in NETWORKS]
        sources = [split_name(name).source for name in names if name]
        needs = tuple(dict.fromkeys(trained[s] for s in sources if s in trained))
        own = tuple(names) if too_long else ()
        parts.setdefault((needs, own), []).append(config)
    for (needs, _), part in parts.items():
        yield needs, part


def _minutes(group: Sequence[StageConfig], cost: Cost) -> float | None:
    each = [cost(config) for config in group]
    return None if None in each else sum(filter(None, each))


def _job(
    stage: str,
    configs: Sequence[StageConfig],
    needs: tuple[str, ...],
    follows: tuple[str, ...],
    minutes: float | None,
    runs: Path,
) -> Job:
    settings: list[Any] = [
        [config.stage, config.model_dump(mode="json")] for config in configs
    ]
    parts = [
        str(training_folder(config, runs))
        if isinstance(config, TrainConfig)
        else named(config)
        for config in configs
    ]
    first, n = next(iter(parts)), len(set(parts))
    name = first if n == 1 else f"{first} and {n - 1} more"
    if stage in READING:
        stages = dict.fromkeys(config.stage for config in configs)
        name = ", ".join(stages)
    return Job(
        digest_json(settings)[:12],
        f"{stage} {name}" if name != stage and stage not in READING else name,
        stage,
        tuple(configs),
        needs,
        follows,
        minutes,
    )
