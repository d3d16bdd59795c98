"""What damaged, encrypted and foreign archives make Python raise, in one line."""

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ce_align.checks import named_some
from ce_align.errors import CeAlignError, DataError

__all__ = ["DAMAGE", "check_readable", "first_line", "reading_archive"]

#: A zip's directory, its entries, each kind of compression and a tar's headers raise
#: these: most are the first exception that meets the damaged bytes.
DAMAGE = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError),
    *(zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError),
    *(ValueError, KeyError, IndexError, TypeError, OverflowError),
)

#: Compressions of a zip that Python can undo, and what others are called.
METHODS = {
    *(zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
    *(zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA),
}
FOREIGN = {9: "deflate64", 93: "zstandard", 95: "xz", 97: "wavpack", 98: "PPMd"}


@contextmanager
def reading_archive(path: object, kind: str = "archive") -> Iterator[None]:
    """Tell of any fault of an archive in one line that names it.

    Parameters
    ----------
    path : of the file, or what stands for it in messages
    kind : what it should be

    Raises
    ------
    DataError
        In place of whatever the libraries raise.
    """
    try:
        yield
    except CeAlignError:
        raise
    except DAMAGE as error:
        raise DataError(
            f"{path} is damaged or no {kind}: {first_line(error)}; copy or make it "
            "again"
        ) from error


def first_line(error: BaseException) -> str:
    """First line of what a library says; some list all that they tried, a line each."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(":")


def check_readable(entries: Iterable[zipfile.ZipInfo], path: object) -> None:
    """Raise DataError if entries of a zip are encrypted or compressed unreadably."""
    entries = list(entries)
    # Bit 0 of the flags of an entry.
    if encrypted := [entry.filename for entry in entries if entry.flag_bits & 1]:
        raise DataError(
            f"{path} is encrypted ({named_some(encrypted)}); make it without a password"
        )
    foreign = [entry for entry in entries if entry.compress_type not in METHODS]
    if foreign:
        kinds = {entry.compress_type for entry in foreign}
        methods = sorted(FOREIGN.get(kind, f"method {kind}") for kind in kinds)
        raise DataError(
            f"{path} is compressed by {', '.join(methods)}, which Python cannot read "
            f"({named_some([entry.filename for entry in foreign])}); make it with "
            "deflate or without compression"
        )
