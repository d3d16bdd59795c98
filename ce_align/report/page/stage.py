"""The report as a stage: a page of whatever rows are there."""

from collections.abc import Hashable, Sequence
from typing import ClassVar

from pydantic import Field

from ce_align.config import StageConfig
from ce_align.report.page import write_report
from ce_align.stages.running import Run

__all__ = ["ReportConfig", "execute", "shared"]


class ReportConfig(StageConfig):
    """One page with every result of the store, ``report.html``."""

    stage: ClassVar = "report"

    title: str = Field(default="Alignment report", description="Title of the page.")


def shared(config: ReportConfig) -> Hashable:
    """What configurations have in common that are written together: all of it."""
    return config


def execute(configs: Sequence[ReportConfig], run: Run) -> None:
    """Write the report of the store beside tables and figures."""
    for config in configs:
        path = run.out / "report.html"
        with run.attempt(path.name):
            missing = write_report(
                run.store.folder, path, title=config.title, progress=run.progress
            )
            run.outcome.files.append(path)
            if missing:
                names = ", ".join(name for name, _ in missing)
                run.outcome.captions.append(f"left out, without rows: {names}")
            run.outcome.n_done += 1
