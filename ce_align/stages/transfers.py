"""Many networks on many data sets: what can be done is done, the rest is named."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ce_align.data.labelled_sets import LabelledSplits
from ce_align.data.published_sets import load_splits
from ce_align.errors import CeAlignError, noted
from ce_align.progress import Notify, Progress, quiet, silent
from ce_align.results import ResultStore
from ce_align.stages.hardware import Hardware
from ce_align.stages.transfer import TransferConfig, TransferRow, transfer

__all__ = ["TransferReport", "transfer_all"]


@dataclass
class TransferReport:
    """Rows of a sweep, and what could not be measured.

    Attributes
    ----------
    rows : in the order of networks and data sets
    n_stored : how many rows were in the store already
    failures : what was asked for, and why there is no row of it
    """

    rows: list[TransferRow] = field(default_factory=list)
    n_stored: int = 0
    failures: list[tuple[str, CeAlignError]] = field(default_factory=list)


def transfer_all(
    models: Sequence[str],
    datasets: Sequence[str],
    root: Path,
    store: ResultStore,
    *,
    layer: str | None = None,
    size: int | None = None,
    runs: int = 5,
    seed: int = 0,
    download: bool = False,
    hardware: Hardware | None = None,
    force: bool = False,
    allow_unstable: bool = False,
    progress: Progress = silent,
    notify: Notify = quiet,
) -> TransferReport:
    """Evaluate every network on every data set that is at hand.

    What fails is reported, and the rest is still measured.

    Parameters
    ----------
    models, datasets : names
    root : folder of torchvision's data sets
    store : where rows go
    layer : to read; None for the one that each network commits to IT
    size : edge of the crops and the networks' input; None for each network's own
    runs : draws of validation images
    seed : of the draws and of random weights
    download : fetch data sets that are not there
    hardware : device and batch size
    force : compute stored rows again, with their features
    allow_unstable : measure layers, too, whose answers are random or depend on the
        batch; their rows say so
    progress : told of images and fits done
    notify : told of what is computed again because a network has changed
    """
    from ce_align.models.load import load_network

    report = TransferReport()
    opened: dict[str, LabelledSplits] = {}
    for name in dict.fromkeys(datasets):
        with noted(name, report.failures):
            opened[name] = load_splits(name, root, download=download)
    for model in models if opened else ():
        with noted(model, report.failures):
            network = load_network(model, seed=seed)
            chosen = layer or network.layer_for("IT")
            network.check_layers([chosen])
            for name, data in opened.items():
                config = TransferConfig(
                    model=model,
                    dataset=name,
                    layer=chosen,
                    size=size or network.preprocessing.edge(f"transfer of {model}"),
                    runs=runs,
                    seed=seed,
                )
                with noted(f"{model} × {name}", report.failures):
                    row, stored = transfer(
                        network,
                        data,
                        config,
                        store,
                        hardware=hardware,
                        force=force,
                        allow_unstable=allow_unstable,
                        progress=progress,
                        notify=notify,
                    )
                    report.rows.append(row)
                    report.n_stored += stored
    return report
