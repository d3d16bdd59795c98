"""Predictivity of a network while it is trained, on one recording."""

import math
import time
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ce_align.data.named import load_recording
from ce_align.errors import ConfigError
from ce_align.metrics.gram import centred_gram
from ce_align.models.preprocessing import Preprocessing
from ce_align.stages.score import VISUAL_DEGREES
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.targets import Target, predict
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.monitor import MEAN, STD, normalise_pixels
from ce_align.trainer.networks import region_layers

__all__ = ["OnlineScore"]

#: Images in one pass, and the share of the time that scores may take.
BATCH, SHARE = 128, 0.02


class OnlineScore:
    """Scores the network as it learns, and after the last epoch.

    The number is that of ``ce-align score`` for the network of that moment: the same
    images, and the layer that stands for the region. Of several regions IT is scored,
    or else the last.

    Parameters
    ----------
    recording : name
    size : of the images that the network sees, in pixels
    every : epochs between scores; None for as few as take 2 % of the time, by what
        epochs and scores took so far

    Raises
    ------
    ConfigError, DataError
        If there is no such recording, or it cannot be scored.
    """

    def __init__(self, recording: str, size: int, every: int | None) -> None:
        found = load_recording(recording)
        self.region = "IT" if "IT" in found.regions else found.regions[-1]
        if len(found.regions) > 1:
            found = found.select(region=self.region)
        self.every = every
        self._config = ScoreConfig(model="training", recording=recording, layer="")
        self._target = Target.of(found, self._config)
        fed = Preprocessing(
            input_size=size, mean=MEAN, std=STD, interpolation="bicubic"
        )
        images = found.images.on_screen(found.degrees, VISUAL_DEGREES)
        pixels = [fed.resize(images.load(i)) for i in range(len(images))]
        self._pixels = torch.from_numpy(np.stack(pixels))
        self._began, self._spent, self._told = time.perf_counter(), 0.0, False
        self._first: int | None = None  # epoch of this process
        self._last, self._cost = 0, 0.0  # epoch and seconds of the last score
        self._trial = 0.0  # seconds

    def __call__(self, module: PairedTraining) -> dict[str, float]:
        """``online_predictivity`` (raw r where there is no ceiling), if it is due."""
        epoch = module.current_epoch + 1
        if not self._due(module, epoch):
            return {}
        start = time.perf_counter()
        features = self._features(module, self._pixels).numpy()
        gram = partial(centred_gram, features, dtype=self._config.gram_dtype)
        (r,) = predict([self._target], features, self._config, gram)
        row, *_ = self._target.scored(r, self._config)
        now = time.perf_counter()
        self._last, self._cost = epoch, now - start
        self._spent += self._cost
        share = self._spent / (now - self._began)
        # Spaced by their cost, a first score is above its share until the next is due.
        final = self.every is not None or epoch == module.config.epochs
        if final and share > SHARE and not self._told:
            self._told = True
            remedy = f"--score-every {2 * self.every}, or " if self.every else ""
            module.notify(
                f"scoring {self._config.recording} takes {share:.0%} of the time; "
                f"take {remedy}a smaller recording"
            )
        value = row.raw if row.value is None else row.value
        return {"online_predictivity": float(value)}

    def _due(self, module: PairedTraining, epoch: int) -> bool:
        """Whether to score after this epoch: the last, and others evenly before it."""
        epochs = module.config.epochs
        if epoch == epochs:
            return True
        if self.every:
            return epoch % self.every == 0
        now = time.perf_counter()
        if self._first is None:
            # No score has been taken: one batch tells what it will cost.
            self._first = epoch
            self._features(module, self._pixels[:BATCH])
            self._spent = self._trial = time.perf_counter() - now
            self._cost = self._trial * max(1.0, len(self._pixels) / BATCH)
        whole = (now - self._began) * epochs / (epoch - self._first + 1)
        affordable = max(1, int((SHARE * whole - self._trial) / self._cost))
        every = math.ceil(epochs / affordable)
        return (epochs - epoch) % every == 0 and epoch - self._last >= every

    def _features(self, module: PairedTraining, images: Tensor) -> Tensor:
        """(n_images, n_features) of the region's layer, in evaluation mode."""
        backbone = module.network.backbone
        layers = region_layers(backbone)
        if self.region not in layers:
            raise ConfigError(
                f"no layer of {module.config.backbone} is known to stand for "
                f"{self.region}; leave --recording out and use `ce-align score --layer`"
            )
        parts: list[Tensor] = []
        hook = backbone.get_submodule(layers[self.region]).register_forward_hook(
            lambda _, __, output: parts.append(output.flatten(1).float().cpu())
        )
        training = backbone.training
        backbone.eval()
        try:
            with torch.no_grad():
                for pixels in torch.split(images, BATCH):
                    backbone(normalise_pixels(pixels.to(module.device)))
        finally:
            hook.remove()
            backbone.train(training)
        return torch.cat(parts)
