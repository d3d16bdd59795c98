"""Running configurations stage by stage; what fails is named, the rest is done."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ce_align.config import StageConfig
from ce_align.digests import digest_json
from ce_align.errors import CeAlignError, ConfigError, noted
from ce_align.progress import Progress, silent
from ce_align.results import ResultStore, Row
from ce_align.stages.hardware import Hardware

__all__ = ["Context", "Report", "Runner", "plan", "run"]


@dataclass(frozen=True)
class Context:
    """Where a run reads and writes, and how it tells what it does.

    Attributes
    ----------
    store : where rows go
    runs : folder of trainings
    out : folder of tables and figures
    root : folder of published data sets; None for the one in the cache
    hardware : of every stage that reads networks
    force : compute again what is stored
    allow_unstable : measure layers, too, that are random or depend on the batch
    progress, notify : told of units done, and of what a person should know
    """

    store: ResultStore
    runs: Path = Path("runs")
    out: Path = Path("paper")
    root: Path | None = None
    hardware: Hardware = field(default_factory=Hardware)
    force: bool = False
    allow_unstable: bool = False
    progress: Progress = silent
    notify: Callable[[str], None] = print


@dataclass
class Report:
    """What a run did.

    Attributes
    ----------
    rows : of all stages
    files : tables and figures
    n_done, n_stored : configurations executed, and answered from the store
    notes : what was left out, in words
    failures : what was asked for, and why it was not done
    """

    rows: list[Row] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    n_done: int = 0
    n_stored: int = 0
    notes: list[str] = field(default_factory=list)
    failures: list[tuple[str, CeAlignError]] = field(default_factory=list)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Note a failure of `what` instead of ending the run."""
        with noted(what, self.failures):
            yield

    def has_failed(self, what: str) -> bool:
        """Whether a failure of `what` was noted: no need to say it again."""
        return any(what == name for name, _ in self.failures)

    def count(self, rows: Sequence[Row], *, stored: bool) -> None:
        """Add the rows of one configuration."""
        self.rows += rows
        self.n_stored += stored
        self.n_done += not stored


#: Executes all configurations of one type, and adds to the report.
Runner = Callable[[Sequence[Any], Context, Report], None]


def run(
    configs: Sequence[StageConfig],
    runners: "dict[type[Any], Runner]",
    context: Context,
) -> Report:
    """Execute configurations in the order of `runners`, whatever their own.

    Networks are trained before they are scored, and rows are there before they are
    drawn.

    Parameters
    ----------
    configs : of any stages, each once
    runners : what executes each type, in the order of execution
    context : where to read and write

    Raises
    ------
    ConfigError
        If nothing executes a configuration's type.
    """
    unknown = [type(c).__name__ for c in configs if type(c) not in runners]
    if unknown:
        known = ", ".join(kind.__name__ for kind in runners)
        raise ConfigError(f"no stage executes a {unknown[0]}; a recipe holds {known}")
    report = Report()
    for kind, runner in runners.items():
        chosen = [config for config in configs if type(config) is kind]
        if chosen:
            context.notify(f"{stage_name(kind)}: {len(chosen)} configurations")
            with report.attempt(stage_name(kind)):
                runner(chosen, context, report)
    return report


def stage_name(kind: type[StageConfig]) -> str:
    """How a stage is called where its type is known: ``ScoreConfig``, score."""
    return kind.__name__.removesuffix("Config").lower()


def plan(
    configs: Sequence[StageConfig], store: ResultStore
) -> dict[str, tuple[int, int]]:
    """How many configurations of each stage there are, and are in the results.

    Nothing is loaded: the settings are compared, not the weights and images behind.
    """
    stored = {digest_json(document.get("config")) for document in store.documents()}
    found: dict[str, tuple[int, int]] = {}
    for config in configs:
        name = stage_name(type(config))
        n, n_stored = found.get(name, (0, 0))
        known = digest_json(config.model_dump(mode="json")) in stored
        found[name] = (n + 1, n_stored + known)
    return found
