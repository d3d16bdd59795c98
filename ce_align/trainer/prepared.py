"""What a training starts from: images, plan, network and views."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ce_align.data.imagesets import ImageSet
from ce_align.errors import CeAlignError, ConfigError
from ce_align.trainer.data import check_images, class_names, image_labels, in_memory
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.monitor import Labelled, normalise_pixels
from ce_align.trainer.presets import (
    Hardware,
    TrainConfig,
    augments_on_device,
    resolve_devices,
)
from ce_align.trainer.views import Batch, PairedViews, PairPlan, PixelBatch, Step

__all__ = ["Prepared"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Settings, images and devices that fit one another.

    `images` are decoded, if they fit into memory; `labels` are −1 where there are none,
    with 0 classes. `kind` and `devices` are those of the processes on a machine.
    """

    config: TrainConfig
    images: ImageSet
    labels: NDArray[np.int64]
    n_classes: int
    hardware: Hardware
    kind: str
    devices: int

    @classmethod
    def of(cls, config: TrainConfig, images: ImageSet, hardware: Hardware) -> Self:
        """Look at everything before anything is written."""
        kind, devices = resolve_devices(hardware)
        if config.precision == "fp16" and kind == "cpu":
            raise ConfigError("fp16 needs a GPU; use --precision bf16 or 32")
        augments_on_device(hardware, kind)
        check_images(images, config.view_size)
        labels, n_classes = image_labels(images)
        found = cls(config, images, labels, n_classes, hardware, kind, devices)
        found.plan()
        return replace(found, images=in_memory(images))

    @property
    def n_processes(self) -> int:
        """Processes on all machines."""
        return self.devices * self.hardware.nodes

    def plan(self, process: int = 0) -> PairPlan:
        """Which images meet in the steps of one process."""
        config = self.config
        return PairPlan(
            len(self.images),
            config.pairs_per_step,
            config.seed,
            families=config.families,
            n_processes=self.n_processes,
            process=process,
        )

    def module(self, validation: ImageSet | None) -> PairedTraining:
        """The network with its first weights, which follow from the seed."""
        module = PairedTraining(
            self.config,
            self.plan().steps_per_epoch,
            self.n_classes,
            log_every=self.hardware.log_every,
        )
        on_device = augments_on_device(self.hardware, self.kind)
        module.augmented_on = self.kind if on_device else "cpu"
        if self.n_classes:
            module.bank = Labelled(self.images, self.labels)
            if validation is not None:
                module.validation = _labelled_alike(validation, self.images)
        return module

    def views(self, plan: PairPlan) -> PairedViews:
        """The views of the steps of `plan`."""
        return PairedViews(
            self.images,
            plan,
            self.labels,
            self.config.view_size,
            on_device=augments_on_device(self.hardware, self.kind),
        )

    def first_images(self, n_views: int) -> Iterator[Tensor]:
        """Normalised views of the first steps, (4 * n_pairs, 3, height, width).

        As many steps as have `n_views` of them, but for those of later epochs; whole
        ones, on one process.
        """
        plan = replace(self.plan(), n_processes=1)
        views, enough = self.views(plan), -(-n_views // (4 * plan.pairs_per_step))
        for step in range(min(plan.steps_per_epoch, enough)):
            yield normalise_pixels(self.on_device(views[0, step]).views.flatten(0, 1))

    def on_device(self, batch: Step) -> Batch:
        """A batch where the network is, its views rendered."""
        if isinstance(batch, CeAlignError):
            raise batch
        if isinstance(batch, PixelBatch):
            return batch.to(self.kind).rendered(self.config.view_size)
        return Batch(*(tensor.to(self.kind) for tensor in batch))


def _labelled_alike(validation: ImageSet, images: ImageSet) -> Labelled:
    """Validation images with the class numbers of the training images."""
    own = class_names(validation)
    numbers = {name: i for i, name in enumerate(sorted(set(class_names(images))))}
    unknown = sorted(set(own) - numbers.keys())
    if unknown or not own:
        raise ConfigError(
            f"validation images {validation.identifier} have "
            f"{'the unknown class ' + unknown[0] if unknown else 'no classes'}; give "
            "folders of the same names as those of the training images"
        )
    return Labelled(in_memory(validation), np.array([numbers[name] for name in own]))
