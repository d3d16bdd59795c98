"""`ce-align similarity`, `correlate`, `compare`, `overlap`, `unique`, `transfer`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ce_align.cli.flags import (
    Asked,
    Figure,
    Found,
    Results,
    Root,
    Session,
    expanded,
    flags,
)
from ce_align.cli.screen import message, tell_outcome
from ce_align.cli.view import View
from ce_align.errors import ConfigError
from ce_align.names import labelled
from ce_align.stages.compare import CompareConfig
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.similarities import SIMILARITIES, SimilarityConfig
from ce_align.stages.transfer import TransferConfig
from ce_align.stages.unique import UniqueConfig

__all__ = ["commands"]

commands = typer.Typer()

CORRELATE_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align correlate

  ce-align analyze --metric bures --model paper --json > rows.json

  ce-align correlate --rows rows.json --against majajhong2015-public
"""

COMPARE_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align compare gabor pixels --recording simulated

  ce-align compare torchvision/resnet50 timm/vit_small_patch16_224
  --layer layer3 --layer blocks.9 --recording my_v4.nc --over stimuli

Each pair of networks is compared on the same splits, stimuli and neuroids. Choose by
--over what else might have been recorded. Regressions stay as they were fitted. What
each network explains that the other does not is another question: ce-align overlap.
"""

OVERLAP_EXAMPLES = """\b
[bold]Example[/bold]

  ce-align overlap --model gabor --model pixels --recording simulated

Which of the two predicts better, by their scores: ce-align compare. Of more than two
networks, what each adds to all others: ce-align unique.
"""

UNIQUE_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align unique --model v1_like --model gabor --model pixels --recording simulated

  ce-align unique --model torchvision/resnet50 --beside gabor --beside pixels
  --layer layer3 --recording my_v4.nc

Ridge regression on all of them, with a penalty for each (banded ridge).
"""

SIMILARITY_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align similarity --metric rsa --metric cka --model gabor --recording simulated

  ce-align similarity --metric rsa --distance correlation --comparator spearman
  --model torchvision/resnet50 --layer all --recording my_it.nc

  ce-align similarity --metric all --model runs/a --recording my_it.nc
"""

TRANSFER_EXAMPLES = """\b
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


@commands.command(epilog=CORRELATE_EXAMPLES)
@flags()
def correlate(
    asked: Asked[CorrelateConfig],
    view: View,
    rows: Annotated[
        list[Path] | None,
        typer.Option(help="JSON rows of other runs, '-' for standard input."),
    ] = None,
    figure: Figure = None,
    results: Results = Path("results"),
) -> None:
    """Correlate every measure with predictivity, across networks."""
    from ce_align.report.terminal import row_sheets
    from ce_align.runner import run
    from ce_align.stages.correlate import CorrelationRow

    outcome = run(asked.configs(), results, other_rows=rows or ())
    found = outcome.of(CorrelationRow)
    view.show(found, row_sheets(found))
    if figure and found:
        from ce_align.report.paper.correlations import save_correlations

        message(f"figure: {save_correlations(found, figure)}")
    tell_outcome(outcome, results)


