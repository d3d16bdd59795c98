"""One training as Lightning sees it, what is recorded of it, and what is kept."""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from ce_align import __version__
from ce_align.errors import CeAlignError
from ce_align.trainer.data import digested
from ce_align.trainer.distributed import Group
from ce_align.trainer.line import draw_weight, move_to, ordinary_state, spread
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
from ce_align.trainer.networks import (
    MomentumCopy,
    PairedNetwork,
    classifier_of,
    region_layers,
    set_group,
)
from ce_align.trainer.objectives import (
    LossTerms,
    combined_loss,
    find_objective,
    gradient_norms,
    gradient_share,
)
from ce_align.trainer.optim import LARS, base_learning_rate, learning_rate_share
from ce_align.trainer.presets import AUTHORS_PROCESSES, LOG_EVERY, TrainConfig
from ce_align.trainer.views import Batch, PixelBatch

__all__ = [
    "EXPORTED",
    "FiniteGuard",
    "PairedTraining",
    "Speedometer",
    "epoch_line",
    "exported_metadata",
    "exported_state",
]

#: Images that the nearest neighbours are sought among, and that are classified.
N_BANK, N_VALIDATED = 2048, 2048
#: File in the folder of a training that names a network for every command.
EXPORTED = "model.safetensors"
#: Gradients are measured in so many first steps and every so many later ones where λ is
#: their share; a new ratio has this weight in the running one.
BALANCED_FIRST, BALANCED_EVERY, NEWEST = 10, 10, 0.2


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
    network, momentum, probe, equivariant : the latter three may be None; the last one
        is trained along to predict what augmentations do
    augmented_on : kind of device that renders the views
    latest : the numbers recorded last, by name
    running : logarithm of the ratio of both gradients' lengths, and logit of the share
        that the equivariant one had: means in which the past fades
    last_checkpoint : the last file that can be resumed from, for messages
    drawn : λ of this step, and the place of the networks; None if it is always the same
    guard : stops at a loss that is not finite
    bank, validation : labelled images for nearest neighbours and probe, or None
    probed : (2,) views of this epoch that the probe named rightly, each before it
        learned from it, and all of them; None before the first step or without probe
    notify : called with one line an epoch
    online : called with the training at the end of an epoch, for further numbers

    Raises
    ------
    ConfigError
        If there is no such objective, option or backbone, or the warm-up does not fit.
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
        self.objective = find_objective(config.objective).configured(**config.options)
        self.learning_rate(0)  # raises if settings do not fit
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = PairedNetwork.build(config.backbone, self.objective)
            n_features = next(network.head_invariant.parameters()).shape[1]
            self.probe = (
                nn.Linear(n_features, n_classes) if n_classes and config.probe else None
            )
            self.equivariant = (
                self.objective.equivariant(self.objective.head_widths[-1])
                if self.objective.equivariant and config.equivariance_weight
                else None
            )
        self.drawn: float | None = None
        if config.weighting == "drawn":
            spread(network)
            self.drawn = 0.0
        ema = self.objective.ema
        self.momentum = None if ema is None else MomentumCopy(network, ema)
        self.network = network.to(memory_format=torch.channels_last)
        # A term of weight 0 is not computed: its head would wait for gradients.
        network.head_invariant.requires_grad_(config.equivariance_weight < 1)
        network.head_equivariant.requires_grad_(config.equivariance_weight > 0)
        self.group: Group = None
        self.latest: dict[str, float] = {}
        self.running: dict[str, float] = {}
        self.loss: Tensor | float = math.nan
        self.last_checkpoint: str | None = None
        self.notify: Callable[[str], None] = lambda text: None
        self.online: Callable[[PairedTraining], dict[str, float]] | None = None
        self.bank: Labelled | None = None
        self.validation: Labelled | None = None
        self.guard = FiniteGuard(steps_per_epoch)
        self.augmented_on = "cpu"
        self._seen: tuple[Tensor, Tensor] | None = None
        self.probed: Tensor | None = None
        self.images_per_step = 2 * config.pairs_per_step
        self._speed = Speedometer(self.images_per_step)

    @property
    def peak_rate(self) -> float:
        """Learning rate at the end of the warm-up."""
        config = self.config
        return config.learning_rate or base_learning_rate(config.pairs_per_step)

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over all epochs."""
        config, each = self.config, self.steps_per_epoch
        return self.peak_rate * learning_rate_share(
            step,
            max(config.epochs, 1) * each,
            config.warmup_epochs * each,
            config.final_share,
        )

    @property
    def balanced(self) -> bool:
        """Whether λ is a share of gradients, and both terms have one."""
        return (
            self.config.weighting == "gradients"
            and 0 < self.config.equivariance_weight < 1
        )

    @property
    def loss_weight(self) -> float:
        """Weight of the equivariant loss in this step."""
        if self.drawn is not None:
            return self.drawn
        weight = self.config.equivariance_weight
        if not self.balanced or "log_ratio" not in self.running:
            return weight
        return gradient_share(weight, math.exp(-self.running["log_ratio"]))

    def move_to(self, weight: float) -> None:
        """Make the networks those of λ, where one serves all."""
        self.drawn = weight
        for network in filter(None, (self.network, self.momentum)):
            move_to(network, weight / self.config.equivariance_weight)

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
        config, rate = self.config, self.peak_rate
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
                group["lr"] = self.learning_rate(self.global_step)

    def loss_terms(self, batch: Batch) -> tuple[LossTerms, Tensor, Tensor]:
        """Loss of a batch.

        With the features (4, n_pairs, n_features) and the invariant embeddings
        (4, n_pairs, d).
        """
        if self.drawn is not None:
            largest, step = self.config.equivariance_weight, int(self.global_step)
            self.move_to(draw_weight(largest, self.config.seed, step))
        images = normalise_pixels(batch.views.flatten(0, 1))
        embeddings = self.network(images)
        own = None
        if self.equivariant is not None:
            own = partial(
                self.equivariant, parameters=batch.parameters, group=self.group
            )
        followed = None if self.momentum is None else self.momentum(images)
        terms = combined_loss(
            self.objective,
            embeddings.invariant,
            embeddings.equivariant,
            self.loss_weight,
            momentum_invariant=None if followed is None else followed.invariant,
            momentum_equivariant=None if followed is None else followed.equivariant,
            equivariant_loss=own,
            gradient_shares=(
                AUTHORS_PROCESSES if self.config.gradient == "authors" else 1
            ),
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
        terms, features, embeddings = self.loss_terms(batch)
        step = int(self.global_step)
        self.guard.check(step, terms, self.last_checkpoint)
        self.loss = terms.total.detach()
        self._seen = features.detach().flatten(0, 1), embeddings.detach().flatten(0, 1)
        recorded: dict[str, float] = {}
        last = (step + 1) % self.steps_per_epoch == 0
        records = step % self.log_every == 0 or last
        balances = self.balanced and (
            step < BALANCED_FIRST or step % BALANCED_EVERY == 0
        )
        if records or balances:
            backbone = self.network.backbone.parameters()
            lengths = gradient_norms(terms, backbone, group=self.group)
            if balances or not (self.balanced or self.drawn is not None):
                self._follow(lengths)
            if balances:
                both = terms.invariant, terms.equivariant
                terms = LossTerms.weighted(*both, self.loss_weight)
                self.loss = terms.total.detach()
            if records:
                recorded = self._step_numbers(terms, lengths)
        total = terms.total
        if self.probe is not None:
            outputs = self.probe(self._seen[0])
            # Views 1A, 1B, 2A, 2B: two of either image.
            wanted = batch.labels.mT.repeat_interleave(2, dim=0).flatten()
            right = (outputs.detach().argmax(1) == wanted).sum()
            counts = torch.stack([right, torch.full_like(right, len(wanted))])
            if step % self.steps_per_epoch and self.probed is not None:
                counts += self.probed.to(counts)
            self.probed = counts
            if recorded:
                top1, top5 = top_accuracies(outputs.detach(), wanted)
                recorded |= {"probe_train_top1": top1, "probe_train_top5": top5}
            total = total + nn.functional.cross_entropy(outputs.float(), wanted)
        if recorded:
            self.record(recorded)
        return total

    def _follow(self, lengths: tuple[float, float]) -> None:
        """Bring the running means up to date with the lengths of both gradients."""
        of_views, of_changes = lengths
        if not (0 < of_views < math.inf and 0 < of_changes < math.inf):
            return

        def follow(name: str, value: float) -> None:
            before = self.running.get(name, value)
            self.running[name] = before + NEWEST * (value - before)

        log_ratio = math.log(of_changes / of_views)
        follow("log_ratio", log_ratio)
        weight = self.loss_weight
        follow("logit_share", math.log(weight / (1 - weight)) + log_ratio)

    def _step_numbers(
        self, terms: LossTerms, lengths: tuple[float, float]
    ) -> dict[str, float]:
        """Loss, its terms, lengths and shares of gradients; learning rate and speed."""
        step = int(self.global_step)
        found = {} if not self.balanced else {"loss_weight": self.loss_weight}
        if "logit_share" in self.running:
            share = 1 / (1 + math.exp(-self.running["logit_share"]))
            found["effective_weight"] = share
        return found | {
            "loss": _value_of(terms.total),
            "loss_invariant": _value_of(terms.invariant),
            "loss_equivariant": _value_of(terms.equivariant),
            "gradient_invariant": lengths[0],
            "gradient_equivariant": lengths[1],
            "learning_rate": self.learning_rate(step),
            "images_per_second": self._speed.read(step),
        }

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Move the network, and its momentum copy after it."""
        super().optimizer_step(*args, **kwargs)
        if self.momentum is not None:
            self.momentum.update(self.network)

    def record(self, numbers: dict[str, float]) -> None:
        """Keep numbers and hand those that are defined to the logger."""
        self.latest |= numbers
        if self.logger is not None:
            self.logger.log_metrics(_defined(numbers), step=int(self.global_step))

    def on_train_epoch_end(self) -> None:
        """Check the last loss; health of the representation, and what it can do."""
        self.guard.flush(self.last_checkpoint)
        numbers = {"epoch": float(self.current_epoch + 1)}
        if self.probed is not None:
            if self.group is not None:
                dist.all_reduce(self.probed, group=self.group)
            right, n = self.probed.tolist()
            numbers["probe_epoch_top1"] = right / n
        if not self.trainer.is_global_zero:
            return
        if self._seen is not None:
            features, embeddings = self._seen
            if warning := collapse_warning(features=features, embeddings=embeddings):
                self.notify(warning)
            numbers |= health_of(features, embeddings)
        if self.online is not None:
            numbers |= self.online(self)
        self.record(numbers | self.accuracies(N_VALIDATED))
        epochs = self.config.epochs
        self.notify(epoch_line(self.current_epoch + 1, epochs, self.latest))

    def accuracies(self, most: int | None = None) -> dict[str, float]:
        """Of nearest neighbours and probe, if there are labels.

        At most so many validation images are looked at; None for all.
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


class FiniteGuard:
    """Stops at a loss that is not finite; on a GPU one step late.

    Reading a loss there as soon as it is asked for would make the GPU wait for the
    next batch.
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
        if math.isfinite(_value_of(terms.total)):
            return
        raise CeAlignError(
            f"the loss is not finite at step {step} (epoch "
            f"{step // self._steps_per_epoch}): invariant "
            f"{_value_of(terms.invariant)}, equivariant "
            f"{_value_of(terms.equivariant)}; last good checkpoint: "
            f"{last_checkpoint or 'none yet'}; use --precision 32 or a lower learning "
            "rate"
        )


