"""What the layers of a network answer to two fixed images.

Weights and code say what a network should do; the answers say what it does. They are
kept in a short form beside everything that is computed from a network, and compared
before it is used again. The same passes tell networks that are random, that mix the
images of a batch, or whose outputs do not have the images on their first axis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ce_align.checks import named_some
from ce_align.errors import DataError
from ce_align.models.activations import ActivationReader, first_tensor, network_inputs
from ce_align.models.preprocessing import Preprocessing
from ce_align.results import UNKNOWN_CONTENT

__all__ = ["Behaviour", "Look", "Probe", "look", "probe_pixels"]

#: Numbers that the answer to one image is reduced to.
BUCKETS = 64

#: What is rounding, by the precision of an answer: this share of the difference between
#: the two images, or a hundredth of it of the answer's size. In float32, other batches,
#: processors and devices were seen to move answers by 1e-6 of their size.
TOLERANCES = {"float16": 0.03, "bfloat16": 0.2}
TOLERANCE = 1e-3
FLOOR = 0.01


def probe_pixels(height: int, width: int) -> NDArray[np.uint8]:
    """The two fixed images, (2, height, width, 3).

    Coarse fields of colour with fine noise, so that every stage of a network answers;
    the second has less contrast and other extremes. The same on every machine.
    """
    images = []
    for seed, (low, high, noise) in enumerate([(0, 192, 64), (48, 144, 24)], 1):
        rng = np.random.Generator(np.random.PCG64(seed))
        coarse = rng.integers(low, high, (7, 7, 3))
        rows, columns = (np.arange(n) * 7 // n for n in (height, width))
        fine = rng.integers(0, noise, (height, width, 3))
        images.append(coarse[rows][:, columns] + fine)
    pixels: NDArray[np.uint8] = np.stack(images).astype(np.uint8)
    return pixels


@dataclass(frozen=True)
class Behaviour:
    """Answers of a layer to the probe images, in short.

    Attributes
    ----------
    precision : type of the numbers that the layer gives
    width : numbers that the layer gives for an image
    sketch : (2, 64), sums of the answer to each image with fixed signs
    """

    precision: str
    width: int
    sketch: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, answers: torch.Tensor) -> Self:
        """Behaviour of answers (2, ...), one for each image."""
        flat = answers.reshape(len(answers), -1).double().cpu().numpy()
        width = flat.shape[1]
        index = np.arange(width, dtype=np.uint64)
        # Knuth's multiplicative hash: signs without a generator that might change.
        hashed = (index * np.uint64(2654435761)) >> np.uint64(17)
        signed = np.where(hashed & np.uint64(1), flat, -flat)
        padded = np.pad(signed, ((0, 0), (0, -width % BUCKETS)))
        sums = padded.reshape(len(flat), -1, BUCKETS).sum(axis=1)
        precision = str(answers.dtype).removeprefix("torch.")
        sketch = tuple(tuple(float(f"{x:.7g}") for x in row) for row in sums)
        return cls(precision, width, sketch)

    def agrees(self, other: "Behaviour") -> bool:
        """Whether two behaviours are one network's, up to rounding."""
        if (self.precision, self.width) != (other.precision, other.width):
            return False
        ours, theirs = np.array(self.sketch), np.array(other.sketch)
        return _close(ours - theirs, theirs, self.precision)

    def document(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "precision": self.precision,
            "width": self.width,
            "sketch": [list(row) for row in self.sketch],
        }

    @classmethod
    def read(cls, document: Any) -> Self | None:
        """What was stored; None if it is no behaviour."""
        try:
            sketch = np.array(document["sketch"], dtype=np.float64)
            if sketch.ndim != 2 or sketch.shape[1] != BUCKETS:
                return None
            rows = tuple(tuple(row) for row in sketch.tolist())
            return cls(str(document["precision"]), int(document["width"]), rows)
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True, eq=False)
class Probe:
    """What a network is at the moment, and what can be said of its layers.

    Attributes
    ----------
    digest : of weights, architecture, attributes, code and preprocessing
    unknown : parts of the network whose content cannot be told; with any of them,
        nothing is taken from a cache or store, nor kept in a cache
    behaviours : answers of each layer that can be read
    axes : axis of images in the output of each layer
    failures : layers that cannot be measured, and why
    marks : layers that are measured although their answers are not the image's alone,
        and why they are not
    origin : what rows must say of where the weights are from; mostly nothing
    """

    digest: str
    unknown: tuple[str, ...]
    behaviours: Mapping[str, Behaviour]
    axes: Mapping[str, int]
    failures: Mapping[str, DataError]
    marks: Mapping[str, str]
    origin: str = ""

    def behaviour(self, layer: str) -> Behaviour | None:
        """Behaviour by which what is kept is known again; None if nothing is kept."""
        if self.unknown or layer in self.marks:
            return None
        return self.behaviours.get(layer)

    def note(self, layer: str) -> str | None:
        """What a row of the layer must say of the network; None if nothing."""
        notes = [text for text in (self.marks.get(layer), self.origin) if text]
        if self.unknown:
            held = named_some(self.unknown)
            notes.append(f"computed anew each time, for {UNKNOWN_CONTENT}: {held}")
        return "; ".join(notes) or None


