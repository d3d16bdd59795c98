"""The one runner: configurations in, an outcome out.

Commands, recipes, the demonstration and notebooks say what they want as configurations.
What these share is loaded once, what the store has is not computed again, what fails is
named while the rest is done.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ce_align.config import COMMITTED, StageConfig
from ce_align.errors import ConfigError
from ce_align.progress import WHOLE, quiet, silent
from ce_align.results import ResultStore
from ce_align.stages.running import Outcome, Run

__all__ = [
    *("STAGES", "config_type", "distinct", "grouped", "labels_of", "named", "plan"),
    *("register_brainscore", "run", "states_of"),
]

#: The module that executes each stage, in the order of execution: networks are trained
#: before they are scored, and rows are there before they are drawn. It has two
#: functions: ``shared`` gives the key that configurations of one group share, and
#: ``execute`` takes a group.
STAGES = {
    "train": "ce_align.stages.train",
    "online": "ce_align.stages.train",
    "imported": "ce_align.stages.imported",
    "score": "ce_align.stages.score",
    "official": "ce_align.stages.official",
    "compare": "ce_align.stages.compare",
    "analyze": "ce_align.stages.analyze",
    "overlap": "ce_align.stages.overlap",
    "unique": "ce_align.stages.unique",
    "similarity": "ce_align.stages.similarity",
    "transfer": "ce_align.stages.transfer",
    "correlate": "ce_align.stages.correlate",
    "table": "ce_align.report.paper.files",
    "figure": "ce_align.report.paper.files",
    "report": "ce_align.report.page.stage",
}


def run(
    configs: Iterable[StageConfig],
    results: ResultStore | Path | str = "results",
    *,
    where: Executor | None = None,
    **settings: Any,
) -> Outcome:
    """Execute configurations, whatever their order.

    Parameters
    ----------
    configs : of any stages; each is executed once
    results : folder where rows go, and are looked up
    where : executor of processes, here or on other machines, to run groups of
        configurations in parallel; None runs them one by one in this process. Groups
        and outcomes are pickled, messages are returned in `Outcome.notes`. Sources and
        objectives of your own must be registered in the workers, too
    **settings : other attributes of `ce_align.stages.running.Run`, such as ``force``,
        ``hardware`` or ``progress``

    Returns
    -------
    Rows in the order of stages and configurations, and what could not be done.

    Raises
    ------
    ConfigError
        If no stage executes a type of configuration, or `where` is of threads.
    """
    if isinstance(where, ThreadPoolExecutor):
        raise ConfigError(
            "networks change what threads of a process share; give an executor of "
            "processes"
        )
    register_brainscore()
    store = results if isinstance(results, ResultStore) else ResultStore(Path(results))
    configs = list(configs)
    settings["labels"] = {**settings.get("labels", {}), **labels_of(configs)}
    whole = Run(store, **settings)
    stages = grouped(configs)
    n_configs = sum(len(group) for groups in stages.values() for group in groups)
    try:
        job = _Job(whole, sum(map(len, stages.values())))
        for stage, groups in stages.items():
            if len(stages) > 1:
                n = sum(map(len, groups))
                whole.notify(f"{stage}: {n} configuration{'s' if n > 1 else ''}")
            if where is None:
                for group in groups:
                    _execute(_module(stage), group, whole)
                    job.advance()
            else:
                _submit(where, stage, groups, whole, job)
    except KeyboardInterrupt as stop:
        n_kept = whole.outcome.n_done + whole.outcome.n_stored
        n_files = len(whole.outcome.files)
        files = f", {n_files} files in {whole.out}" if n_files else ""
        stop.add_note(
            f"{n_kept} of {n_configs} configurations are in {store.folder}{files}; the "
            "same again goes on from there"
        )
        raise
    return whole.outcome


class _Job:
    """Groups of all stages that are done, as progress of the whole run."""

    def __init__(self, run: Run, n_groups: int) -> None:
        self._tell, self._n_groups, self._done = run.progress, n_groups, 0
        self._tell(WHOLE, 0, n_groups)

    def advance(self) -> None:
        self._done += 1
        self._tell(WHOLE, self._done, self._n_groups)


def _submit(
    where: Executor,
    stage: str,
    groups: Sequence[Sequence[StageConfig]],
    run: Run,
    job: _Job,
) -> None:
    """Execute groups elsewhere, and take their outcomes in the order of the groups."""
    there = replace(
        run, progress=silent, notify=quiet, outcome=Outcome(), _loaded={}, _told=set()
    )
    asked = [where.submit(_alone, stage, group, there) for group in groups]
    try:
        for _ in as_completed(asked):
            job.advance()
        for group, future in zip(groups, asked, strict=True):
            with run.attempt(named(group[0]), *group):
                run.outcome.add(future.result())
    finally:
        for future in asked:
            future.cancel()


def register_brainscore() -> None:
    """Let Brain-Score's recordings and networks be known by name."""
    from ce_align.brainscore import register, register_networks

    register()
    register_networks()


