"""`ce-align analyze`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ce_align.cli.options import AllowUnstable, Figure, Json, Models, Results
from ce_align.cli.screen import (
    message,
    print_json,
    print_table,
    progress_bars,
    tell_outcome,
)
from ce_align.config import COMMITTED

if TYPE_CHECKING:
    from ce_align.stages.measures import Metric

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align analyze --metric bures --model 'ce_mmcr_*' --images imagenet/val

  ce-align analyze --metric all --model torchvision/resnet18:none --baseline pixels
  --comparisons 40 --views 20 --crops 6 --photometrics 6
"""


class Measure(StrEnum):
    """Kinds of measures."""

    bures = "bures"
    decoding = "decoding"
    factorization = "factorization"
    dimensionality = "dimensionality"
    steerability = "steerability"
    all = "all"


class ViewFamily(StrEnum):
    """Families of two views, A and B."""

    strong = "strong"
    weak = "weak"
    tiny = "tiny"


class Centroids(StrEnum):
    """Images whose mean over views is a centroid."""

    all = "all"
    compared = "compared"


class IntervalKind(StrEnum):
    """What an interval is over."""

    population = "population"
    comparisons = "comparisons"


def analyze(
    metric: Annotated[
        list[Measure], typer.Option(help="What to measure. Repeatable.")
    ] = [Measure.all],  # noqa: B006 (typer copies it)
    model: Models = ["paper"],  # noqa: B006
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Network that differences are taken from. "
            "\\[default: λ = 0 of the same objective]"
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            help="Folder, zip or tar, or 'simulated'. "
            "\\[default: $CE_ALIGN_IMAGENET, else simulated]"
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(help="Layer, averaged over places. \\[default: the one for IT]"),
    ] = None,
    comparisons: Annotated[
        int, typer.Option(min=10, help="Comparisons, and images compared, at most.")
    ] = 800,
    views: Annotated[int, typer.Option(min=4, help="Views of each image.")] = 50,
    crops: Annotated[int, typer.Option(min=4, help="Crops of each image.")] = 20,
    photometrics: Annotated[
        int, typer.Option(min=4, help="Photometric draws on every crop.")
    ] = 20,
    independent_photometrics: Annotated[
        bool,
        typer.Option(
            "--independent-photometrics", help="New draws for every crop, not the same."
        ),
    ] = False,
    classes: Annotated[
        int | None, typer.Option(min=5, help="Classes to compare. \\[default: enough]")
    ] = None,
    centroids: Annotated[
        Centroids,
        typer.Option(help="Of all images given, or of those compared (fewer passes)."),
    ] = Centroids.all,
    runs: Annotated[int, typer.Option(min=1, help="Splits of decoding.")] = 5,
    size: Annotated[int, typer.Option(min=8, help="Pixels of a view.")] = 224,
    family: Annotated[
        ViewFamily,
        typer.Option(help="Augmentations that are compared and decoded; tiny: 32 px."),
    ] = ViewFamily.strong,
    interval: Annotated[
        IntervalKind,
        typer.Option(
            help="Over images and classes as if drawn anew, or the paper's: over "
            "comparisons as if none shared an image, which is too narrow."
        ),
    ] = IntervalKind.population,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every draw.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Views at a time. \\[default: by device]")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that render views.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Compute again.")] = False,
    allow_unstable: AllowUnstable = False,
    results: Results = Path("results"),
    figure: Figure = None,
    json: Json = False,
) -> None:
    """Measure how networks organise the variability that augmentations cause."""
    from ce_align.brainscore import register_networks
    from ce_align.data.scenes import default_images
    from ce_align.models.catalogue import expand, invariant_sibling
    from ce_align.report.terminal import measure_table
    from ce_align.runner import run
    from ce_align.stages.measures import AnalysisConfig, MeasureRow
    from ce_align.stages.plan import METRICS
    from ce_align.stages.running import Hardware

    register_networks()
    every = Measure.all in metric
    metrics: list[Metric] = [m for m in METRICS if every or Measure(m) in metric]
    names = expand(tuple(model))
    reference = expand([baseline])[0] if baseline else None
    settings: dict[str, Any] = {
        "images": images or default_images(),
        "comparisons": comparisons,
        "views": views,
        "crops": crops,
        "photometrics": photometrics,
        "independent_photometrics": independent_photometrics,
        "classes": classes,
        "centroids": centroids.value,
        "runs": runs,
        "size": size,
        "family": family.value,
        "interval": interval.value,
        "seed": seed,
    }
    configs = [
        AnalysisConfig(
            metric=one,
            model=m,
            layer=layer or COMMITTED,
            # Only distances are compared with a baseline.
            baseline=(reference or invariant_sibling(m)) if one == "bures" else None,
            **settings,
        )
        for one in metrics
        for m in names
    ]
    with progress_bars() as progress:
        outcome = run(
            configs,
            results,
            hardware=Hardware(device, batch_size, workers),
            force=force,
            allow_unstable=allow_unstable,
            progress=progress,
            notify=message,
        )
    rows = outcome.of(MeasureRow)
    if json:
        print_json(rows)
    elif rows:
        print_table(measure_table(rows))
    if figure and rows:
        from ce_align.report.paper.correlations import save_measures

        message(f"figure: {save_measures(rows, figure)}")
    tell_outcome(outcome, results)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(analyze)
