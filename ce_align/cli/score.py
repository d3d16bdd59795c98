"""`ce-align score`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ce_align.cli.options import AllowUnstable, Json, Models, Recordings, Results
from ce_align.cli.screen import (
    message,
    print_json,
    print_tables,
    progress_bars,
    tell_outcome,
)
from ce_align.config import COMMITTED, StageConfig
from ce_align.errors import ConfigError

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align score --model pixels --recording simulated

  ce-align score --model torchvision/resnet50 --recording my_v4.nc --layer all

  ce-align score --model 'ce_mmcr_*' --recording majajhong2015-public --json

  ce-align score --model gabor --recording brainscore/MajajHong2015public.V4-pls

  ce-align score --model gabor --recording simulated --compare-official
"""

#: Without --recording, a score means the paper's four sets.
DEFAULT_RECORDINGS = ("it",)


class Regression(StrEnum):
    """Mappings from features to neuroids."""

    pls = "pls"
    ridge = "ridge"


class PlsMode(StrEnum):
    """Brain-Score's unconverged iteration, or the exact solution."""

    nipals = "nipals"
    exact = "exact"


class CeilingKind(StrEnum):
    """Estimators of the ceiling."""

    auto = "auto"
    split_half = "split-half"
    variance = "variance"


class GramDtype(StrEnum):
    """Precision of the products of features."""

    float64 = "float64"
    float32 = "float32"


def score(
    model: Models,
    recording: Recordings = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            "-l",
            help="Layer to read; repeatable; 'all' for every block in one pass. "
            "\\[default: the layer committed for the region]",
        ),
    ] = None,
    regression: Annotated[
        Regression, typer.Option(help="Regression from features to neuroids.")
    ] = Regression.pls,
    pls_mode: Annotated[
        PlsMode, typer.Option(help="nipals is Brain-Score's number.")
    ] = PlsMode.nipals,
    components: Annotated[int, typer.Option(min=1, help="PLS components.")] = 25,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Fixed ridge strength; Brain-Score's ridge is 1. "
            "\\[default: chosen by leave-one-out]"
        ),
    ] = None,
    splits: Annotated[int, typer.Option(min=1, help="Random 90/10 splits.")] = 10,
    stratify: Annotated[
        str | None,
        typer.Option(
            help="Column to balance splits over; 'none' for none. "
            "\\[default: the recording's]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of splits and weights.")] = 1,
    gram_dtype: Annotated[
        GramDtype,
        typer.Option(help="float32 is twice as fast, scores move by up to 1e-5."),
    ] = GramDtype.float64,
    ceiling: Annotated[
        CeilingKind,
        typer.Option(
            help="split-half is Brain-Score's; variance is right for unequal "
            "or odd repetitions; auto takes split-half where these make two halves, "
            "or the recording is Brain-Score's."
        ),
    ] = CeilingKind.auto,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at a time. \\[default: by memory]")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network with torch.compile.")
    ] = False,
    official: Annotated[
        bool,
        typer.Option(
            "--official", help="Run Brain-Score's own benchmark object instead."
        ),
    ] = False,
    compare_official: Annotated[
        bool,
        typer.Option(
            "--compare-official",
            help="Run both, and print Brain-Score's number beside ours.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Compute again.")] = False,
    allow_unstable: AllowUnstable = False,
    results: Results = Path("results"),
    json: Json = False,
) -> None:
    """Predict a recording from a network: Brain-Score's number, ceiling and error."""
    from ce_align.brainscore import register, register_networks
    from ce_align.data.recordings import expand_recordings
    from ce_align.models.catalogue import expand
    from ce_align.report.terminal import (
        comparison_tables,
        official_tables,
        score_tables,
    )
    from ce_align.runner import run
    from ce_align.stages.official import OfficialConfig, OfficialRow
    from ce_align.stages.running import Hardware
    from ce_align.stages.score import ScoreConfig, ScoreRow

    register()
    register_networks()
    settings: dict[str, Any] = {
        "regression": regression.value,
        "pls_mode": pls_mode.value,
        "components": components,
        "alpha": alpha,
        "splits": splits,
        "stratify": stratify,
        "seed": seed,
        "gram_dtype": gram_dtype.value,
        "ceiling": ceiling.value,
    }
    if official or compare_official:
        _check_official(settings)
    models = expand(tuple(model))
    recordings = expand_recordings(tuple(recording or DEFAULT_RECORDINGS))
    layers = tuple(layer or (COMMITTED,))
    if "all" in layers and len(layers) > 1:
        raise ConfigError("--layer all already stands for every layer")
    asked = [(m, r, name) for m in models for r in recordings for name in layers]
    configs: list[StageConfig] = []
    if compare_official or not official:
        configs += [
            ScoreConfig(model=m, recording=r, layer=name, **settings)
            for m, r, name in asked
        ]
    if compare_official or official:
        configs += [
            OfficialConfig(model=m, recording=r, layer=name) for m, r, name in asked
        ]
    with progress_bars() as progress:
        outcome = run(
            configs,
            results,
            hardware=Hardware(device, batch_size, compiled=compiled),
            force=force,
            allow_unstable=allow_unstable,
            progress=progress,
            notify=message,
        )
    rows, official_rows = outcome.of(ScoreRow), outcome.of(OfficialRow)
    if json:
        print_json(outcome.rows)
    elif compare_official:
        print_tables(comparison_tables(rows, official_rows))
    elif official:
        print_tables(official_tables(official_rows))
    else:
        print_tables(score_tables(rows))
    tell_outcome(outcome, results)


def _check_official(settings: dict[str, Any]) -> None:
    """Refuse settings that Brain-Score's benchmark does not take."""
    from ce_align.stages.score import ScoreConfig

    changed = [
        name
        for name, value in settings.items()
        if value != ScoreConfig.model_fields[name].default
        # Its own ceiling, which a comparison may ask of ours, too.
        and (name, value) != ("ceiling", "split-half")
    ]
    if changed:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise ConfigError(
            f"Brain-Score's benchmark has settings of its own; leave out {options}"
        )


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(score)
