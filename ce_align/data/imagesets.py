"""Sets of images: identifiers, pixels on demand, labels, digest; crops and screens."""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from ce_align.checks import check_unique, named_some
from ce_align.data.imagefiles import (
    FileSource,
    encode_ppm,
    find_names,
    open_source,
    order_names,
)
from ce_align.digests import combine_digests, digest_bytes
from ce_align.errors import ConfigError, DataError

__all__ = [
    "GRAY",
    "ImageSet",
    "Pixels",
    "centre_crop",
    "centre_cropped",
    "decode_image",
    "exif_orientation",
    "has_transparency",
    "place_on_screen",
    "validation_crop",
    "validation_crops",
]

#: Decoding refuses larger images: a few bytes can declare terabytes of pixels.
MAX_PIXELS = 100_000_000
#: A smaller edge cannot be cropped, and is no picture.
MIN_EDGE = 2
#: Modes of Pillow with an alpha channel, and its value where nothing shines through.
ALPHA_MODES, OPAQUE = ("RGBA", "RGBa", "LA", "La", "PA"), 255
EXIF_ORIENTATION = ExifTags.Base.Orientation


def decode_image(encoded: bytes, name: str) -> Image.Image:
    """8-bit RGB image from encoded bytes; grey, palette, alpha and CMYK become RGB.

    Pixels are as stored, as Brain-Score and torchvision show them: an orientation in
    EXIF is not applied (see `exif_orientation`), and of transparent pixels the colour
    counts (see `has_transparency`).

    Raises
    ------
    DataError
        Naming the file, if it is damaged, larger than 100 megapixels, less than 2
        pixels high or wide, of more than 8 bits a channel, or holds several images.
        Of a photograph with previews behind it (MPO) the photograph is read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(encoded))
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"image {name} has {image.width}×{image.height} pixels; at most "
                    f"{MAX_PIXELS // 10**6} megapixels are decoded"
                )
            if min(image.size) < MIN_EDGE:
                raise DataError(
                    f"image {name} has {image.width}×{image.height} pixels; it must be "
                    f"at least {MIN_EDGE} pixels high and wide"
                )
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"image {name} has more than 8 bits a channel (mode {image.mode}); "
                    "convert it to 8-bit first"
                )
            n_frames = getattr(image, "n_frames", 1)
            if n_frames > 1 and image.format != "MPO":
                raise DataError(
                    f"image {name} holds {n_frames} images (frames or pages); save the "
                    "one that was shown as a file of its own"
                )
            return image.convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"image {name} declares too many pixels: {error}") from error
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DataError(f"image {name} cannot be read: {error}") from error


def exif_orientation(encoded: bytes) -> int:
    """Orientation in the EXIF data of an image file; 1 is upright, and if none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return int(Image.open(io.BytesIO(encoded)).getexif().get(EXIF_ORIENTATION, 1))


