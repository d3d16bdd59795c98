"""A Brain-Score of its own for plugins: the installed package with only them in it."""

import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ce_align.brainscore.plugin.writing import EMBEDDED, recovered_spec
from ce_align.errors import CeAlignError
from ce_align.files import cache_folder, scratch_folder

__all__ = ["environment", "is_ours", "overlay"]

#: Variables that the process keeps; credentials are not among them.
KEPT = (
    *("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "REQUESTS_CA_BUNDLE"),
)

#: Files of a plugin of ours; nothing else of it goes into the process.
OURS = ("__init__.py", "model.py", "test.py", "requirements.txt", "metadata.yml")


def is_ours(folder: Path) -> bool:
    """Whether a plugin's code is exactly what this version writes.

    Such code can run unasked: it only fetches safetensors and builds a network of
    torchvision. Nothing else that lies in the folder is executed.
    """
    return recovered_spec(folder) is not None


def _copy_plugin(folder: Path, target: Path) -> None:
    if not is_ours(folder):
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
        shutil.copytree(folder, target, ignore=ignored, symlinks=True)
        return
    # A cached .pyc, or a package beside model.py, would come before the code.
    target.mkdir()
    for name in (*OURS, EMBEDDED):
        if (folder / name).is_file():
            shutil.copy(folder / name, target / name)
    maps = folder / "region_layer_map"
    (target / maps.name).mkdir()
    for path in maps.glob("*.json"):
        shutil.copy(path, target / maps.name / path.name)


@contextmanager
def overlay(folders: Sequence[Path]) -> Iterator[Path]:
    """A folder for the head of the path, where Brain-Score has only these plugins.

    Everything else of the installed package is linked. The one part that follows links
    back to find its plugins is copied. The installed package is not touched.

    Raises
    ------
    CeAlignError
        If Brain-Score is not installed.
    """
    found = importlib.util.find_spec("brainscore_vision")
    places = found.submodule_search_locations if found else None
    if not places:
        raise CeAlignError(
            "brainscore-vision is not installed; pip install brainscore-vision"
        )
    installed = Path(next(iter(places)))
    with scratch_folder("overlay") as scratch:
        package = scratch / "brainscore_vision"
        helpers = package / "model_helpers"
        helpers.mkdir(parents=True)
        (package / "models").mkdir()
        _link(installed, package, but=("models", helpers.name))
        _link(installed / helpers.name, helpers, but=("brain_transformation",))
        copied = "brain_transformation"
        shutil.copytree(installed / helpers.name / copied, helpers / copied)
        init = installed / "models" / "__init__.py"
        (package / "models" / "__init__.py").symlink_to(init)
        for folder in folders:
            _copy_plugin(folder, package / "models" / folder.name)
        yield scratch


def _link(source: Path, target: Path, but: Sequence[str]) -> None:
    for path in source.iterdir():
        if path.name not in (*but, "__pycache__"):
            (target / path.name).symlink_to(path)


def environment(overlaid: Path, scratch: Path) -> dict[str, str]:
    """Variables of a clean process: caches of its own, no credentials, no pip."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    homes = {
        name: str(scratch / "home" / name.lower())
        for name in ("HOME", "BRAINIO_HOME", "BRAINSCORE_HOME", "RESULTCACHING_HOME")
    }
    for folder in (*map(Path, homes.values()), scratch / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    return {
        **kept,
        **homes,
        "TMPDIR": str(scratch / "tmp"),
        "TORCH_HOME": str(cache_folder("plugins")),  # weights that were verified
        "PYTHONPATH": str(overlaid),
        "PYTHONDONTWRITEBYTECODE": "1",
        "BS_INSTALL_DEPENDENCIES": "no",
        "RESULTCACHING_DISABLE": "1",
        "BRAINSCORE_SKIP_MEMORY_CHECK": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
