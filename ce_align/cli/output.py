"""`ce-align results`, `tables`, `figures`, `report` and `doctor`: what there is."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ce_align.cli.completion import COMPLETIONS
from ce_align.cli.flags import Asked, Found, Results, flags
from ce_align.cli.screen import message, progress_bars, tell_left_out, tell_written
from ce_align.cli.view import View
from ce_align.errors import ConfigError
from ce_align.report.paper import FIGURES, TABLES, KnownFigure, KnownTable
from ce_align.report.paper.files import FigureConfig, TableConfig

if TYPE_CHECKING:
    from ce_align.results import ResultStore

__all__ = ["commands"]

commands = typer.Typer()

Full = Annotated[
    bool, typer.Option("--full", help="Say what each that has no rows would need.")
]

RESULTS_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align results --model 'ce_mmcr_*' --recording majajhong2015

  ce-align results --stage score --columns model,layer,value --sort -value

  ce-align results --recipe benchmarks/it_predictivity.py --csv rows.csv

What was never run is what a network lacks that another network here has, or else what
the recipes ask for and nobody has begun.
"""


@dataclass(frozen=True)
class Chosen:
    """Which rows are shown."""

    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Only this network: name, label, glob or group. Repeatable.",
            autocompletion=COMPLETIONS["model"],
        ),
    ] = None
    stage: Annotated[
        str | None,
        typer.Option(
            help="Only this stage. \\[default: all]",
            autocompletion=COMPLETIONS["stage"],
        ),
    ] = None
    recording: Annotated[
        list[str] | None,
        typer.Option(
            "--recording",
            "-r",
            help="Only this recording or glob. Repeatable.",
            autocompletion=COMPLETIONS["recording"],
        ),
    ] = None
    recipe: Annotated[
        list[Path] | None,
        typer.Option(
            help="Recipe whose configurations should be there. Repeatable.",
            autocompletion=COMPLETIONS["recipe"],
        ),
    ] = None

    def states(self, store: "ResultStore") -> list[dict[str, Any]]:
        """Rows that are there, what failed, and what was never run.

        Raises
        ------
        ConfigError
            If there is no such stage.
        """
        from ce_align.models.catalogue import GROUPS
        from ce_align.recipes import load_recipe
        from ce_align.report.states import Wanted, states
        from ce_align.runner import STAGES, plan, register_brainscore

        models = [name for one in self.model or () for name in GROUPS.get(one, (one,))]
        wanted = Wanted(self.stage, models, self.recording or ())
        unrun = None
        if self.recipe:
            register_brainscore()
            asked = [one for path in self.recipe for one in load_recipe(path).configs]
            unrun = [c for of in plan(asked, store).values() for c in of["never run"]]
        found = states(store, wanted, unrun)
        if not found and self.stage not in (None, *STAGES):
            raise ConfigError(
                f"no stage {self.stage!r}; choose from {', '.join(STAGES)}"
            )
        return found


@commands.command(epilog=RESULTS_EXAMPLES)
@flags()
def results(
    view: View,
    chosen: Chosen,
    identity: Annotated[
        str | None,
        typer.Option(
            help="Show what the networks of a row are made of, by the first letters of "
            "its config_id."
        ),
    ] = None,
    forget_failed: Annotated[
        bool,
        typer.Option(
            "--forget-failed", help="Forget what failed, here and in figures, first."
        ),
    ] = False,
    results: Results = Path("results"),
) -> None:
    """Show every stored row, what failed and why, and what was never run."""
    from ce_align.report.states import FAILED, NEVER_RUN, state_sheets
    from ce_align.report.terminal import identity_sheet
    from ce_align.results import ResultStore

    store = ResultStore(results)
    if forget_failed:
        message(f"forgotten: {store.forget_failures()} of what failed")
    if identity is not None:
        sheet = identity_sheet(store.starting(identity, chosen.stage))
        view.show(sheet.records, [sheet])
        return
    found = chosen.states(store)
    if not found:
        of = ""
        if chosen.model or chosen.recording:
            of = " of these networks and recordings"
        message(f"no {chosen.stage or 'stored'} rows{of} in {results}")
    if found or view.json:
        view.show(found, state_sheets(found, f"In {results}"))
    if view.csv is not None:
        n_failed, n_never = (
            sum(one["state"] == state for one in found) for state in (FAILED, NEVER_RUN)
        )
        message(f"among them {n_failed} that failed and {n_never} never run")


def _listed(known: Mapping[str, KnownFigure] | Mapping[str, KnownTable]) -> str:
    """Names with what each shows, a line for each."""
    width = max(map(len, known)) + 2
    return "\n".join(f"  {name:{width}}{one.about}" for name, one in known.items())


def _check_results(folder: Path) -> None:
    """Refuse a folder of something else, before anything is drawn over what it gave."""
    from ce_align.runner import STAGES

    stored = any((folder / stage).is_dir() for stage in STAGES)
    elsewhere = folder != Path("results") and not folder.is_dir()
    if elsewhere or (not stored and folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"no results in {folder}; --results names their folder")


