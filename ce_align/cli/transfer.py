"""`ce-align transfer`."""

from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.options import AllowUnstable, Json, Models, Results
from ce_align.cli.screen import (
    message,
    print_json,
    print_table,
    progress_bars,
    tell_outcome,
)
from ce_align.config import COMMITTED, StageConfig
from ce_align.errors import ConfigError

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align transfer --model torchvision/resnet18 --dataset cifar10 --root data

  ce-align transfer --model 'ce_*_l0.1' --dataset dtd --dataset pets --download

  ce-align transfer --model runs/barlow_l0.3 --dataset my_images.zip --size 64

  ce-align transfer --online --model runs/barlow_l0 --model runs/barlow_l0.3

The short edge is resized to --size (bicubic) and the centre cropped; features are
averaged over places, not standardised. Of 45 L2 strengths from 1e-6 to 1e5, for a loss
summed over images, validation images choose one; the regression is fitted again to
training and validation images. Pets and Flowers report the mean over classes, all other
data sets top-1. Without official validation images a tenth of each class is split off,
a fifth for Pets. Runs differ only in which images choose the strength.
"""


def _complete_dataset(incomplete: str) -> list[str]:
    from ce_align.data.labelled import DATASETS

    return [name for name in DATASETS if name.startswith(incomplete)]


def transfer(
    model: Models,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="cifar10, cifar100, pets, dtd, flowers102, food101, or a folder, zip "
            "or tar with train/CLASS and test/CLASS or val/CLASS. Repeatable.",
            autocompletion=_complete_dataset,
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder where the named data sets lie, or are downloaded to. "
            "\\[default: datasets in the cache]"
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch a data set that is not there.")
    ] = False,
    runs: Annotated[int, typer.Option(min=1, help="Draws of validation images.")] = 5,
    layer: Annotated[
        str | None,
        typer.Option(help="Layer, averaged over places. \\[default: the one for IT]"),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=8, help="Pixels of crop and input. \\[default: the network's own]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    online: Annotated[
        bool,
        typer.Option(
            "--online",
            help="Take over the accuracy of the probe that was trained along, from "
            "folders of trainings; needs no data set.",
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at a time. \\[default: by device]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compute again.")] = False,
    allow_unstable: AllowUnstable = False,
    results: Results = Path("results"),
    json: Json = False,
) -> None:
    """Accuracy of a linear readout of frozen features on other data sets."""
    from ce_align.brainscore import register_networks
    from ce_align.models.catalogue import expand
    from ce_align.report.terminal import frame_table, transfer_table
    from ce_align.runner import run
    from ce_align.stages.running import Hardware
    from ce_align.stages.train import OnlineConfig
    from ce_align.stages.transfer import TransferConfig, TransferRow

    if online == bool(dataset):
        raise ConfigError(
            "name data sets with --dataset, or take the probe that was trained along "
            "with --online; one of the two"
        )
    register_networks()
    names = expand(tuple(model))
    configs: list[StageConfig] = (
        [OnlineConfig(model=name) for name in names]
        if online
        else [
            TransferConfig(
                model=name,
                dataset=one,
                layer=layer or COMMITTED,
                size=size or 0,
                runs=runs,
                seed=seed,
            )
            for name in names
            for one in dataset or ()
        ]
    )
    with progress_bars() as progress:
        outcome = run(
            configs,
            results,
            datasets=root,
            download=download,
            hardware=Hardware(device, batch_size),
            force=force,
            allow_unstable=allow_unstable,
            progress=progress,
            notify=message,
        )
    rows = outcome.of(TransferRow)
    if json:
        print_json(outcome.rows)
    elif online and outcome.rows:
        import pandas as pd

        shown = ["model", "objective", "equivariance_weight", "metric", "value"]
        table = pd.DataFrame([row.model_dump() for row in outcome.rows])[shown]
        print_table(frame_table(table))
    elif rows:
        print_table(transfer_table(rows))
    for row in rows:
        if row.note:
            message(f"{row.model} × {row.dataset}: {row.note}")
        if row.n_unconverged:
            message(
                f"{row.model} × {row.dataset}: {row.n_unconverged} fits ended before "
                "their tolerance was met"
            )
    tell_outcome(outcome, results)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(transfer)
