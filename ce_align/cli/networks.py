"""`ce-align models`, `fetch`, `register`, `submit` and `export`: networks by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ce_align.cli.completion import COMPLETIONS
from ce_align.cli.flags import Results, flags
from ce_align.cli.screen import message, progress_bars, report_failures
from ce_align.cli.view import View
from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.files import read_bytes
from ce_align.progress import WHOLE, Progress

if TYPE_CHECKING:
    from ce_align.models.fetching import Checksum

__all__ = ["commands"]

commands = typer.Typer()

FETCH_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align fetch ce_barlow_l0.2

  ce-align fetch paper --url https://mirror.example.org/resnet_50

  ce-align fetch CE-MMCR_lmda_01 --keep --pin

  ce-align fetch majajhong2015-public li2026
"""

OTHER_NETWORKS = (
    "Also: pixels, gabor, torchvision/NAME[:WEIGHTS|:none], timm/NAME, brainscore/ID, "
    "the folder of a training, a checkpoint file, or FILE.py:callable."
)


@commands.command()
@flags()
def models(
    view: View,
    pattern: Annotated[
        str,
        typer.Argument(
            help="Name, glob or group, such as 'ce_mmcr_*'.",
            autocompletion=COMPLETIONS["model"],
        ),
    ] = "*",
) -> None:
    """List the published networks."""
    from ce_align.models.catalogue import PUBLISHED, expand
    from ce_align.report.terminal import models_sheet

    names = expand([pattern])
    listed = models_sheet([PUBLISHED[name] for name in names if name in PUBLISHED])
    view.show(listed.records, [listed])
    message(OTHER_NETWORKS)


@commands.command(epilog=FETCH_EXAMPLES)
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="Published networks, or open recordings: names, globs, groups or, of "
            "networks, Brain-Score identifiers.",
            autocompletion=COMPLETIONS["fetched"],
        ),
    ],
    pin: Annotated[
        bool,
        typer.Option(
            "--pin", help="Pin size and SHA-256 of the authors' files from now on."
        ),
    ] = False,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep the authors' file beside the weights."),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="BASE",
            help="Address of a mirror of the authors' folders, or of Brain-Score's "
            "bucket. \\[default: $CE_ALIGN_CHECKPOINTS_URL or "
            "$CE_ALIGN_RECORDINGS_URL, or else their own]",
        ),
    ] = None,
) -> None:
    """Download published networks or open recordings, and check them.

    The same command continues an interrupted download, and only checks what is here
    already. Commands that use a network or a recording fetch it themselves.
    """
    from ce_align.models.fetching import Checksum
    from ce_align.models.fetching import pin as pin_checksums

    recordings, networks = _sorted(names, url)
    if recordings and (keep or pin or (networks and url)):
        raise ConfigError(
            "--keep and --pin are of networks, and a mirror is of networks or of "
            "recordings; fetch recordings by themselves"
        )
    failures: list[tuple[str, CeAlignError]] = []
    sources: dict[str, Checksum] = {}
    names = [*recordings, *networks]
    with progress_bars() as progress:
        for done, name in enumerate(names):
            progress(WHOLE, done, len(names))
            try:
                if name in recordings:
                    told = _recording(name, url, progress)
                else:
                    told, source = _network(name, url, keep, progress)
                    sources |= {} if source is None else {name: source}
            except CeAlignError as error:
                failures.append((name, error))
                continue
            except KeyboardInterrupt as stop:
                stop.add_note(
                    f"what came of {name} is kept; the same command continues it"
                )
                raise
            message(told)
    if pin and sources:
        message(f"pinned {', '.join(sources)} in {pin_checksums(sources)}")
    report_failures(failures)


def _sorted(names: list[str], url: str | None) -> tuple[list[str], list[str]]:
    """Recordings and networks that names stand for; ConfigError for anything else."""
    from ce_align.brainscore import register
    from ce_align.brainscore.datasets import DATASETS
    from ce_align.data.named import matching_recordings
    from ce_align.models.catalogue import PUBLISHED, expand

    register()
    found = {
        name: [match for match in matching_recordings(name) if match in DATASETS]
        for name in names
    }
    recordings = [match for matches in found.values() for match in matches]
    networks = expand([name for name in names if not found[name]])
    for name in networks:
        if name not in PUBLISHED:
            raise ConfigError(
                f"{name} is not a published network; its source brings it when it is "
                "used"
            )
        PUBLISHED[name].address(url)  # refused once, before anything is brought
    return list(dict.fromkeys(recordings)), networks


def _recording(name: str, url: str | None, progress: Progress) -> str:
    """Bring a recording; return what to say of it."""
    from ce_align.brainscore.datasets import fetch as fetch_recording

    paths = fetch_recording(name, base=url, progress=progress)
    return (
        f"{name}: {len(paths)} files in {paths[0].parent.parent}, of the SHA-1 that "
        "Brain-Score states"
    )


def _network(
    name: str, url: str | None, keep: bool, progress: Progress
) -> tuple[str, "Checksum | None"]:
    """Bring a network; return what to say of it, and the file it is from."""
    from ce_align.models.catalogue import PUBLISHED
    from ce_align.models.fetching import fetch as fetch_weights
    from ce_align.models.fetching import read_record

    path = fetch_weights(PUBLISHED[name], base=url, keep=keep, progress=progress)
    record = read_record(name)
    source = record.source if record is not None else None
    origin = f"from a file of {source}" if source else "placed by hand"
    return f"{path}: {origin}", source


REGISTER_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align register

  ce-align register ce_barlow_l0.2 runs/mmcr_l0.1