@commands.command(epilog=COMPARE_EXAMPLES)
@flags()
def compare(
    asked: Asked[CompareConfig],
    session: Session,
    view: View,
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NETWORK NETWORK ...",
            help="Two networks or more, globs or groups, as after --model.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Tell which of several networks predicts a recording better, with p."""
    from ce_align.data.named import RECORDINGS
    from ce_align.report.terminal import row_sheets

    named = [*(networks or ()), *asked.values("models")]
    for name in named:
        if name in RECORDINGS or name.endswith(".nc"):
            raise ConfigError(
                f"{name} is a recording; put it after --recording, and networks first: "
                f"ce-align compare A B --recording {name}"
            )
    if not named:
        raise ConfigError("name two networks or more: ce-align compare A B")
    outcome = session.run(asked.configs(models=expanded("model", named)))
    view.show(outcome.rows, row_sheets(outcome.rows))
    tell_outcome(outcome, session.results)


@commands.command(epilog=OVERLAP_EXAMPLES)
@flags()
def overlap(asked: Asked[OverlapConfig], session: Session, view: View) -> None:
    """Partition the explained variance of a recording between two networks."""
    from ce_align.report.terminal import row_sheets

    outcome = session.run(asked.configs())
    view.show(outcome.rows, row_sheets(outcome.rows))
    tell_outcome(outcome, session.results)


@commands.command(epilog=UNIQUE_EXAMPLES)
@flags(beside=Found("all other networks"))
def unique(asked: Asked[UniqueConfig], session: Session, view: View) -> None:
    """What each of several networks explains of a recording that the others do not."""
    from ce_align.report.terminal import row_sheets

    models = expanded("model", asked.values("model"))
    layers, labels = asked.values("layer"), asked.given.get("label")
    each = layers * len(models) if len(layers) == 1 else layers
    if len(each) != len(models):
        raise ConfigError(
            f"--layer is one for all or one for each of {len(models)} networks, found "
            f"{len(layers)}"
        )
    if labels is not None and len(labels) != len(models):
        raise ConfigError(
            f"--label is one for each network: found {len(labels)} for {len(models)}"
        )
    configs: list[UniqueConfig] = []
    for place, (model, layer) in enumerate(zip(models, each, strict=True)):
        changed: dict[str, Any] = {"model": [model], "layer": [layer]}
        if labels is not None:
            changed["label"] = labels[place : place + 1]
        if beside := asked.given.get("beside"):
            changed["beside"] = tuple(expanded("model", beside))
        else:
            rest = [pair for pair in zip(models, each, strict=True) if pair[0] != model]
            changed["beside"] = tuple(labelled(name)[1] for name, _ in rest)
            changed["beside_layers"] = tuple(layer for _, layer in rest)
        configs += asked.configs(**changed)
    outcome = session.run(configs)
    view.show(outcome.rows, row_sheets(outcome.rows))
    tell_outcome(outcome, session.results)


@commands.command(epilog=SIMILARITY_EXAMPLES)
@flags(metric="rsa")
def similarity(asked: Asked[SimilarityConfig], session: Session, view: View) -> None:
    """Compare a layer with a recording, none fitted: RSA, CKA, matching, shape."""
    from ce_align.report.terminal import row_sheets

    metrics = asked.values("metric")
    chosen = list(SIMILARITIES) if "all" in metrics else metrics
    outcome = session.run(asked.configs(metric=chosen))
    view.show(outcome.rows, row_sheets(outcome.rows))
    tell_outcome(outcome, session.results)


@commands.command(epilog=TRANSFER_EXAMPLES)
@flags(dataset=Found("none, with --online"))
def transfer(
    asked: Asked[TransferConfig],
    session: Session,
    view: View,
    root: Root = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch a data set that is not there.")
    ] = False,
    online: Annotated[
        bool,
        typer.Option(
            "--online",
            help="Take over the accuracy of the probe that was trained along, from "
            "folders of trainings; needs no data set.",
        ),
    ] = False,
) -> None:
    """Accuracy of a linear readout of frozen features on other data sets."""
    from ce_align.report.terminal import row_sheets
    from ce_align.stages.train import OnlineConfig

    if online == bool(asked.values("dataset")):
        raise ConfigError(
            "name data sets with --dataset, or take the probe that was trained along "
            "with --online; one of the two"
        )
    configs = asked.configs(**({"dataset": "none"} if online else {}))
    outcome = session.run(
        [OnlineConfig(model=c.model, label=c.label) for c in configs]
        if online
        else configs,
        datasets=root,
        download=download,
    )
    view.show(outcome.rows, row_sheets(outcome.rows))
    tell_outcome(outcome, session.results)