class Speedometer:
    """Images a second between two readings."""

    def __init__(self, images_per_step: int) -> None:
        self._images_per_step = images_per_step
        self._last: tuple[int, float] | None = None

    def restart(self, step: int) -> None:
        """Measure from here on."""
        self._last = step, time.perf_counter()

    def read(self, step: int) -> float:
        """Speed since the last reading; NaN if there was none, or no step since."""
        now, last = time.perf_counter(), self._last
        self._last = step, now
        if last is None or step <= last[0]:
            return math.nan
        return self._images_per_step * (step - last[0]) / (now - last[1])


def _value_of(term: Tensor | None) -> float:
    """Value of a () term; NaN for one that was not computed."""
    return math.nan if term is None else float(term.detach())


def _defined(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


#: What a line after an epoch says; the log has every number.
TOLD = {
    "loss": "loss",
    "probe_epoch_top1": "probe top-1",
    "probe_top1": "on validation",
    "knn_top1": "kNN top-1",
    "effective_rank": "rank",
    "online_predictivity": "predictivity",
}


def epoch_line(epoch: int, epochs: int, numbers: Mapping[str, float]) -> str:
    """One line of the numbers after an epoch that fit a terminal, counted from 1."""
    known = _defined(numbers)
    named = (f"{TOLD[name]} {known[name]:.3g}" for name in TOLD if name in known)
    return f"epoch {epoch} of {epochs}: {', '.join(named)}"


def exported_state(module: PairedTraining) -> dict[str, Tensor]:
    """Weights of the backbone by its own names; the probe is its classifier."""
    backbone = module.network.backbone
    on_line = module.drawn is not None
    state = ordinary_state(backbone) if on_line else dict(backbone.state_dict())
    if module.probe is not None:
        head = classifier_of(backbone)
        state |= {f"{head}.{name}": t for name, t in module.probe.state_dict().items()}
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
        trained. ``effective_weight`` is the share that the equivariant gradient had of
        both, weighted: the λ that acted, a mean in which the past fades
    """
    config = module.config
    return {
        "architecture": config.backbone,
        "input_size": config.view_size,
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "layers": region_layers(module.network.backbone),
        "config": config.model_dump(mode="json")
        | ({} if module.drawn is None else {"equivariance_weight": module.drawn}),
        "data_digest": data,
        "data_digest_of": digested(n_images),
        "epochs": int(module.global_step) // module.steps_per_epoch,
        "steps": int(module.global_step),
        "augmented_on": module.augmented_on,
        "metrics": {k: v for k, v in metrics.items() if math.isfinite(v)},
        "version": __version__,
    }
