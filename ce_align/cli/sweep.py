"""`ce-align sweep`: many configurations on processes or a cluster."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from ce_align.cli.completion import COMPLETIONS
from ce_align.cli.flags import Results, Root, Session, flags
from ce_align.cli.screen import message, print_text, progress_bars, watched
from ce_align.cli.view import View
from ce_align.errors import ConfigError
from ce_align.files import read_text

if TYPE_CHECKING:
    from ce_align.report.sheet import Sheet
    from ce_align.sweeps.board import Board, Sweep
    from ce_align.sweeps.states import Status

__all__ = ["commands"]

#: Seconds between two looks of a status that is shown live.
PAUSE = 2.0


class _StartsByDefault(TyperGroup):
    """`ce-align sweep PLAN` starts a plan; all else is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help", "-h"):
            args = ["start", *args]
        return super().parse_args(ctx, args)


commands = typer.Typer()
sweep = typer.Typer(
    cls=_StartsByDefault,
    rich_markup_mode="rich",
    no_args_is_help=True,
    help="Run a plan on processes or a SLURM cluster; see how it stands.",
    epilog="ce-align sweep PLAN is ce-align sweep start PLAN.",
)
commands.add_typer(sweep, name="sweep")

START_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align sweep plan.yaml --dry-run

  ce-align sweep benchmarks/it_predictivity.py --where processes --jobs 4

  ce-align sweep plan.yaml --where slurm --gpus-per-job 1 --slurm partition=gpu

A plan is a recipe in Python, or YAML: stages with lists of settings. What is stored is
not computed again, so that the same command goes on after any stop.
"""


@sweep.command(epilog=START_EXAMPLES)
@flags()
def start(
    plan: Annotated[
        Path,
        typer.Argument(help="Plan.", autocompletion=COMPLETIONS["recipe"]),
    ],
    session: Session,
    view: View,
    where: Annotated[
        Literal["here", "processes", "slurm"],
        typer.Option(help="In this process, in several, or on a cluster."),
    ] = "here",
    jobs: Annotated[
        int, typer.Option(min=1, help="Processes at once, with --where processes.")
    ] = 2,
    gpus_per_job: Annotated[
        int, typer.Option(min=0, help="GPUs that a job has for itself.")
    ] = 0,
    max_parallel: Annotated[
        int | None,
        typer.Option(
            min=1, help="Jobs of an array at once on a cluster. \\[default: all]"
        ),
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(min=0, help="Short jobs are packed to about as many minutes."),
    ] = 30,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Option of sbatch, such as partition=gpu. Repeatable.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the jobs and run nothing.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of tables and figures.")] = Path(
        "paper-figures"
    ),
    runs: Annotated[
        Path, typer.Option(help="Folder of trainings, as the plan names it.")
    ] = Path("runs"),
    root: Root = None,
) -> None:
    """Run a plan: every stage in its order, what is stored is skipped."""
    from ce_align.costs.rates import stored_rates
    from ce_align.costs.work import cost_of
    from ce_align.results import ResultStore
    from ce_align.runner import register_brainscore
    from ce_align.sweeps import start as starting
    from ce_align.sweeps.plans import read_plan

    register_brainscore()
    read = read_plan(plan, runs)
    store = ResultStore(session.results)
    rates = stored_rates()
    whole, rest = starting.planned(
        read.configs,
        store,
        file=str(plan),
        minutes=minutes,
        cost=lambda config: cost_of(config, rates).total / 60,
        runs=runs,
        out=out,
        datasets=root,
        hardware=session.hardware,
        force=session.force,
        allow_unstable=session.allow_unstable,
    )
    if dry_run:
        records = _planned(whole, {job.id for job in rest})
        view.show(records, [_plan_sheet(records)])
        taken = sum(job.minutes or 0 for job in rest)
        time_ = f"{taken:.2g} minutes" if taken < 60 else f"{taken / 60:.2g} hours"
        message(f"about {time_} of {rates.machine}")
        return
    means = starting.Means(where, jobs, gpus_per_job, max_parallel, _pairs(slurm or ()))
    n = len(whole.jobs) - len(rest)
    message(f"{len(whole.jobs)} jobs, {n} of them in {session.results} already")
    with progress_bars() as progress:
        board = starting.start(
            whole, rest, store, means, notify=message, progress=progress
        )
    found = starting.standing(whole, board)
    if where == "slurm":
        message(f"how they stand: ce-align sweep status --results {session.results}")
        return
    view.show(_records(found), _status_sheets(found))
    _end(found)


@sweep.command()
@flags()
def status(
    view: View,
    results: Results = Path("results"),
    sweep_id: Annotated[
        str | None,
        typer.Option("--sweep", help="Its id. \\[default: the one started last]"),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Show it once, not live.")
    ] = False,
) -> None:
    """Show what waits, runs, failed (and why), is done, and was never begun."""
    from ce_align.sweeps.start import standing

    board, found = _board(results, sweep_id)
    live = not (once or view.json or view.csv)

    def sheets() -> "list[Sheet] | None":
        """The next picture; None once nothing waits or runs."""
        now = standing(found, board)
        moves = any(one.state in ("waiting", "running") for one in now)
        return _status_sheets(now) if moves else None

    if live:
        watched(sheets, PAUSE)
    now = standing(found, board)
    view.show(_records(now), _status_sheets(now))


@sweep.command()
@flags()
def logs(
    job: Annotated[str, typer.Argument(help="First letters of a job's id.")],
    results: Results = Path("results"),
) -> None:
    """Print what a job told."""
    board, found = _board(results, None)
    one = _one_of(found, job)
    known = board.submitted().get(one, {}).get("id")
    paths = [board.log(one), *([board.cluster_log(known)] if known else [])]
    texts = [
        read_text(path, errors="backslashreplace") for path in paths if path.is_file()
    ]
    if not texts:
        raise ConfigError(f"job {one} has told nothing yet; it was never begun")
    print_text("\n".join(text.rstrip("\n") for text in texts))


@sweep.command()
@flags()
def cancel(
    job: Annotated[
        list[str] | None,
        typer.Argument(help="First letters of jobs' ids. \\[default: all]"),
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Take jobs from the cluster's queue, and end those that run."""
    from ce_align.sweeps import slurm

    board, found = _board(results, None)
    present = slurm.queue() or {}
    wanted = {_one_of(found, one) for one in job} if job else None
    ids = [
        entry["id"]
        for one, entry in board.submitted().items()
        if entry["id"] in present and (wanted is None or one in wanted)
    ]
    slurm.cancel(ids)
    message(f"{len(ids)} jobs cancelled; the same sweep again goes on from there")


