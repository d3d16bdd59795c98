"""Plugins on disk: a folder of them, or a zip as Brain-Score's website takes it."""

import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from ce_align.errors import DataError
from ce_align.files import (
    atomic_folder,
    atomic_path,
    check_readable,
    check_regular,
    read_bytes,
    reading_archive,
    scratch_folder,
)

__all__ = ["ZIP_LIMIT", "opened_plugins", "write_plugins", "zipped_size"]

#: Bytes of a zip that Brain-Score's website accepts.
ZIP_LIMIT = 50_000_000

#: Bytes and files that a zip may unpack to here.
UNPACKED_LIMIT = 2_000_000_000
MAX_FILES = 20_000

#: The same plugins give the same zip.
TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def _write_zip(folder: Path, root: str, target: Path | IO[bytes]) -> None:
    """Zip of the plugins in `folder` as ``root/models/<plugin>/…``.

    Folders are entries of their own: the website's check looks for them.
    """
    entries = {f"{root}/": folder, f"{root}/models/": folder}
    for path in sorted(folder.rglob("*")):
        name = f"{root}/models/{path.relative_to(folder).as_posix()}"
        entries[f"{name}/" if path.is_dir() else name] = path
    with zipfile.ZipFile(target, "w") as archive:
        for name, path in entries.items():
            info = zipfile.ZipInfo(name, TIMESTAMP)
            info.compress_type = zipfile.ZIP_DEFLATED
            kind = stat.S_IFDIR | 0o755 if path.is_dir() else stat.S_IFREG | 0o644
            info.external_attr = kind << 16
            archive.writestr(
                info, b"" if path.is_dir() else check_regular(path).read_bytes()
            )


def zipped_size(folder: Path) -> int:
    """Bytes of the zip of a folder of plugins."""
    with tempfile.TemporaryFile() as file:
        _write_zip(folder, "plugins", file)
        return file.seek(0, 2)


def write_plugins(folder: Path, out: Path) -> None:
    """Put the plugins of `folder` at `out`, each whole or not at all.

    Parameters
    ----------
    folder : one folder for each plugin
    out : a folder, whose plugins of the same names are replaced; or a ``.zip``

    Raises
    ------
    DataError
        If the zip would be larger than Brain-Score's website accepts.
    CeAlignError
        If the system refuses to write there.
    """
    if out.suffix == ".zip":
        with atomic_path(out) as temporary:
            _write_zip(folder, out.stem, temporary)
            _check_size(temporary.stat().st_size)
        return
    _check_size(zipped_size(folder))
    for plugin in sorted(folder.iterdir()):
        with atomic_folder(out / plugin.name) as temporary:
            shutil.copytree(plugin, temporary, dirs_exist_ok=True)


def _check_size(n_bytes: int) -> None:
    if n_bytes > ZIP_LIMIT:
        raise DataError(
            f"with the weights inside, the zip has {n_bytes / 1e6:.0f} MB but "
            f"Brain-Score takes {ZIP_LIMIT / 1e6:.0f} MB; put the weights on a server "
            "and name it: --weights https://…/ (the file to upload is written too)"
        )


@contextmanager
def opened_plugins(path: Path) -> Iterator[tuple[list[Path], list[str]]]:
    """Folders of the plugins at `path`, and what is wrong with the zip around them.

    Parameters
    ----------
    path : a plugin, a folder of plugins, or a zip of them

    Raises
    ------
    DataError
        If there is no plugin, or the zip is damaged or would write elsewhere.
    """
    if path.is_dir():
        yield _plugins_in(path, path), []
        return
    if not path.is_file():
        raise DataError(f"there is no plugin, folder of plugins or zip at {path}")
    with scratch_folder("plugins") as scratch:
        faults = _unpack(path, scratch)
        yield _plugins_in(scratch, path), faults


def _plugins_in(folder: Path, shown: Path) -> list[Path]:
    """The folder itself, those below it, or those below its ``models``."""
    if _is_plugin(folder):
        return [folder]
    visible = [
        path
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith((".", "_"))
    ]
    plugins = [path for path in visible if _is_plugin(path)]
    if plugins:
        return plugins
    if len(visible) == 1:
        return _plugins_in(visible[0], shown)
    raise DataError(f"{shown} holds no plugin: expected folders with an __init__.py")


def _is_plugin(folder: Path) -> bool:
    """Whether a folder is a plugin, and not Brain-Score's package of all plugins."""
    init = folder / "__init__.py"
    if (folder / "model.py").is_file() or not init.is_file():
        return (folder / "model.py").is_file()
    # An empty one registers nothing: it only makes a package of what lies below.
    return bool(read_bytes(init).strip()) or not any(folder.glob("*/__init__.py"))


def _unpack(path: Path, target: Path) -> list[str]:
    """Unpack a zip into `target`; what Brain-Score would not like about it."""
    with reading_archive(path, "zip"), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        _check_entries(path, entries)
        archive.extractall(target)
    names = [entry.filename for entry in entries]
    roots = {PurePosixPath(name).parts[0] for name in names}
    visible = sorted(root for root in roots if not root.startswith((".", "_")))
    if len(visible) != 1:
        return [f"expected a single folder at the top of the zip, found {len(visible)}"]
    if f"{visible[0]}/models/" in names:
        return []
    return [
        f"expected the entry {visible[0]}/models/ for the folder of plugins, which "
        "Brain-Score's website looks for"
    ]


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    if not entries:
        raise DataError(f"{path} is empty")
    check_readable(entries, path)
    for entry in entries:
        parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
        if not parts or parts[0].endswith(("/", ":")) or ".." in parts:
            raise DataError(f"{path} would write outside its folder: {entry.filename}")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise DataError(f"{path} holds a link: {entry.filename}")
    if len(entries) > MAX_FILES:
        raise DataError(f"{path} holds {len(entries)} files; at most {MAX_FILES}")
    n_bytes = sum(entry.file_size for entry in entries)
    if n_bytes > UNPACKED_LIMIT:
        raise DataError(
            f"{path} would unpack to {n_bytes / 1e9:.1f} GB; at most "
            f"{UNPACKED_LIMIT / 1e9:.0f}"
        )