"""

USE = """
In Python, importing the registry puts every published network and every run there:
  import ce_align.brainscore.registry
  from brainscore_vision import model_registry
  model = model_registry["{name}"]()
"""


@commands.command(epilog=REGISTER_EXAMPLES)
@flags()
def register(
    view: View,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names, globs or groups. \\[default: all whose weights are here]",
            autocompletion=COMPLETIONS["model"],
        ),
    ] = None,
) -> None:
    """Load networks into Brain-Score's registry, and show their identifiers.

    An identifier ends in the digest of the weights, so that Brain-Score's caches cannot
    mix networks. Nothing is written into the installed Brain-Score.
    """
    from ce_align.brainscore import register_networks
    from ce_align.brainscore.registry import at_hand, register_name
    from ce_align.models.catalogue import PUBLISHED, expand

    register_networks()
    names = expand(models) if models else list(at_hand())
    found: list[dict[str, str]] = []
    failures: list[tuple[str, CeAlignError]] = []
    with progress_bars() as progress:
        for done, name in enumerate(names):
            progress("networks", done, len(names))
            try:
                found.append({"name": name, "identifier": register_name(name)})
            except CeAlignError as error:
                failures.append((name, error))
        progress("networks", len(names), len(names))
    from ce_align.report.sheet import Column, Sheet

    columns = [Column("name", keep=True)]
    columns.append(Column("identifier", "identifier in Brain-Score", keep=True))
    view.show(found, [Sheet(found, columns)])
    if not view.json and (found or not failures):
        example = found[0]["name"] if found else next(iter(PUBLISHED))
        message(USE.format(name=example))
    report_failures(failures)


SUBMIT_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align submit --model ce_barlow_l0.2_ep1000 --out plugins
  --weights https://lab.org/weights/

  ce-align submit --model paper --out paper.zip --weights https://lab.org/weights/

  ce-align submit --model runs/mmcr_tiny --out mine.zip --weights embed

  ce-align submit --check mine.zip

  ce-align submit --check brainscore_vision/models/CE-MMCR_lmda_01 --no-run
"""


@dataclass(frozen=True)
class Exported:
    """What is exported, and how."""

    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Network: name, glob or group, torchvision/NAME, the folder of a "
            "training, or a checkpoint. Repeatable.",
            autocompletion=COMPLETIONS["model"],
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of plugins, or NAME.zip for Brain-Score's website."),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            help="Where the weights will be served: https://…/ for "
            "<identifier>.safetensors in it, or https://….safetensors; or 'embed' "
            "(zip of 50 MB at most).",
        ),
    ] = None
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            "-l",
            help="REGION=LAYER instead of the network's own. Repeatable.",
        ),
    ] = None
    identifier: Annotated[
        str | None, typer.Option(help="Name in Brain-Score, for one network.")
    ] = None
    bibtex: Annotated[
        Path | None,
        typer.Option(
            help="File with the citation. \\[default: the paper, or torchvision's; "
            "needed for networks of others]"
        ),
    ] = None
    metadata: Annotated[
        bool,
        typer.Option(
            help="Write metadata.yml; Brain-Score reviews submissions that have one, "
            "and merges others by itself.",
        ),
    ] = True
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = (
        False
    )

    @property
    def given(self) -> list[str]:
        """Options that say what is exported."""
        names = ("out", "weights", "layer", "model", "identifier", "bibtex")
        return [f"--{name}" for name in names if getattr(self, name)]

    def write(self) -> None:
        """Write the plugins, and say what is to be done with them."""
        from ce_align.brainscore.submission import Submission, submit
        from ce_align.models.catalogue import expand

        if self.out is None or self.weights is None or not self.model:
            needed = ("--model", "--out", "--weights")
            absent = [name for name in needed if name not in self.given]
            raise ConfigError(f"name {' and '.join(absent)}, or --check a plugin")
        submission = Submission(
            weights=self.weights,
            layers=_layers(self.layer or []),
            identifier=self.identifier,
            bibtex=_text(self.bibtex),
            metadata=self.metadata,
        )
        with progress_bars() as progress:
            written = submit(
                expand(self.model),
                self.out,
                submission,
                force=self.force,
                progress=progress,
            )
        for plugin in written:
            message(f"{plugin.model}: {plugin.identifier} in {self.out}")
            if plugin.upload is not None:
                message(f"  upload {plugin.upload} to {plugin.weights_url}")
        message(f"examine them with: ce-align submit --check {self.out}")


@commands.command(epilog=SUBMIT_EXAMPLES)
@flags()
def submit(
    view: View,
    exported: Exported,
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
) -> None:
    """Export networks to Brain-Score, or examine plugins with --check."""
    if check is None:
        if run is not None or view != View():
            raise ConfigError("--run and options of tables belong to --check")
        exported.write()
        return
    if exported.given:
        unfit = ", ".join(exported.given)
        raise ConfigError(f"--check examines and does not take {unfit}")
    _check(check, run, view)


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
        return read_bytes(path).decode("utf-8")
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error


def _check(path: Path, run: bool | None, view: View) -> None:
    """Examine plugins, and end with status 2 if there are faults."""
    from ce_align.brainscore.plugin.check import check_plugins
    from ce_align.report.terminal import plugins_sheet

    with progress_bars() as progress:
        checked = check_plugins(path, run=run, progress=progress)
    view.show(checked, [plugins_sheet(checked)])
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


EXPORT_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align export ce_mmcr_l0.1 --hub ce_mmcr --licence cc-by-4.0

  ce-align export runs/a --hub shared/a
"""


@commands.command(epilog=EXPORT_EXAMPLES)
def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Network, as `score` takes it.", autocompletion=COMPLETIONS["model"]
        ),
    ],
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