@dataclass(frozen=True, eq=False)
class Look:
    """What one look at layers found; see `Probe`."""

    behaviours: dict[str, Behaviour]
    axes: dict[str, int]
    failures: dict[str, DataError]
    marks: dict[str, str]


class _RawReader(ActivationReader):
    """Reads outputs as they are, with the images on whatever axis."""

    def _summary(self, output: Any, layer: str) -> torch.Tensor | DataError:
        try:
            found = first_tensor(output, layer)
            if found.is_quantized:
                found = found.dequantize()
            # A copy: later layers may work in place.
            return found.detach().clone()
        except DataError as error:
            return error


def look(
    module: nn.Module,
    preprocessing: Preprocessing,
    layers: Sequence[str],
    *,
    name: str,
    allow_unstable: bool = False,
) -> Look:
    """Show the probe images to a network, together and each alone.

    Parameters
    ----------
    module : in evaluation mode; its own device is used
    preprocessing : how it is fed
    layers : names of its parts
    name : of the network, for messages
    allow_unstable : mark layers whose answers are random or depend on the batch, and
        measure them nevertheless

    Raises
    ------
    DataError
        If the network cannot be shown the images at all.
    """
    height, width = preprocessing.size
    device = next((str(p.device) for p in module.parameters()), "cpu")
    found = Look({}, {}, {}, {})

    def fail(layer: str, error: DataError) -> None:
        found.failures[layer] = DataError(f"{name}: {error}")

    with _RawReader(module, layers, on_error=fail) as read:
        try:
            pixels = probe_pixels(height, width)
            inputs = network_inputs(module, preprocessing, pixels, device)
            together = read(inputs)
            if not together:
                return found
            alone = [_one_alone(read, inputs[k : k + 1]) for k in (0, 1)]
        except DataError as error:
            raise type(error)(f"{name}: {error}") from error
        again: dict[str, torch.Tensor] = {}
        for layer, answers in together.items():
            if layer in found.failures:
                continue
            try:
                axis = _image_axis(answers, alone[0][layer], layer)
                two, one, other = (
                    a.movedim(axis, 0)
                    for a in (answers, alone[0][layer], alone[1][layer])
                )
                if not torch.isfinite(two).all():
                    raise DataError(
                        f"layer {layer} gives NaN or infinity; look at its weights"
                    )
                # The second, too: what comes first may not depend on what follows.
                if not (_same(one, two, two) and _same(other, two, two[1:])):
                    again = again or read(inputs[:1])
                    steady = _same(again[layer].movedim(axis, 0), two, one)
                    mark = f"layer {layer} {BATCH if steady else RANDOM}"
                    if not allow_unstable:
                        raise DataError(f"{mark}; {REMEDY}")
                    found.marks[layer] = mark
            except DataError as error:
                fail(layer, error)
                continue
            found.behaviours[layer] = Behaviour.of(two)
            found.axes[layer] = axis
    return found


BATCH = "depends on the other images of its batch"
RANDOM = "is random: one image gives different answers"
REMEDY = (
    "put the network into evaluation mode or take that part out, or measure it as it "
    "is with --allow-unstable"
)


def _one_alone(read: _RawReader, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Answers to an image by itself."""
    try:
        return read(inputs)
    except DataError as error:
        raise DataError(
            f"one image alone cannot be shown ({error}); put the network into "
            "evaluation mode"
        ) from error


def _image_axis(two: torch.Tensor, one: torch.Tensor, layer: str) -> int:
    """Axis on which two images have twice the length that one has."""
    if two.is_complex() or two.layout != torch.strided or two.is_nested:
        raise DataError(f"layer {layer} returns no dense real numbers")
    changed = [
        axis
        for axis, (a, b) in enumerate(zip(two.shape, one.shape, strict=False))
        if a != b
    ]
    if two.ndim == one.ndim and len(changed) == 1:
        axis = changed[0]
        if two.shape[axis] == 2 and one.shape[axis] == 1:
            return axis
    raise DataError(
        f"layer {layer} returns {tuple(one.shape)} for one image and "
        f"{tuple(two.shape)} for two; expected one row for each of the images"
    )


def _same(found: torch.Tensor, two: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether the first image gives what is expected, up to rounding of `two`."""
    if found.shape[1:] != expected.shape[1:]:
        return False
    difference = found[0].double() - expected[0].double()
    precision = str(two.dtype).removeprefix("torch.")
    return _close(difference.cpu().numpy(), two.double().cpu().numpy(), precision)


def _close(difference: NDArray[Any], two: NDArray[Any], precision: str) -> bool:
    """Whether a difference is no more than rounding of the answers to two images."""
    apart, size = _rms(two[0] - two[1]), _rms(two)
    share = TOLERANCES.get(precision, TOLERANCE)
    return _rms(difference) <= share * max(apart, FLOOR * size)


def _rms(values: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