def _execute(module: ModuleType, group: Sequence[StageConfig], run: Run) -> None:
    with run.attempt(named(group[0]), *group):
        module.execute(group, run)
    # One network in memory at a time.
    run.release("network", "layer")


def _alone(stage: str, group: Sequence[StageConfig], run: Run) -> Outcome:
    """Outcome of a group that is executed elsewhere, such as in another process."""
    register_brainscore()
    run = replace(run, notify=run.outcome.notes.append)
    _execute(_module(stage), group, run)
    return run.outcome


def labels_of(configs: Iterable[StageConfig]) -> dict[str, str]:
    """Labels of networks, which hold wherever in a run these are named."""
    found: dict[str, str] = {}
    for config in configs:
        for name, label in getattr(config, "labels", {}).items():
            if found.setdefault(name, label) != label:
                raise ConfigError(
                    f"{name} has the labels {found[name]!r} and {label!r}; give it one"
                )
    return found


def distinct(configs: Iterable[StageConfig]) -> tuple[StageConfig, ...]:
    """The configurations, each once, in their order."""
    # What paths lead to is not known yet.
    found = {config.fingerprint().spelled: config for config in configs}
    return tuple(found.values())


def plan(
    configs: Iterable[StageConfig], store: ResultStore
) -> dict[str, dict[str, list[StageConfig]]]:
    """Configurations of each stage: ``done``, ``failed``, and ``never run``.

    Nothing is loaded: the settings are compared, not the weights and images behind.
    """
    found: dict[str, dict[str, list[StageConfig]]] = {}
    for stage, chosen in _by_stage(configs).items():
        found[stage] = {"done": [], "failed": [], "never run": []}
        settings = [config.model_dump(mode="json") for config in chosen]
        for config, state in zip(
            chosen, states_of(stage, settings, store), strict=True
        ):
            found[stage][state].append(config)
    return found


def states_of(
    stage: str, settings: Iterable[Mapping[str, Any]], store: ResultStore
) -> Iterator[str]:
    """How configurations of a stage stand in the store, by their settings: see `plan`.

    Nothing is imported for it.
    """
    stored = list(store.settings(stage))
    failed = {_hashable(failure.config) for failure in store.failures(stage)}
    #: Of each set of settings that some configuration asks for, the values stored.
    values: dict[frozenset[str], set[Hashable]] = {}
    for whole in settings:
        # What is left to the recording or the network, its rows state.
        open_ = (None, COMMITTED)
        asked = {name: value for name, value in whole.items() if value not in open_}
        names = frozenset(asked)
        if names not in values:
            values[names] = {
                _hashable({name: one[name] for name in names})
                for one in stored
                if names <= one.keys()
            }
        if _hashable(asked) in values[names]:
            yield "done"
        else:
            yield "failed" if _hashable(whole) in failed else "never run"


def _hashable(value: Any) -> Hashable:
    """A value of JSON that equals another one if, and only if, these two are equal."""
    if isinstance(value, Mapping):
        return frozenset((name, _hashable(of)) for name, of in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _by_stage(configs: Iterable[StageConfig]) -> dict[str, list[StageConfig]]:
    found: dict[str, list[StageConfig]] = {}
    for config in distinct(configs):
        stage = getattr(config, "stage", None)
        if stage not in STAGES:
            raise ConfigError(
                f"no stage executes a {type(config).__name__}; the stages are "
                f"{', '.join(STAGES)}, with configurations such as ScoreConfig"
            )
        found.setdefault(stage, []).append(config)
    return {stage: found[stage] for stage in STAGES if stage in found}


def grouped(configs: Iterable[StageConfig]) -> dict[str, list[list[StageConfig]]]:
    """Configurations of each stage, in groups of those that share what is loaded."""
    found: dict[str, list[list[StageConfig]]] = {}
    for stage, chosen in _by_stage(configs).items():
        groups: dict[Hashable, list[StageConfig]] = {}
        for config in chosen:
            groups.setdefault(_module(stage).shared(config), []).append(config)
        found[stage] = list(groups.values())
    return found


def config_type(stage: str) -> type[StageConfig]:
    """The type of a stage's configurations; ConfigError if there is no such stage."""
    if stage not in STAGES:
        raise ConfigError(
            f"there is no stage {stage!r}; the stages are {', '.join(STAGES)}"
        )
    return next(
        one
        for one in vars(_module(stage)).values()
        if isinstance(one, type)
        and issubclass(one, StageConfig)
        and getattr(one, "stage", None) == stage
    )


def _module(stage: str) -> ModuleType:
    return import_module(STAGES[stage])


def named(config: StageConfig) -> str:
    """What a group is called, should it fail as a whole."""
    return next(_names(config), config.stage)


def _names(config: StageConfig) -> Iterator[str]:
    for field in ("model", "images", "recording"):
        name = getattr(config, field, None)
        if name:
            yield str(name)
