"""What a training, its plan and an untrained network begin with alike."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ce_align.data.imagesets import ImageSet
from ce_align.errors import ConfigError
from ce_align.trainer.hardware import Hardware, augments_on_device, resolve_devices
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.online import Labelled
from ce_align.trainer.pairs import PairPlan
from ce_align.trainer.pixels import in_memory
from ce_align.trainer.presets import TrainConfig
from ce_align.trainer.views import (
    LABEL_COLUMNS,
    PairedViews,
    check_images,
    image_labels,
)

__all__ = ["Prepared"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Settings, images and devices that fit one another.

    Attributes
    ----------
    config : settings
    images : decoded, if they fit into memory
    labels, n_classes : class of each image; −1 and 0 without labels
    hardware : where and how
    kind, devices : of the processes on a machine
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
        """Look at everything before anything is written.

        Raises
        ------
        ConfigError, DataError
            If settings, images or devices do not fit.
        """
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
        """Which images meet in the steps of one process.

        Raises
        ------
        ConfigError
            If the images do not fill one step, or a step cannot be shared out.
        """
        config = self.config
        return PairPlan(
            len(self.images),
            config.pairs_per_step,
            config.seed,
            families=config.families,
            n_processes=self.n_processes,
            process=process,
            n_passes=config.accumulate,
        )

    def module(self, validation: ImageSet | None = None) -> PairedTraining:
        """The network with its first weights, which follow from the seed.

        Parameters
        ----------
        validation : labelled images for probe and nearest neighbours

        Raises
        ------
        ConfigError
            If settings do not fit, or the validation images have other classes.
        """
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


def _labelled_alike(validation: ImageSet, images: ImageSet) -> Labelled:
    """Validation images with the class numbers of the training images."""
    names, own = _class_names(images), _class_names(validation)
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    unknown = sorted(set(own) - numbers.keys())
    if unknown or not own:
        raise ConfigError(
            f"validation images {validation.identifier} have "
            f"{'the unknown class ' + unknown[0] if unknown else 'no classes'}; give "
            "folders of the same names as those of the training images"
        )
    labels = np.array([numbers[name] for name in own])
    return Labelled(in_memory(validation), labels)


def _class_names(images: ImageSet) -> list[str]:
    for column in LABEL_COLUMNS:
        if column in images.columns:
            return [str(name) for name in images.columns[column]]
    return []
