"""`ce-align analyze`, `ce-align correlate` and `ce-align overlap`."""

import json as json_format
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ce_align.cli.options import Json, Models, Recordings, Results
from ce_align.cli.screen import fault, message, print_json, print_table, progress_bars
from ce_align.errors import ConfigError, DataError
from ce_align.files import cache_folder
from ce_align.results import ResultStore

if TYPE_CHECKING:
    import pandas as pd

    from ce_align.stages.measures import Metric

__all__ = ["add_to"]

ANALYZE_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align analyze --metric bures --model 'ce_mmcr_*' --images imagenet/val

  ce-align analyze --metric all --model torchvision/resnet18:none --baseline pixels
  --comparisons 40 --views 20 --crops 6 --photometrics 6
"""

CORRELATE_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align correlate

  ce-align analyze --metric bures --model paper --json > rows.json

  ce-align correlate --rows rows.json --against majajhong2015-public
"""


class Measure(StrEnum):
    """Kinds of measures."""

    bures = "bures"
    decoding = "decoding"
    factorization = "factorization"
    dimensionality = "dimensionality"
    steerability = "steerability"
    all = "all"


class IntervalKind(StrEnum):
    """What an interval treats as independent."""

    bootstrap = "bootstrap"
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
        int, typer.Option(min=10, help="Comparisons, and images to augment, at most.")
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
    runs: Annotated[int, typer.Option(min=1, help="Splits of decoding.")] = 5,
    size: Annotated[int, typer.Option(min=8, help="Pixels of a view.")] = 224,
    interval: Annotated[
        IntervalKind,
        typer.Option(help="Bootstrap over images, or the paper's over comparisons."),
    ] = IntervalKind.bootstrap,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every draw.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Views at a time. \\[default: by device]")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that render views.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Compute again.")] = False,
    results: Results = Path("results"),
    json: Json = False,
) -> None:
    """Measure how networks organise the variability that augmentations cause."""
    from ce_align.brainscore import register_networks
    from ce_align.data.finding import default_images, find_images
    from ce_align.models.catalogue import expand
    from ce_align.report.tables import measure_table
    from ce_align.stages.plan import METRICS
    from ce_align.stages.responses import Hardware, Responses
    from ce_align.sweep import analyze_all

    register_networks()
    every = Measure.all in metric
    metrics: list[Metric] = [m for m in METRICS if every or Measure(m) in metric]
    name = images or default_images()
    image_set = find_images(name, comparisons, seed)
    message(f"images: {name} ({len(image_set)})")
    settings: dict[str, Any] = {
        "images": name,
        "comparisons": comparisons,
        "views": views,
        "crops": crops,
        "photometrics": photometrics,
        "independent_photometrics": independent_photometrics,
        "classes": classes,
        "runs": runs,
        "size": size,
        "interval": interval.value,
        "seed": seed,
    }
    with progress_bars() as progress:
        report = analyze_all(
            expand(tuple(model)),
            metrics,
            image_set,
            ResultStore(results),
            Responses(cache_folder("responses")),
            layer=layer,
            baseline=expand([baseline])[0] if baseline else None,
            settings=settings,
            hardware=Hardware(device, batch_size, workers),
            force=force,
            progress=progress,
        )
    if json:
        print_json(report.rows)
    elif report.rows:
        print_table(measure_table(report.rows))
    if report.n_stored:
        message(f"{report.n_stored} measurements were in {results} already")
    for what, error in report.failures:
        fault(f"{what}: {error}", error)
    if report.failures:
        raise typer.Exit(max(error.exit_status for _, error in report.failures))


def correlate(
    against: Recordings = None,
    rows: Annotated[
        list[Path] | None,
        typer.Option(help="JSON rows of other runs, '-' for standard input."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    results: Results = Path("results"),
    json: Json = False,
) -> None:
    """Correlate every measure with predictivity, across networks."""
    import pandas as pd

    from ce_align.report.tables import correlation_table
    from ce_align.stages.correlate import CorrelateConfig, correlate_measures

    store = ResultStore(results)
    found = pd.concat([store.load(), *map(_read_rows, rows or ())], ignore_index=True)
    if found.empty or "low" not in found or "raw" not in found:
        raise DataError(
            f"{results} needs rows of `ce-align score` and of `ce-align analyze`; run "
            "both for the same networks, or add --rows"
        )
    scores = found[found["raw"].notna()]
    measures = found[found["n_points"].notna()]
    recordings = tuple(against or scores["recording"].unique())
    unknown = [name for name in recordings if name not in set(scores["recording"])]
    if unknown:
        raise ConfigError(
            f"no scores against {unknown[0]}; there are scores against "
            f"{', '.join(scores['recording'].unique())}"
        )
    config = CorrelateConfig(recordings=recordings, seed=seed)
    table, notes = correlate_measures(measures, scores, config, store)
    if json:
        print_json(table)
    else:
        print_table(correlation_table(table))
    for note in notes:
        message(note)


def _read_rows(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
        return pd.DataFrame(json_format.loads(text))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a JSON array of rows: {error}") from error


def overlap(
    model: Models,
    recording: Annotated[str, typer.Option("--recording", "-r", help="Recording.")],
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Layer of each network. \\[default: for the region]"),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of stimuli.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Compute again.")] = False,
    results: Results = Path("results"),
    json: Json = False,
) -> None:
    """Partition the explained variance of a recording between two networks."""
    from ce_align.brainscore import register, register_networks
    from ce_align.data.recordings import expand_recordings, load_recording
    from ce_align.models.catalogue import expand
    from ce_align.models.sources import load_network
    from ce_align.report.tables import overlap_table
    from ce_align.stages.overlap import OverlapConfig
    from ce_align.stages.overlap import overlap as partition

    register()
    register_networks()
    names = expand(tuple(model))
    if len(names) != 2 or (layer and len(layer) != 2):
        raise ConfigError(
            f"overlap compares two networks, found {len(names)}; name each with "
            "--model, and no layer or two with --layer"
        )
    (target,) = expand_recordings((recording,))[:1]
    loaded = load_recording(target)
    first, second = (load_network(name, seed=seed) for name in names)
    layers = layer or [n.layer_for(loaded.region) for n in (first, second)]
    config = OverlapConfig(
        model_a=names[0],
        model_b=names[1],
        recording=target,
        layer_a=layers[0],
        layer_b=layers[1],
        folds=folds,
        seed=seed,
    )
    rows, stored = partition(
        (first, second),
        loaded,
        config,
        ResultStore(results),
        device=device,
        force=force,
    )
    if json:
        print_json(rows)
    else:
        print_table(overlap_table(rows))
    if stored:
        message(f"these rows were in {results} already")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=ANALYZE_EXAMPLES)(analyze)
    app.command(epilog=CORRELATE_EXAMPLES)(correlate)
    app.command()(overlap)
