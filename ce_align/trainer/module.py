"""One training as Lightning sees it: step, optimiser, momentum copy, what is logged."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from ce_align import __version__
from ce_align.errors import CeAlignError
from ce_align.trainer.data import digested
from ce_align.trainer.distributed import Group
from ce_align.trainer.monitor import (
    MEAN,
    STD,
    Labelled,
    collapse_warning,
    evaluate,
    health_of,
    normalise_pixels,
    top_accuracies,
)
from ce_align.trainer.networks import MomentumCopy, PairedNetwork, set_group
from ce_align.trainer.objectives import (
    LossTerms,
    Objective,
    combined_loss,
    find_objective,
    gradient_norms,
)
from ce_align.trainer.optim import LARS, Schedule, base_learning_rate
from ce_align.trainer.presets import LOG_EVERY, TrainConfig
from ce_align.trainer.views import Batch, PixelBatch

__all__ = [
    "EXPORTED",
    "FiniteGuard",
    "PairedTraining",
    "Speedometer",
    "configured_objective",
    "defined",
    "epoch_line",
    "exported_metadata",
    "exported_state",
    "model_card",
    "step_numbers",
    "value_of",
]

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


def value_of(term: Tensor | None) -> float:
    """Value of a () term; NaN for one that was not computed."""
    return math.nan if term is None else float(term.detach())


class FiniteGuard:
    """Looks at the loss of every step; on a GPU one step late.

    Reading a loss there as soon as it is asked for would make the GPU wait for the
    next batch.

    Parameters
    ----------
    steps_per_epoch : to name the epoch of a step
    """

    def __init__(self, steps_per_epoch: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._pending: tuple[int, LossTerms] | None = None

    def check(self, step: int, terms: LossTerms, last_checkpoint: str | None) -> None:
        """Check this step on a CPU, the one before on a GPU.

        Raises
        ------
        CeAlignError
            If the loss is not finite: with step, terms and the last checkpoint.
        """
        if not terms.total.is_cuda:
            self._pending = step, terms
            self.flush(last_checkpoint)
            return
        self.flush(last_checkpoint)
        invariant, equivariant = (
            None if term is None else term.detach()
            for term in (terms.invariant, terms.equivariant)
        )
        self._pending = step, LossTerms(terms.total.detach(), invariant, equivariant)

    def flush(self, last_checkpoint: str | None) -> None:
        """Check the step that waits, if one does; raises as `check`."""
        if self._pending is None:
            return
        step, terms = self._pending
        self._pending = None
        if math.isfinite(value_of(terms.total)):
            return
        raise CeAlignError(
            f"the loss is not finite at step {step} (epoch "
            f"{step // self._steps_per_epoch}): invariant {value_of(terms.invariant)}, "
            f"equivariant {value_of(terms.equivariant)}; last good checkpoint: "
            f"{last_checkpoint or 'none yet'}; use --precision 32 or a lower learning "
            "rate"
        )


class Speedometer:
    """Images a second between two looks.

    Parameters
    ----------
    images_per_step : over all processes
    """

    def __init__(self, images_per_step: int) -> None:
        self._images_per_step = images_per_step
        self._last: tuple[int, float] | None = None

    def restart(self, step: int) -> None:
        """Measure from here on."""
        self._last = step, time.perf_counter()

    def read(self, step: int) -> float:
        """Speed since the last look; NaN if there was none, or no step since."""
        now, last = time.perf_counter(), self._last
        self._last = step, now
        if last is None or step <= last[0]:
            return math.nan
        return self._images_per_step * (step - last[0]) / (now - last[1])


def step_numbers(
    terms: LossTerms, parameters: Iterable[Tensor], group: Group
) -> dict[str, float]:
    """Loss, its terms and the lengths of their gradients; see `gradient_norms`."""
    of_views, of_changes = gradient_norms(terms, parameters, group=group)
    return {
        "loss": value_of(terms.total),
        "loss_invariant": value_of(terms.invariant),
        "loss_equivariant": value_of(terms.equivariant),
        "gradient_invariant": of_views,
        "gradient_equivariant": of_changes,
    }


def defined(numbers: Mapping[str, float]) -> dict[str, float]:
    """Those that are not NaN."""
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


def epoch_line(epoch: int, epochs: int, numbers: Mapping[str, float]) -> str:
    """What a person is told after an epoch, counted from 1."""
    named = (
        f"{name.replace('_', ' ')} {value:.4g}"
        for name, value in defined(numbers).items()
        if name != "epoch"
    )
    return f"epoch {epoch} of {epochs}: {', '.join(named)}"


#: File in the folder of a training that names a network for every command.
EXPORTED = "model.safetensors"
#: Stage of the residual network that stands for each region.
LAYERS = {"V1": "layer1", "V2": "layer2", "V4": "layer3", "IT": "layer4"}


def exported_state(module: PairedTraining) -> dict[str, Tensor]:
    """Weights of the backbone by torchvision's names; the probe is its ``fc``."""
    state: dict[str, Tensor] = dict(module.network.backbone.state_dict())
    if module.probe is not None:
        state |= {f"fc.{name}": t for name, t in module.probe.state_dict().items()}
    return state


def exported_metadata(
    module: PairedTraining, data: str, n_images: int, metrics: dict[str, float]
) -> dict[str, Any]:
    """What is needed to use the weights, and how they came to be.

    Parameters
    ----------
    module : at the end of its training
    data : digest of the images
    n_images : of the data set
    metrics : numbers at the end, by name. ``gradient_invariant`` and
        ``gradient_equivariant`` are lengths in the last step that was recorded, not
        weighted with λ; that of a term of weight 0 is not there, since its head is not
        trained
    """
    config = module.config
    return {
        "architecture": config.backbone,
        "input_size": config.view_size,
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "layers": LAYERS,
        "config": config.model_dump(mode="json"),
        "data_digest": data,
        "data_digest_of": digested(n_images),
        "epochs": int(module.global_step) // module.steps_per_epoch,
        "steps": int(module.global_step),
        "augmented_on": module.augmented_on,
        "metrics": {k: v for k, v in metrics.items() if math.isfinite(v)},
        "version": __version__,
    }


def model_card(name: str, metadata: dict[str, Any]) -> str:
    """A card for sharing: front matter, what it is, how to use it, what it scored."""
    config = metadata["config"]
    rows = "\n".join(f"| {k} | {v:.4g} |" for k, v in metadata["metrics"].items())
    return f"""---
library_name: ce-align
pipeline_tag: image-feature-extraction
---
# {name}

{config["backbone"]} trained for {metadata["epochs"]} epochs with the
{config["objective"]} objective at equivariance weight {config["equivariance_weight"]}
(contrastive-equivariant self-supervised learning), at {metadata["input_size"]} pixels.

The weights have torchvision's names; the metadata of the file hold normalisation,
layers, settings and the digest of the images. To score them:

    ce-align score --model {name}/{EXPORTED} --recording simulated

| measure at the end of training | value |
|---|---|
{rows}
"""