@sweep.command()
@flags()
def retry(
    failed: Annotated[bool, typer.Option("--failed", help="All that failed.")] = False,
    job: Annotated[
        list[str] | None, typer.Argument(help="First letters of jobs' ids.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Forget that jobs failed, so that the next start begins them again."""
    from ce_align.sweeps.start import standing

    if not failed and not job:
        raise ConfigError("name jobs, or give --failed for all that failed")
    board, found = _board(results, None)
    chosen = {_one_of(found, one) for one in job or ()}
    if failed:
        chosen |= {
            one.job.id for one in standing(found, board) if one.state == "failed"
        }
    board.forget(chosen)
    message(f"{len(chosen)} jobs are to be begun again: ce-align sweep {found.file}")


def _board(results: Path, sweep_id: str | None) -> "tuple[Board, Sweep]":
    from ce_align.results import ResultStore
    from ce_align.sweeps.board import Board

    board = Board(ResultStore(results))
    return board, board.read_sweep(sweep_id, only="")


def _one_of(found: "Sweep", letters: str) -> str:
    ids = [job.id for job in found.jobs if job.id.startswith(letters)]
    if len(ids) != 1:
        raise ConfigError(
            f"{len(ids) or 'no'} jobs have an id that starts with {letters!r}; "
            "ce-align sweep status --full lists them"
        )
    return ids[0]


def _pairs(options: Sequence[str]) -> dict[str, str]:
    found = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not key or not equals:
            raise ConfigError(f"--slurm takes KEY=VALUE, found {option!r}")
        found[key.lstrip("-")] = value
    return found


def _planned(whole: "Sweep", rest: set[str]) -> list[dict[str, Any]]:
    return [
        {
            "job": job.id,
            "stage": job.stage,
            "name": job.name,
            "configurations": len(job.configs),
            "minutes": job.minutes,
            "waits_for": len(job.waits_for()),
            "state": "to be run" if job.id in rest else "stored",
        }
        for job in whole.jobs
    ]


def _plan_sheet(records: list[dict[str, Any]]) -> "Sheet":
    from ce_align.report.sheet import Column, Sheet

    return Sheet(
        records,
        (
            *(Column("job", kind="whole", keep=True), Column("name", keep=True)),
            *(
                Column("configurations", keep=True),
                Column("minutes", form=".2g", known=True),
            ),
            *(Column("waits_for", keep=True), Column("state", keep=True)),
        ),
    )


def _records(found: "Sequence[Status]") -> list[dict[str, Any]]:
    return [
        {
            "job": one.job.id,
            "stage": one.job.stage,
            "name": one.job.name,
            "state": one.state,
            "what": one.beat.what if one.beat else None,
            "done": one.beat.done if one.beat else None,
            "total": one.beat.total if one.beat else None,
            "seconds_left": one.beat.seconds_left if one.beat else None,
            "worker": one.beat.worker if one.beat else None,
            "cluster_id": one.cluster_id,
            "tries": one.tries,
            "reason": one.reason,
        }
        for one in found
    ]


def _status_sheets(found: "Sequence[Status]") -> "list[Sheet]":
    """Counts by stage, then what runs and what failed."""
    from ce_align.report.sheet import Column, Sheet

    states = ("waiting", "running", "done", "failed", "never")
    stages = dict.fromkeys(one.job.stage for one in found)
    counts = [
        {
            "stage": stage,
            **{
                state: sum(
                    one.job.stage == stage and one.state == state for one in found
                )
                for state in states
            },
        }
        for stage in stages
    ]
    records = _records(found)
    running = [
        {
            **record,
            "progress": f"{record['what']} {record['done']}/{record['total']}"
            if record["what"]
            else None,
            "left": _clock(record["seconds_left"]),
        }
        for record in records
        if record["state"] == "running"
    ]
    failed = [record for record in records if record["state"] == "failed"]
    sheets = [
        Sheet(counts, tuple(Column(name, keep=True) for name in ("stage", *states)))
    ]
    if running:
        names = ("job", "name", "progress", "left", "worker")
        sheets.append(Sheet(running, tuple(Column(n, keep=True) for n in names)))
    if failed:
        columns = (
            *(Column("job", kind="whole", keep=True), Column("name", keep=True)),
            *(Column("tries", keep=True), Column("reason", kind="text", keep=True)),
        )
        sheets.append(Sheet(failed, columns))
    return sheets


def _clock(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return time.strftime("%H:%M:%S", time.gmtime(seconds))


def _end(found: "Sequence[Status]") -> None:
    """End with a status that says whether anything failed."""
    n = sum(one.state == "failed" for one in found)
    if n:
        message(f"{n} of {len(found)} jobs failed; ce-align sweep logs ID says more")
        raise typer.Exit(1)