def has_transparency(encoded: bytes) -> bool:
    """Whether an image file has pixels that are not opaque."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(encoded))
        if image.mode not in ALPHA_MODES and "transparency" not in image.info:
            return False
        return bool(np.asarray(image.convert("RGBA"))[:, :, 3].min() < OPAQUE)


class Pixels:
    """Pixels of images by number, made or read when asked for."""

    def load(self, index: int) -> Image.Image:
        """Decoded RGB image."""
        raise NotImplementedError

    def encoded(self, index: int) -> bytes:
        """Bytes of an image file that decodes to the same pixels."""
        return encode_ppm(np.asarray(self.load(index)))

    def digest(self, index: int) -> str:
        """Digest of the encoded bytes."""
        return digest_bytes(self.encoded(index))

    def height_and_width(self, index: int) -> tuple[int, int] | None:
        """Size in pixels; None if the image must be decoded to tell."""
        return None


@dataclass(frozen=True)
class _EncodedPixels(Pixels):
    """Pixels from encoded files."""

    source: FileSource
    names: tuple[str, ...]

    def load(self, index: int) -> Image.Image:
        return decode_image(self.encoded(index), self.names[index])

    def encoded(self, index: int) -> bytes:
        return self.source.read(self.names[index])

    def height_and_width(self, index: int) -> tuple[int, int] | None:
        try:
            with Image.open(io.BytesIO(self.encoded(index))) as image:
                upright = image.getexif().get(EXIF_ORIENTATION, 1) == 1
                return (image.height, image.width) if upright else None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None


@dataclass(frozen=True)
class _ArrayPixels(Pixels):
    """Pixels from an array (n, height, width, 3) of uint8."""

    array: NDArray[np.uint8]

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(self.array[index])

    def height_and_width(self, index: int) -> tuple[int, int]:
        height, width = self.array.shape[1:3]
        return height, width


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Ordered images with identifiers and per-image columns.

    Attributes
    ----------
    identifier : short name for people; never trusted as an identity
    ids : stimulus identifiers, unique
    columns : values an image each, such as ``object_name``; the folder of each image
        is the column ``label`` when images lie in several folders
    index : place of each image in `pixels`
    screen : visual angles of the images and of the screen on which they are shown
    origin : ``files``, or ``simulated`` for images that are computed
    """

    identifier: str
    ids: tuple[str, ...]
    pixels: Pixels
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    index: tuple[int, ...] = ()
    screen: tuple[float, float] | None = None
    origin: str = "files"

    def __post_init__(self) -> None:
        check_unique(self.ids, f"image ids of {self.identifier}")
        if not self.index:
            object.__setattr__(self, "index", tuple(range(len(self.ids))))
        for name, values in self.columns.items():
            if len(values) != len(self.ids):
                raise DataError(
                    f"column {name} has {len(values)} values but {self.identifier} has "
                    f"{len(self.ids)} images"
                )

    def __repr__(self) -> str:
        columns = f", columns {', '.join(self.columns)}" if self.columns else ""
        return f"<ImageSet {self.identifier}: {len(self.ids)} images{columns}>"

    @classmethod
    def from_path(
        cls,
        path: Path,
        *,
        order: str | Sequence[str] = "natural",
        identifier: str | None = None,
    ) -> "ImageSet":
        """Images of a folder, zip or tar.

        An `order` of ``natural`` sorts by the numbers in the names, ``name`` by letter;
        a sequence of file names states the order itself. Raises DataError if there are
        no images, or `order` names files that are not there.
        """
        source = open_source(path)
        if isinstance(order, str):
            names = order_names(source.names, order)
        else:
            names = _listed_names(source.names, order, path)
        return cls.from_files(identifier or path.stem, source, names)

    @classmethod
    def from_files(
        cls, identifier: str, source: FileSource, names: Sequence[str]
    ) -> "ImageSet":
        """Named files of a source, in the order of `names`."""
        paths = [PurePosixPath(name) for name in names]
        shared = _common_folder(paths)
        relative = [
            (
                path.relative_to(shared) if path.is_relative_to(shared) else path
            ).with_suffix("")
            for path in paths
        ]
        labels = [path.parent.as_posix() for path in relative]
        columns = {"label": np.array(labels)} if len(set(labels)) > 1 else {}
        ids = tuple(path.as_posix() for path in relative)
        return cls(identifier, ids, _EncodedPixels(source, tuple(names)), columns)

    @classmethod
    def from_encoded(
        cls,
        identifier: str,
        ids: Sequence[str],
        source: FileSource,
        names: Sequence[str],
        columns: Mapping[str, NDArray[Any]],
    ) -> "ImageSet":
        """Named files of a source, with the ids and columns of each."""
        pixels = _EncodedPixels(source, tuple(names))
        return cls(identifier, tuple(ids), pixels, columns)

    @classmethod
    def from_array(
        cls,
        identifier: str,
        array: NDArray[np.uint8],
        ids: Sequence[str] | None = None,
        columns: Mapping[str, NDArray[Any]] | None = None,
    ) -> "ImageSet":
        """Images from an array (n, height, width, 3) of uint8, else DataError."""
        array = np.asarray(array)
        if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
            raise DataError(
                "images must be a uint8 array (n, height, width, 3), found "
                f"{array.dtype} {array.shape}"
            )
        if ids is None:
            ids = [f"{identifier}_{i:05d}" for i in range(len(array))]
        if len(ids) != len(array):
            raise DataError(f"{len(ids)} ids for {len(array)} images")
        return cls(identifier, tuple(ids), _ArrayPixels(array), columns or {})

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> Image.Image:
        """Decoded RGB image `index`, placed on the screen if one was set."""
        image = self.pixels.load(self.index[index])
        return image if self.screen is None else place_on_screen(image, *self.screen)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Height and width (n, 2) of every image in pixels, decoded only if need be."""
        sizes = []
        for i, place in enumerate(self.index):
            # What a screen shows is another size.
            size = self.pixels.height_and_width(place) if self.screen is None else None
            sizes.append(size or self.load(i).size[::-1])
        return np.array(sizes, dtype=np.int64)

    def encoded(self, index: int) -> bytes:
        """Bytes of image file `index`: as read, or as PPM for arrays."""
        return self.pixels.encoded(self.index[index])

    def image_digest(self, index: int) -> str:
        """Digest of the content of image `index`, and of its place on the screen."""
        content = self._image_digests[index]
        return content if self.screen is None else f"{content}@{self.screen}"

    @cached_property
    def _image_digests(self) -> tuple[str, ...]:
        return tuple(self.pixels.digest(i) for i in self.index)

    @cached_property
    def digest(self) -> str:
        """Digest of all images in their order; ids and columns do not enter."""
        return combine_digests(*(self.image_digest(i) for i in range(len(self))))

    def pixel_digest(self, index: int) -> str:
        """Digest of the pixels of image `index`: equal for losslessly encoded copies.

        The image is decoded; its place on the screen does not enter.
        """
        image = self.pixels.load(self.index[index])
        size = f"{image.width}x{image.height}".encode()
        return digest_bytes(size, image.convert("RGB").tobytes())

    def select(self, rows: Sequence[int]) -> "ImageSet":
        """Images `rows`, in that order."""
        return replace(
            self,
            ids=tuple(self.ids[i] for i in rows),
            index=tuple(self.index[i] for i in rows),
            columns={name: values[list(rows)] for name, values in self.columns.items()},
        )

    def with_columns(self, columns: Mapping[str, NDArray[Any]]) -> "ImageSet":
        """Copy with further per-image columns."""
        return replace(self, columns={**self.columns, **columns})

    def on_screen(self, source_degrees: float, target_degrees: float) -> "ImageSet":
        """Images as they appear to a network that sees `target_degrees`.

        Reference: Brain-Score's rule (pad with gray or crop the centre by the ratio of
        visual angles).
        """
        if source_degrees == target_degrees:
            return self
        return replace(self, screen=(float(source_degrees), float(target_degrees)))


def _common_folder(paths: Sequence[PurePosixPath]) -> PurePosixPath:
    folders = {path.parent for path in paths}
    if len({folder.root for folder in folders}) > 1:
        return PurePosixPath()  # absolute names in an archive beside others
    shared = next(iter(folders))
    while not all(folder.is_relative_to(shared) for folder in folders):
        shared = shared.parent
    return shared


def _listed_names(
    available: Sequence[str], listed: Sequence[str], path: Path
) -> tuple[str, ...]:
    """Full names of the listed files."""
    found = find_names(available, listed)
    absent = [name for name, full in zip(listed, found, strict=True) if full is None]
    if absent:
        raise DataError(
            f"{len(absent)} of {len(listed)} listed images are not in {path}, or are "
            f"there more than once: {named_some(absent)}"
        )
    return tuple(full for full in found if full is not None)


#: Brain-Score's background, PIL's colour "gray".
GRAY = (128, 128, 128)


def place_on_screen(
    image: Image.Image, source_degrees: float, target_degrees: float
) -> Image.Image:
    """Image of `source_degrees` as seen on a screen of `target_degrees`.

    A larger screen pads with gray, a smaller one crops the centre; nothing is resized.
    Sizes and offsets are rounded half to even, as Brain-Score's ``place_on_screen``
    does, to which the result is equal pixel for pixel. Raises DataError if an angle is
    not positive, or the screen would be larger than any image that is decoded.
    """
    if not (source_degrees > 0 and target_degrees > 0):
        raise DataError(
            f"visual angles must be positive, found {source_degrees}° and "
            f"{target_degrees}°"
        )
    if source_degrees == target_degrees:
        return image
    ratio = target_degrees / source_degrees
    size = np.array(image.size)
    if ratio**2 * size.prod() > MAX_PIXELS:
        raise DataError(
            f"a screen of {target_degrees}° around an image of {source_degrees}° would "
            f"have more than {MAX_PIXELS // 10**6} megapixels; state the visual angle "
            "of the images"
        )
    target = (ratio * size).round().astype(int)
    if ratio >= 1:
        screen = Image.new("RGB", (int(target[0]), int(target[1])), GRAY)
        left, top = ((target - size) / 2).round().astype(int)
        screen.paste(image, (int(left), int(top)))
        return screen
    left, top = ((size - target) / 2).round().astype(int)
    return image.crop(
        (int(left), int(top), int(left + target[0]), int(top + target[1]))
    )


#: Short edge to which the authors resize an image before they crop its centre of 224.
VALIDATION_EDGE, VALIDATION_SIZE = 256, 224


def centre_crop(
    image: Image.Image,
    size: int,
    *,
    short_edge: int | None = None,
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """Square centre of an image whose short edge was resized, by default to `size`.

    Pillow's resampling, which smooths before it shrinks; sizes and places are rounded
    as torchvision's ``Resize`` and ``CenterCrop`` round them.
    """
    short = min(image.size)
    width, height = (int((short_edge or size) * edge / short) for edge in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), resampling)
    if (width, height) == (size, size):
        return image
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def validation_crop(image: Image.Image, size: int) -> Image.Image:
    """An image as the authors show it without augmentation, at any size.

    Short edge to 256, bilinear, and of that the centre of 224; in the same proportion
    where `size` is another. Nothing is squeezed.
    """
    short_edge = round(size * VALIDATION_EDGE / VALIDATION_SIZE)
    bilinear = Image.Resampling.BILINEAR
    return centre_crop(image, size, short_edge=short_edge, resampling=bilinear)


@dataclass(frozen=True)
class _CroppedPixels(Pixels):
    """Crops of the images of another source."""

    whole: Pixels
    edge: int
    crop: Callable[[Image.Image, int], Image.Image]
    name: str
    digests: dict[int, str] = field(default_factory=dict)

    def load(self, index: int) -> Image.Image:
        return self.crop(self.whole.load(index), self.edge)

    def digest(self, index: int) -> str:
        # Kept: every network asks for the digest of every image.
        if index not in self.digests:
            self.digests[index] = f"{self.whole.digest(index)}/{self.name}"
        return self.digests[index]

    def height_and_width(self, index: int) -> tuple[int, int]:
        return self.edge, self.edge


def centre_cropped(images: ImageSet, size: int) -> ImageSet:
    """Images with the short edge resized to `size` and cropped to a square.

    Raises ConfigError if `size` is not positive.
    """
    return _cropped(images, size, centre_crop, f"centre{size}bicubic")


def validation_crops(images: ImageSet, size: int) -> ImageSet:
    """Images as `validation_crop` shows them.

    Raises ConfigError if `size` is not positive.
    """
    return _cropped(images, size, validation_crop, f"validation{size}bilinear")


def _cropped(
    images: ImageSet,
    size: int,
    crop: Callable[[Image.Image, int], Image.Image],
    name: str,
) -> ImageSet:
    if size < 1:
        raise ConfigError(f"images are cropped to 1 pixel or more, not {size}")
    return replace(images, pixels=_CroppedPixels(images.pixels, size, crop, name))
