"""Predictivity of a network while it is trained, on one recording."""

import time
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ce_align.data.recordings import load_recording
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

#: Images in one pass, and the share of the time above which a word is said.
BATCH, LARGE_SHARE = 128, 0.02


class OnlineScore:
    """Scores the network after every so many epochs, and after the last.

    The number is that of ``ce-align score`` for the network of that moment: the same
    images, and the layer that stands for the region. Of several regions IT is scored,
    or else the last.

    Parameters
    ----------
    recording : name
    size : of the images that the network sees, in pixels
    every : epochs

    Raises
    ------
    ConfigError, DataError
        If there is no such recording, or it cannot be scored.
    """

    def __init__(self, recording: str, size: int, every: int) -> None:
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
        self._began, self._seconds, self._told = time.perf_counter(), 0.0, False

    def __call__(self, module: PairedTraining) -> dict[str, float]:
        """``online_predictivity`` (raw r where there is no ceiling), if it is due."""
        epoch = module.current_epoch + 1
        if epoch % self.every and epoch != module.config.epochs:
            return {}
        start = time.perf_counter()
        features = self._features(module).numpy()
        gram = partial(centred_gram, features, dtype=self._config.gram_dtype)
        (r,) = predict([self._target], features, self._config, gram)
        row, *_ = self._target.scored(r, self._config)
        now = time.perf_counter()
        self._seconds += now - start
        share = self._seconds / (now - self._began)
        if share > LARGE_SHARE and not self._told:
            self._told = True
            module.notify(
                f"scoring {self._config.recording} takes {share:.0%} of the time; "
                f"score less often (--score-every {2 * self.every}) or a smaller one"
            )
        value = row.raw if row.value is None else row.value
        return {"online_predictivity": float(value)}

    def _features(self, module: PairedTraining) -> Tensor:
        """(n_stimuli, n_features) of the region's layer, in evaluation mode."""
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
                for pixels in torch.split(self._pixels, BATCH):
                    backbone(normalise_pixels(pixels.to(module.device)))
        finally:
            hook.remove()
            backbone.train(training)
        return torch.cat(parts)
