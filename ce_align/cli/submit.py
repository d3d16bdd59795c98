"""`ce-align submit` and `export`: networks for Brain-Score, and for the hub."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ce_align.cli.options import Json, Results
from ce_align.cli.screen import message, print_tables, progress_bars
from ce_align.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ce_align.brainscore.plugin.check import PluginCheck

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align submit --model ce_barlow_l0.2_ep1000 --out plugins
  --weights https://lab.org/weights/

  ce-align submit --model paper --out paper.zip --weights https://lab.org/weights/

  ce-align submit --model runs/mmcr_tiny --out mine.zip --weights embed

  ce-align submit --check mine.zip

  ce-align submit --check brainscore_vision/models/CE-MMCR_lmda_01 --no-run
"""

EXPORT_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align export ce_mmcr_l0.1 --hub ce_mmcr --licence cc-by-4.0

  ce-align export runs/a --hub shared/a
"""


def submit(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Network: name, glob or group, torchvision/NAME, the folder of a "
            "training, or a checkpoint. Repeatable.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of plugins, or NAME.zip for Brain-Score's website."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Where the weights will be served: https://…/ for "
            "<identifier>.safetensors in it, or https://….safetensors; or 'embed' "
            "(zip of 50 MB at most).",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            "-l",
            help="REGION=LAYER instead of the network's own. Repeatable.",
        ),
    ] = None,
    identifier: Annotated[
        str | None, typer.Option(help="Name in Brain-Score, for one network.")
    ] = None,
    bibtex: Annotated[
        Path | None, typer.Option(help="File with the citation. \\[default: the paper]")
    ] = None,
    metadata: Annotated[
        bool,
        typer.Option(
            help="Write metadata.yml; Brain-Score reviews submissions that have one, "
            "and merges others by itself.",
        ),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = (
        False
    ),
    check: Annotated[
        Path | None,
        typer.Option(help="Examine plugins instead: a plugin, a folder, or a zip."),
    ] = None,
    run: Annotated[
        bool | None,
        typer.Option(
            "--run/--no-run",
            help="Whether the check loads and scores plugins in a clean process, which "
            "executes their code and fetches their weights. \\[default: only code that "
            "this command wrote]",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Export networks to Brain-Score, or examine plugins with --check."""
    exporting = {"--out": out, "--weights": weights, "--layer": layer}
    exporting |= {"--model": model, "--identifier": identifier, "--bibtex": bibtex}
    if check is not None:
        unfit = [name for name, value in exporting.items() if value is not None]
        if unfit:
            raise ConfigError(f"--check examines and does not take {', '.join(unfit)}")
        _check(check, run, json)
        return
    if run is not None or json:
        raise ConfigError("--run and --json belong to --check")
    if out is None or weights is None or not model:
        absent = [n for n in ("--model", "--out", "--weights") if not exporting[n]]
        raise ConfigError(f"name {' and '.join(absent)}, or --check a plugin")
    _export(
        model,
        out,
        force,
        weights=weights,
        layers=_layers(layer or []),
        identifier=identifier,
        bibtex=_text(bibtex),
        metadata=metadata,
    )


def _layers(options: list[str]) -> dict[str, str]:
    pairs = [option.partition("=") for option in options]
    for region, _, name in pairs:
        if not region or not name:
            raise ConfigError(f"--layer should be REGION=LAYER, found {region}")
    return {region: name for region, _, name in pairs}


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error


def _export(model: list[str], out: Path, force: bool, **options: Any) -> None:
    from ce_align.brainscore.submission import Submission, submit
    from ce_align.models.catalogue import expand

    with progress_bars() as progress:
        written = submit(
            expand(model), out, Submission(**options), force=force, progress=progress
        )
    for plugin in written:
        message(f"{plugin.model}: {plugin.identifier} in {out}")
        if plugin.upload is not None:
            message(f"  upload {plugin.upload} to {plugin.weights_url}")
    message(f"examine them with: ce-align submit --check {out}")


def _check(path: Path, run: bool | None, json: bool) -> None:
    from ce_align.brainscore.plugin.check import check_plugins
    from ce_align.report.terminal import plugins_table

    with progress_bars() as progress:
        checked = check_plugins(path, run=run, progress=progress)
    if json:
        rows = [plugin.model_dump(mode="json") for plugin in checked]
        print(json_module.dumps(rows, indent=1, ensure_ascii=False))
    else:
        print_tables([plugins_table(checked)])
    _conclude(checked)


def _conclude(checked: "list[PluginCheck]") -> None:
    """Say how it went, and end with status 2 if there are faults."""
    faulty = [plugin for plugin in checked if plugin.n_faults]
    unrun = [plugin for plugin in checked if not plugin.ran]
    if unrun:
        message(
            f"{len(unrun)} of {len(checked)} plugins were read, not run; --run "
            "executes their code"
        )
    if faulty:
        message(f"error: {len(faulty)} of {len(checked)} plugins have faults")
        raise typer.Exit(2)
    message(f"{len(checked)} plugins without faults")


def export(
    model: Annotated[str, typer.Argument(help="Network, as `score` takes it.")],
    hub: Annotated[
        Path,
        typer.Option(help="Folder to write: weights, config.json and a card."),
    ],
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of the weights, as the hub spells it: cc-by-4.0."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random weights.")] = 0,
    results: Results = Path("results"),
) -> None:
    """Write a network as a folder that timm loads, with a card of its scores."""
    from ce_align.api import load_network
    from ce_align.results import ResultStore
    from ce_align.stages.export import export

    network = load_network(model, seed=seed)
    export(network, hub, ResultStore(results), licence=licence, notify=message)
    message(f"{model} is in {hub}: ce-align score --model local-dir:{hub}")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=EXAMPLES)(submit)
    app.command(epilog=EXPORT_EXAMPLES)(export)
