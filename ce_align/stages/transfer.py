"""Transfer: linear evaluation of frozen features on other data sets."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from ce_align.config import COMMITTED, NetworkConfig, Spelled
from ce_align.data.imagesets import ImageSet, centre_cropped
from ce_align.data.labelled import Convention, LabelledSplits
from ce_align.errors import DataError, PassError
from ce_align.metrics.linear_evaluation import Evaluation, Sample, evaluate_linearly
from ce_align.metrics.linear_probe import STRENGTHS
from ce_align.results import Row
from ce_align.stages.running import NetworkLayer, Run

if TYPE_CHECKING:
    import xarray as xr

    from ce_align.models.networks import Network

__all__ = ["TransferConfig", "TransferRow", "execute", "shared", "transfer"]

#: Changes whenever the same settings and data would give another number.
ALGORITHM = "linear evaluation 2"

#: Images whose features are computed and kept together: what an interruption loses.
BLOCK = 2048


class TransferConfig(NetworkConfig):
    """Settings of the linear evaluation of one network on one data set.

    `size` is the edge of the crop and of the network's input, in pixels; 0 for the
    network's own.
    """

    stage: ClassVar = "transfer"

    dataset: str = Field(
        description="cifar10, cifar100, pets, dtd, flowers102, food101, or a folder, "
        "zip or tar with train/CLASS and test/CLASS or val/CLASS."
    )
    layer: str = Field(
        default=COMMITTED,
        description="Layer, averaged over places; 'committed' for that of IT.",
    )
    size: NonNegativeInt = Field(
        default=0, description="Pixels of crop and input; 0 for the network's own."
    )
    runs: Annotated[PositiveInt, Spelled("--repeats")] = Field(
        default=5, description="Draws of validation images."
    )
    seed: NonNegativeInt = Field(default=0, description="Seed of the draws.")

    @field_validator("size")
    @classmethod
    def _something_is_seen(cls, size: int) -> int:
        if 0 < size < 8:
            raise ValueError("give 0 for the network's own, or at least 8")
        return size


class TransferRow(Row):
    """Accuracy of a linear readout of one network on one data set.

    `value` is the mean over runs, as a share of 1.

    Attributes
    ----------
    sd : standard deviation over runs (n − 1); None for a single run. Runs differ only
        in the images that choose the strength
    error : standard error over test images
    convention : ``top1``, or ``mean_per_class``
    strength : median over runs of the chosen L2 strength λ, with the loss summed over
        images; `strengths` those of all runs
    n_train, n_validation : images that paths are fitted to, and that choose; the last
        fit is to both
    n_unconverged : fits that missed their tolerance
    plain_digest : whether `model_digest` is of the network itself; in ce_align 0.1 it
        was of the network with an input of `size` pixels
    """

    stage: str = TransferConfig.stage
    dataset: str
    layer: str
    sd: float | None
    error: float
    convention: Convention
    strength: float
    strengths: tuple[float, ...]
    n_classes: int
    n_train: int
    n_validation: int
    n_test: int
    n_runs: int
    n_unconverged: int
    size: int
    seed: int
    model_digest: str
    images_digest: str
    plain_digest: bool = False


def shared(config: TransferConfig) -> Hashable:
    """What configurations have in common that share a network in memory."""
    return config.model, config.seed


def execute(configs: Sequence[TransferConfig], run: Run) -> None:
    """Evaluate one network on data sets."""
    model, seed = configs[0].model, configs[0].seed
    ready = []
    for config in configs:
        with run.attempt(f"{model} × {config.dataset}", config):
            ready.append((config, run.splits(config.dataset)))
    if not ready:  # no images: the network need not be loaded
        return
    network = run.network(model, seed, live=True)
    for config, data in ready:
        with run.attempt(f"{model} × {config.dataset}", config):
            layer = config.layer
            if layer == COMMITTED:
                layer = network.layer_for("IT")
            network.check_layers([layer])
            size = config.size or network.preprocessing.edge(f"transfer of {model}")
            named = config.model_copy(update={"layer": layer, "size": size})
            run.outcome.rows.append(transfer(network, data, named, run))
            run.store.clear_failure(config.stage, config)


def transfer(
    network: "Network", data: LabelledSplits, config: TransferConfig, run: Run
) -> TransferRow:
    """Evaluate one network on one data set.

    Features are averaged over places and cached.

    Parameters
    ----------
    network : its weights stay as they are
    data : images and classes
    config : names of both, layer, size, runs and seed
    run : where the row goes, and the accuracies of every draw beside it

    Raises
    ------
    ConfigError
        If there is no such layer or device.
    DataError
        If an image cannot be read, or the network cannot be shown images of this size.
    """
    from ce_align.models.features import ALGORITHM_VERSION

    digest = network.digest
    shown = network.preprocessing.model_copy(update={"input_size": config.size})
    network = replace(network, preprocessing=shown)
    try:
        asked = NetworkLayer.of(
            network, config.layer, allow_unstable=run.allow_unstable
        )
    except PassError as error:
        raise DataError(
            f"{error} (shown images of {config.size} pixels; --size chooses another)"
        ) from error
    config_id = config.fingerprint(
        weights=asked.probe.digest,
        images=data.digest,
        algorithm=f"{ALGORITHM}, features {ALGORITHM_VERSION}",
    )
    origin = data.train.images.origin
    stored = run.recall(config, config_id, TransferRow, [asked], origin=origin)
    if stored:
        return stored[0]
    evaluation = _Evaluation(network, data, config, asked, run)
    found = evaluation.evaluate()
    row = evaluation.row(found, config_id, digest)
    (row,) = run.keep(config, config_id, [row], [asked], _arrays(found), origin=origin)
    return row


@dataclass(frozen=True)
class _Evaluation:
    """One network and one data set."""

    network: "Network"
    data: LabelledSplits
    config: TransferConfig
    asked: NetworkLayer
    run: Run

    def evaluate(self) -> Evaluation:
        from ce_align.models.devices import devices_of, resolve_device

        samples = {
            name: Sample(self._features(part.images), part.labels)
            for name, part in self.data.parts.items()
        }
        what = f"{self.network.name} × {self.data.name}"
        return evaluate_linearly(
            samples["train"],
            samples.get("validation"),
            samples["test"],
            n_classes=len(self.data.classes),
            n_runs=self.config.runs,
            validation_share=self.data.validation_share,
            seed=self.config.seed,
            strengths=STRENGTHS,
            device=devices_of(resolve_device(self.run.hardware.device))[0],
            progress=lambda part, done, total, _="": self.run.progress(
                f"{what} {part}", done, total
            ),
        )

    def _features(self, images: ImageSet) -> NDArray[np.float32]:
        """Features (n_images, n_features), block by block from the cache."""
        from ce_align.models.features import extract

        layer, size = self.config.layer, self.config.size
        cropped = centre_cropped(images, size)
        what = f"{self.network.name} × {images.identifier} images"
        blocks = []
        for start in range(0, len(images), BLOCK):

            def show(done: int, _: int, start: int = start) -> None:
                self.run.progress(what, start + done, len(images))

            rows = range(start, min(start + BLOCK, len(images)))
            found = extract(
                self.network,
                cropped.select(rows),
                [layer],
                pool="average",
                device=self.run.hardware.device,
                batch_size=self.run.hardware.batch_size,
                compile=self.run.hardware.compiled,
                overwrite=self.run.force,
                probe=self.asked.probe,
                progress=show,
                notify=self.run.notify,
            )
            blocks.append(found[layer].values)
        return np.concatenate(blocks)

    def row(self, found: Evaluation, config_id: str, digest: str) -> TransferRow:
        """The row; `digest` is of the network, whatever the size of its input."""
        per_class = self.data.convention == "mean_per_class"
        values = np.array(found.mean_per_class if per_class else found.top1)
        n_test = len(self.data.test)
        errors = (
            np.array(found.error)
            if per_class
            else np.sqrt(values * (1 - values) / n_test)
        )
        config = self.config
        return TransferRow(
            model=config.model,
            metric=config.stage,
            value=float(values.mean()),
            config_id=config_id,
            dataset=config.dataset,
            layer=config.layer,
            sd=float(values.std(ddof=1)) if len(values) > 1 else None,
            error=float(errors.mean()),
            convention=self.data.convention,
            strength=float(np.median(found.strengths)),
            strengths=tuple(found.strengths),
            n_classes=len(self.data.classes),
            n_train=found.n_train,
            n_validation=found.n_validation,
            n_test=n_test,
            n_runs=config.runs,
            n_unconverged=found.n_unconverged,
            size=config.size,
            seed=config.seed,
            # Of the network at its own size, as in the rows of other stages.
            model_digest=digest,
            note=self.asked.note,
            images_digest=self.data.digest,
            plain_digest=True,
        )


def _arrays(found: Evaluation) -> "xr.Dataset":
    """Accuracies of every run, beside the row."""
    import xarray as xr

    return xr.Dataset(
        {
            "top1": ("run", found.top1),
            "mean_per_class": ("run", found.mean_per_class),
            "chosen_strength": ("run", found.strengths),
            "validation_top1": (("run", "strength"), found.validation),
        },
        coords={"strength": STRENGTHS},
    )
