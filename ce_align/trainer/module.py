"""One training as Lightning sees it: step, optimiser, momentum copy, what is logged."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from ce_align.errors import CeAlignError
from ce_align.trainer.batchnorm import set_group
from ce_align.trainer.equivariance import LossTerms, combined_loss
from ce_align.trainer.finite import FiniteGuard
from ce_align.trainer.gather import Group
from ce_align.trainer.health import collapse_warning, health_of
from ce_align.trainer.networks import MomentumCopy, PairedNetwork
from ce_align.trainer.objectives import Objective, find_objective
from ce_align.trainer.online import (
    Labelled,
    evaluate,
    normalise_pixels,
    top_accuracies,
)
from ce_align.trainer.optim import LARS, Schedule, base_learning_rate
from ce_align.trainer.presets import TrainConfig
from ce_align.trainer.records import Speedometer, defined, epoch_line, step_numbers
from ce_align.trainer.rendering import Batch, PixelBatch

__all__ = ["LOG_EVERY", "PairedTraining", "configured_objective"]

#: Steps between two records, which cost two further backward passes.
LOG_EVERY = 50
#: Images that the nearest neighbours are sought among, and that are classified.
N_BANK, N_VALIDATED = 2048, 2048


def configured_objective(config: TrainConfig) -> Objective:
    """The objective of a training with its options.

    Raises
    ------
    ConfigError
        If there is no such objective or option.
    """
    return find_objective(config.objective).configured(**config.options)


class PairedTraining(LightningModule):
    """A network with its heads, momentum copy and online probe, being trained.

    Parameters
    ----------
    config : settings; its seed decides the random weights
    steps_per_epoch : whole steps in an epoch
    n_classes : of the labels; 0 for none, and then no probe
    log_every : steps between two records

    Attributes
    ----------
    network, momentum, probe : the latter two may be None
    schedule : of the learning rate
    augmented_on : kind of device that renders the views
    latest : the numbers recorded last, by name
    last_checkpoint : the last file that can be resumed from, for messages
    guard : stops at a loss that is not finite
    bank, validation : labelled images for nearest neighbours and probe, or None
    notify : called with one line an epoch
    """

    def __init__(
        self,
        config: TrainConfig,
        steps_per_epoch: int,
        n_classes: int = 0,
        *,
        log_every: int = LOG_EVERY,
    ) -> None:
        super().__init__()
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.log_every = log_every
        self.objective = configured_objective(config)
        self.objective.check_passes(config.accumulate)
        self.schedule = Schedule(
            config.learning_rate or base_learning_rate(config.pairs_per_step),
            max(config.epochs, 1) * steps_per_epoch,
            config.warmup_epochs * steps_per_epoch,
            config.final_share,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = PairedNetwork.build(config.backbone, self.objective)
            n_features = next(network.head_invariant.parameters()).shape[1]
            self.probe = (
                nn.Linear(n_features, n_classes) if n_classes and config.probe else None
            )
        ema = self.objective.ema
        self.momentum = None if ema is None else MomentumCopy(network, ema)
        self.network = network.to(memory_format=torch.channels_last)
        # A term of weight 0 is not computed: its head would wait for gradients.
        network.head_invariant.requires_grad_(config.equivariance_weight < 1)
        network.head_equivariant.requires_grad_(config.equivariance_weight > 0)
        self.group: Group = None
        self.latest: dict[str, float] = {}
        self.last_checkpoint: str | None = None
        self.notify: Callable[[str], None] = lambda text: None
        self.bank: Labelled | None = None
        self.validation: Labelled | None = None
        self.guard = FiniteGuard(steps_per_epoch)
        self.augmented_on = "cpu"
        self._features: Tensor | None = None
        self._embeddings: Tensor | None = None
        self._speed = Speedometer(2 * config.pairs_per_step)

    @property
    def peak_rate(self) -> float:
        """Learning rate at the end of the warm-up."""
        return self.schedule.peak

    def position(self) -> tuple[int, int]:
        """Epoch and step that come next."""
        epoch, step = divmod(int(self.global_step), self.steps_per_epoch)
        return epoch, step

    def setup(self, stage: str) -> None:
        """Join the batch statistics and losses of all processes."""
        if self.trainer.world_size > 1:
            self.group = dist.group.WORLD
            set_group(self, self.group)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """LARS or AdamW on everything that receives gradients."""
        config, rate = self.config, self.schedule.peak
        trained = [p for p in self.parameters() if p.requires_grad]
        if config.optimizer == "adamw":
            return torch.optim.AdamW(
                trained, lr=rate, weight_decay=config.weight_decay, fused=True
            )
        return LARS(trained, rate, config.momentum, config.weight_decay)

    def on_train_epoch_start(self) -> None:
        """Measure speed from here: what an epoch ends with takes time of its own."""
        self._speed.restart(int(self.global_step))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Render the views here, if pixels came instead."""
        if isinstance(batch, PixelBatch):
            return batch.rendered(self.config.view_size)
        return batch

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate, which follows from the step alone."""
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.schedule.rate(self.global_step)

    def loss_terms(self, views: Tensor) -> tuple[LossTerms, Tensor, Tensor]:
        """Loss of a step, its features and its invariant embeddings.

        Parameters
        ----------
        views : (4, n_pairs, size, size, 3) uint8

        Returns
        -------
        terms, (4, n_pairs, n_features), (4, n_pairs, d)
        """
        images = normalise_pixels(views.flatten(0, 1))
        embeddings = self.network(images)
        followed = None if self.momentum is None else self.momentum(images)
        terms = combined_loss(
            self.objective,
            embeddings.invariant,
            embeddings.equivariant,
            self.config.equivariance_weight,
            momentum_invariant=None if followed is None else followed.invariant,
            momentum_equivariant=None if followed is None else followed.equivariant,
            group=self.group,
        )
        return terms, embeddings.features, embeddings.invariant

    def training_step(self, batch: Batch | CeAlignError, batch_idx: int) -> Tensor:
        """Loss of one step, with that of the probe on detached features.

        Raises
        ------
        CeAlignError
            If the images could not be read, or the loss is not finite.
        """
        if isinstance(batch, CeAlignError):
            raise batch
        terms, features, embeddings = self.loss_terms(batch.views)
        self.guard.check(int(self.global_step), terms, self.last_checkpoint)
        self._features, self._embeddings = features.detach(), embeddings.detach()
        recorded: dict[str, float] = {}
        step = int(self.global_step)
        last = (step + 1) % self.steps_per_epoch == 0
        first_pass = batch_idx % self.config.accumulate == 0
        if first_pass and (step % self.log_every == 0 or last):
            recorded = step_numbers(
                terms, self.network.backbone.parameters(), self.group
            )
            recorded["learning_rate"] = self.schedule.rate(step)
            recorded["images_per_second"] = self._speed.read(step)
        total = terms.total
        if self.probe is not None:
            total = total + self._probe_loss(batch.labels, recorded)
        if recorded:
            self.record(recorded)
        return total

    def _probe_loss(self, labels: Tensor, recorded: dict[str, float]) -> Tensor:
        """Cross entropy of the probe over all four views."""
        if self.probe is None or self._features is None:
            return torch.zeros(())
        outputs = self.probe(self._features.flatten(0, 1))
        # Views 1A, 1B, 2A, 2B: two of either image.
        wanted = labels.mT.repeat_interleave(2, dim=0).flatten()
        if recorded:
            top1, top5 = top_accuracies(outputs.detach(), wanted)
            recorded |= {"probe_train_top1": top1, "probe_train_top5": top5}
        return nn.functional.cross_entropy(outputs.float(), wanted)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Move the network, and its momentum copy after it."""
        super().optimizer_step(*args, **kwargs)
        if self.momentum is not None:
            self.momentum.update(self.network)

    def record(self, numbers: dict[str, float]) -> None:
        """Keep numbers and hand those that are defined to the logger."""
        self.latest |= numbers
        if self.logger is not None:
            self.logger.log_metrics(defined(numbers), step=int(self.global_step))

    def on_train_epoch_end(self) -> None:
        """Check the last loss; health of the representation, and what it can do."""
        self.guard.flush(self.last_checkpoint)
        if not self.trainer.is_global_zero:
            return
        epoch = {"epoch": float(self.current_epoch + 1)}
        self.record(epoch | self.health() | self.accuracies(N_VALIDATED))
        epochs = self.config.epochs
        self.notify(epoch_line(self.current_epoch + 1, epochs, self.latest))

    def health(self) -> dict[str, float]:
        """Of the representation in the last step; a collapse is told to the user."""
        if self._features is None or self._embeddings is None:
            return {}
        seen = self._features.flatten(0, 1), self._embeddings.flatten(0, 1)
        if warning := collapse_warning(features=seen[0], embeddings=seen[1]):
            self.notify(warning)
        return health_of(*seen)

    def accuracies(self, most: int | None = None) -> dict[str, float]:
        """Of nearest neighbours and probe, if there are labels.

        Parameters
        ----------
        most : validation images to look at; None for all
        """
        if self.bank is None:
            return {}
        validation = self.validation
        if validation is not None and most is not None:
            validation = validation.evenly(most)
        return evaluate(
            self.network.backbone,
            self.probe,
            self.bank.evenly(N_BANK),
            validation,
            size=self.config.view_size,
            device=self.device,
        )
