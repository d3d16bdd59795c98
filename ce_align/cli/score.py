"""`ce-align score` and `ce-align analyze`: rows of networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ce_align.cli.flags import Asked, Figure, Found, Session, expanded, flags
from ce_align.cli.screen import message, tell_outcome
from ce_align.cli.view import View
from ce_align.config import StageConfig
from ce_align.errors import ConfigError
from ce_align.names import FEATURES
from ce_align.stages.measures import NO_BASELINE, AnalysisConfig, with_baselines
from ce_align.stages.scores import BEST, ScoreConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ce_align.report.sheet import Sheet

__all__ = ["commands"]

commands = typer.Typer()

SCORE_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align score --model pixels --recording simulated

  ce-align score --model torchvision/resnet50 --recording my_v4.nc --layer all

  ce-align score --model 'ce_mmcr_*' --recording majajhong2015-public --json

  ce-align score --model gabor --recording brainscore/MajajHong2015public.V4-pls

  ce-align score --model timm/vit_small_patch16_224 --layer 'blocks.*' --recording it

  ce-align score --features mine.npy --stimuli ids.csv --recording my_v4.nc
"""

ANALYZE_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align analyze --metric bures --model 'ce_mmcr_*' --images imagenet/val

  ce-align analyze --metric all --model torchvision/resnet18:none --baseline pixels
  --comparisons 40 --views 20 --crops 6 --photometrics 6
"""


@commands.command(epilog=SCORE_EXAMPLES)
@flags(recording=Found("the paper's four IT sets, those at hand"))
def score(
    asked: Asked[ScoreConfig],
    session: Session,
    view: View,
    features: Annotated[
        list[Path] | None,
        typer.Option(
            help="Features instead of a network, repeatable: .npy, .npz, .h5, .nc or "
            ".safetensors; every array of a file is a layer."
        ),
    ] = None,
    stimuli: Annotated[
        Path | None,
        typer.Option(
            help="Table with the stimulus of each row of --features. \\[default: as "
            "the file says, else in the recording's order]"
        ),
    ] = None,
    nulls: Annotated[
        int,
        typer.Option(
            min=0,
            help="Untrained networks beside each, of the same architecture with so "
            "many seeds, and pixels, Gabor filters and a model of V1: what a score is "
            "worth.",
        ),
    ] = 0,
    brain: Annotated[
        bool,
        typer.Option(
            "--brain",
            help="Each animal predicted from the others, too, with the same regression "
            "and splits: what a brain tells of another.",
        ),
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
) -> None:
    """Predict a recording from a network: Brain-Score's number, ceiling and error."""
    from ce_align.data.named import load_recording
    from ce_align.report.terminal import comparison_sheets, row_sheets
    from ce_align.stages.beside import with_others
    from ce_align.stages.official import OfficialConfig, OfficialRow
    from ce_align.stages.scores import ScoreRow

    layers = asked.values("layer")
    if "all" in layers and set(layers) - {"all", BEST}:
        raise ConfigError("--layer all already stands for every layer")
    if stimuli is not None and not features:
        raise ConfigError("--stimuli is of --features, which are missing")
    replaced = _with_features(asked, features or [], stimuli)
    if "recording" not in asked.given:
        replaced["recording"] = _at_hand()
    ours = asked.configs(**replaced)
    ours = with_others(ours, nulls, brain, load_recording)
    configs: list[StageConfig] = list(ours)
    if official or compare_official:
        _check_official(ours[0])
        theirs = [
            OfficialConfig(
                model=c.model, label=c.label, recording=c.recording, layer=c.layer
            )
            for c in ours
        ]
        configs = [*ours, *theirs] if compare_official else list(theirs)
    outcome = session.run(configs)
    sheets: Iterable[Sheet] = row_sheets(outcome.rows)
    if compare_official:
        sheets = comparison_sheets(outcome.of(ScoreRow), outcome.of(OfficialRow))
    view.show(outcome.rows, sheets)
    tell_outcome(outcome, session.results)


def _at_hand() -> list[str]:
    """The paper's four IT sets, as far as they can be read; what is left out is told.

    Raises
    ------
    ConfigError
        If none of them can.
    """
    from ce_align.brainscore import register
    from ce_align.brainscore.upstream import has_credentials
    from ce_align.checks import named_some
    from ce_align.data.named import RECORDINGS, matching_recordings

    register()
    paper = matching_recordings("it")
    here = [name for name in paper if RECORDINGS[name].access == "cached"]
    if len(here) == len(paper) or has_credentials():
        return paper
    absent = ", ".join(name for name in paper if name not in here)
    why = f"private, and neither on this machine nor are AWS credentials: {absent}"
    others = f"open are {named_some(matching_recordings('open'), 1)}"
    if not here:
        raise ConfigError(
            f"the paper's four IT sets, which --recording defaults to, are {why}; "
            f"{others}, or simulated (ce-align recordings lists them all)"
        )
    message(
        f"left out of the paper's four IT sets, as {why} (ce-align doctor says what to "
        f"do); {others}"
    )
    return here


def _with_features(
    asked: Asked[ScoreConfig], files: list[Path], stimuli: Path | None
) -> dict[str, list[str]]:
    """Names of networks, if files of features are among them."""
    if not files:
        return {}
    named = asked.values("model") if "model" in asked.given else []
    table = "" if stimuli is None else f":{stimuli}"
    return {"model": [*named, *(f"{FEATURES}{file}{table}" for file in files)]}


def _check_official(config: ScoreConfig) -> None:
    """Refuse settings that Brain-Score's benchmark does not take."""
    changed = [
        name
        for name, field in ScoreConfig.model_fields.items()
        if not (field.is_required() or field.exclude) and name != "layer"
        if (value := getattr(config, name)) != field.default
        # Its own ceiling, which a comparison may ask of ours, too.
        and (name, value) != ("ceiling", "split-half")
    ]
    if changed:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise ConfigError(
            f"Brain-Score's benchmark has settings of its own; leave out {options}"
        )


@commands.command(epilog=ANALYZE_EXAMPLES)
@flags(
    metric="all",
    model="paper",
    images=Found("$CE_ALIGN_IMAGENET, else simulated"),
)
def analyze(
    asked: Asked[AnalysisConfig], session: Session, view: View, figure: Figure = None
) -> None:
    """Measure how networks organise the variability that augmentations cause."""
    from ce_align.data.scenes import default_images
    from ce_align.report.terminal import row_sheets
    from ce_align.stages.measures import MEASURES, MeasureRow

    metrics = asked.values("metric")
    baseline = asked.given.get("baseline")
    if baseline not in (None, NO_BASELINE):
        named = expanded("model", [baseline])
        if len(named) > 1:
            raise ConfigError(f"--baseline should name one network, found {len(named)}")
        (baseline,) = named
    configs = asked.configs(
        metric=list(MEASURES) if "all" in metrics else metrics,
        images=asked.given.get("images") or default_images(),
        baseline=None,
    )
    configs, notes = with_baselines(configs, baseline)
    for note in notes:
        message(note)
    outcome = session.run(configs)
    rows = outcome.of(MeasureRow)
    view.show(rows, row_sheets(rows))
    if figure and rows:
        from ce_align.report.paper.geometry import save_measures

        message(f"figure: {save_measures(rows, figure)}")
    tell_outcome(outcome, session.results)
