"""`ce-align benchmark`: how fast this machine is, and what the paper would take."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ce_align.cli.flags import flags
from ce_align.cli.screen import message, progress_bars
from ce_align.cli.view import View

if TYPE_CHECKING:
    from ce_align.report.sheet import Sheet

__all__ = ["commands"]

commands = typer.Typer()

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align benchmark

  ce-align benchmark --paper

What was measured is kept, and `run --dry-run` and `sweep --dry-run` estimate hours from
it. Measure while the machine does nothing else.
"""

#: Unit of each rate.
UNITS = {
    "decoded": "megapixels of JPEG a second",
    "views": "views a second, whatever their size",
    "rendered": "megapixels of views a second",
    "small": "10⁹ operations a second, small network",
    "large": "10⁹ operations a second, large network",
    "trained": "10⁹ operations a second, training",
    "products": "10⁹ operations a second, matrix products",
    "decomposed": "10⁹ n³ a second, eigenvectors of n × n",
    "written": "megabytes a second to the disk",
    "starts": "processes a second",
}


@commands.command(epilog=EXAMPLES)
@flags()
def benchmark(
    view: View,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Measure nothing; estimate the whole paper on large machines.",
        ),
    ] = False,
) -> None:
    """Measure this machine for a minute, so that plans can say how long they take."""
    if paper:
        records = _paper()
        view.show(records, [_paper_sheet(records)])
        message("estimates from published peaks, a tenth of which is assumed")
        return
    from ce_align.costs.rates import measure
    from ce_align.report.sheet import Column, Sheet

    with progress_bars() as progress:
        found = asdict(measure(progress))
    records = [
        {"rate": name, "value": found[name], "unit": unit}
        for name, unit in UNITS.items()
    ]
    message(f"{found['machine']}; kept for plans")
    columns = (
        *(Column("rate", keep=True), Column("value", form=".3g", keep=True)),
        Column("unit", kind="text", keep=True),
    )
    view.show(records, [Sheet(records, columns)])


def _paper() -> list[dict[str, Any]]:
    from ce_align.costs.paper import paper_configs
    from ce_align.costs.rates import MACHINES
    from ce_align.costs.work import total
    from ce_align.runner import register_brainscore

    register_brainscore()
    configs = paper_configs()
    records = []
    for machine, rates in MACHINES.items():
        for stage in ("train", "score", "analyze"):
            cost = total([one for one in configs if one.stage == stage], rates)
            most = max(cost.seconds, key=lambda part: cost.seconds[part])
            records.append(
                {
                    "machine": machine,
                    "stage": stage,
                    "hours": float(f"{cost.total / 3600:.3g}"),
                    "mostly": most,
                    "share": cost.seconds[most] / cost.total,
                    "memory_gb": cost.memory / 1e9,
                    "written_gb": cost.written / 1e9,
                }
            )
    return records


def _paper_sheet(records: list[dict[str, Any]]) -> "Sheet":
    from ce_align.report.sheet import Column, Sheet

    columns = (
        *(Column("machine", keep=True), Column("stage", keep=True)),
        *(Column("hours", form=".6g", keep=True), Column("mostly", keep=True)),
        *(Column("share", form=".0%", keep=True), Column("memory_gb", form=".3g")),
        Column("written_gb", form=".3g", keep=True),
    )
    return Sheet(records, columns)