TABLES_EXAMPLES = f"""\b
[bold]Examples[/bold]

  ce-align tables

  ce-align tables --which 1 --which 3

\b
[bold]Values of --which[/bold]

\b
{_listed(TABLES)}
"""

FIGURES_EXAMPLES = f"""\b
[bold]Examples[/bold]

  ce-align figures

  ce-align figures --which 2 --which forest --columns 1

  ce-align figures --which 4 --others scores.csv

The CSV of --others has columns model and score, one row a network. A column recording,
the same name in every row, says which of your own scores are compared with them;
without it that is the mean over the four IT sets, or else over all recordings.

\b
[bold]Values of --which[/bold]

\b
{_listed(FIGURES)}
"""


@commands.command(epilog=TABLES_EXAMPLES)
@flags(table=Found("all that have rows"))
def tables(
    asked: Asked[TableConfig],
    view: View,
    out: Annotated[
        Path, typer.Option(help="Folder for Markdown, LaTeX and CSV.")
    ] = Path("paper-figures"),
    results: Results = Path("results"),
) -> None:
    """Write the paper's tables from stored rows, and show them."""
    from ce_align.report.terminal import built_sheet
    from ce_align.runner import run

    _check_results(results)
    which = asked.values("table")
    configs = asked.configs(table=which or list(TABLES))
    outcome = run(configs, results, out=out)
    records = [
        {"table": table.title, **row}
        for table in outcome.tables
        for row in table.frame.astype(object)
        .where(table.frame.notna(), None)
        .to_dict("records")
    ]
    view.show(records, map(built_sheet, outcome.tables))
    if not (view.json or view.csv):
        outcome.captions.clear()  # they stand below the tables
    tell_written(outcome, everything=not which, full=view.full)


@commands.command(epilog=FIGURES_EXAMPLES)
@flags(figure=Found("all that have rows"))
def figures(
    asked: Asked[FigureConfig],
    out: Annotated[
        Path, typer.Option(help="Folder for PDF, SVG, PNG, captions and CSV.")
    ] = Path("paper-figures"),
    results: Results = Path("results"),
    full: Full = False,
) -> None:
    """Draw the paper's figures, and further ones, from stored rows."""
    from ce_align.runner import run

    _check_results(results)
    which = asked.values("figure")
    configs = asked.configs(figure=which or list(FIGURES))
    outcome = run(configs, results, out=out)
    tell_written(outcome, everything=not which, full=full)


REPORT_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align report

  ce-align report --results demo/results --others scores.csv --out report.html
"""


@commands.command(epilog=REPORT_EXAMPLES)
def report(
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path(
        "report.html"
    ),
    others: Annotated[
        Path | None,
        typer.Option(help="CSV of other networks' scores: model, score."),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a training, for its curves. Repeatable."),
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Alignment report",
    results: Results = Path("results"),
    full: Full = False,
) -> None:
    """Write every result as one page: summary, figures, tables, rows, provenance."""
    from ce_align.report.page import write_report

    with progress_bars() as progress:
        missing = write_report(
            results,
            out,
            others=others,
            runs=tuple(runs or ()),
            title=title,
            progress=progress,
        )
    tell_left_out(missing, full=full)
    message(f"report: {out}")


def _told(findings: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """A line of what each finding says, one for recordings of which it is the same."""
    lines = []
    alike: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for one in findings:
        said = "; ".join(filter(None, (one["found"], one["remedy"])))
        if one["check"].startswith("recording "):
            alike.setdefault((one["state"], said), []).append(one)
        else:
            lines.append({**one, "said": said})
    for (_, said), group in alike.items():
        names = ", ".join(one["check"].removeprefix("recording ") for one in group)
        check = f"{len(group)} recording{'s' if len(group) > 1 else ''}"
        lines.append({**group[0], "check": check, "said": f"{names}: {said}"})
    return lines


DOCTOR_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align doctor

  ce-align doctor --json | jq '.[] | select(.state != "ok")'
"""


@commands.command(epilog=DOCTOR_EXAMPLES)
@flags()
def doctor(
    view: View,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for each remote answer.")
    ] = 3.0,
) -> None:
    """Check packages, device, folders, network and the access to each recording.

    The exit status is 0 unless work without a network cannot be done.
    """
    from ce_align.brainscore.doctor import examine
    from ce_align.report.sheet import Column, Sheet

    findings = examine(timeout)
    records = [asdict(finding) for finding in findings]
    columns = (
        *(Column("check", kind="text", keep=True), Column("state", keep=True)),
        Column("said", "found, and what to do", kind="text", keep=True),
    )
    view.show(records, [Sheet(_told(records), columns)])
    n_failed = sum(finding.state == "fail" for finding in findings)
    if n_failed:
        message(f"error: {n_failed} of {len(findings)} checks failed")
        raise typer.Exit(1)
