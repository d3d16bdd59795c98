"""What this machine has and lacks, and what to do about it."""

import os
import platform
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from ce_align.brainscore.datasets import (
    BUCKET,
    DATASETS,
    Dataset,
    brainio_folder,
    is_cached,
)
from ce_align.brainscore.upstream import (
    HOMES,
    SUBMISSION,
    ask_storage,
    brainscore_home,
    has_credentials,
    import_brainscore,
)
from ce_align.errors import CeAlignError
from ce_align.files import cache_folder
from ce_align.models.catalogue import CHECKPOINTS_URL

__all__ = ["Finding", "State", "examine"]

State = Literal["ok", "warn", "fail"]

#: Names a mirror of the published networks.
CHECKPOINTS_VARIABLE = "CE_ALIGN_CHECKPOINTS_URL"

#: Packages whose requirements are checked against what is installed.
REQUIRING = ("ce-align", "brainscore-vision")

#: Free space below which downloads or features soon do not fit, and none do, in bytes.
LITTLE_SPACE, NO_SPACE = 10 * 10**9, 10**8


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    check : what
    state : ``fail`` where work without a network cannot be done, ``warn`` where
        something else cannot
    found : what there is
    remedy : what to do; empty if nothing
    """

    check: str
    state: State
    found: str
    remedy: str = ""


def examine(timeout: float = 3.0) -> list[Finding]:
    """Look at packages, device, folders, network and the access to each recording.

    Nothing is written or downloaded: of a file in the storage only its header is asked.

    Parameters
    ----------
    timeout : seconds to wait for each answer of the network
    """
    # The waits for the network overlap each other and the imports.
    with ThreadPoolExecutor(len(DATASETS) + 2) as pool:
        waiting = [
            pool.submit(_credentials),
            pool.submit(_checkpoints, timeout),
            *(
                pool.submit(_recording, name, dataset, timeout)
                for name, dataset in DATASETS.items()
            ),
        ]
        local: list[Finding] = []
        for check in (_python, _versions, _brainscore, _device, _folders):
            local += check()
        return [*local, *(answer.result() for answer in waiting)]


def _python() -> Iterator[Finding]:
    yield Finding("Python", "ok", platform.python_version())


def _versions() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    wrong: list[str] = []
    n_checked = 0
    for package in REQUIRING:
        for line in metadata.requires(package) or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is not None and not marker.evaluate({"extra": ""}):
                continue
            n_checked += 1
            try:
                installed = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                wrong.append(f"{package} needs {requirement}, which is not installed")
                continue
            if not requirement.specifier.contains(installed, prereleases=True):
                wrong.append(f"{package} needs {requirement}, found {installed}")
    if wrong:
        remedy = "install them anew: pip install --force-reinstall ce-align"
        yield Finding("versions", "fail", "; ".join(wrong), remedy)
    else:
        yield Finding("versions", "ok", f"{n_checked} requirements are met")


def _brainscore() -> Iterator[Finding]:
    try:
        import_brainscore()
    except CeAlignError as error:
        yield Finding("Brain-Score", "fail", str(error), "mend the versions above")
        return
    version = metadata.version("brainscore-vision")
    yield Finding("Brain-Score", "ok", f"brainscore-vision {version} can be imported")


def _device() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("device", "fail", f"torch: {error}", "pip install torch")
        return
    if torch.cuda.is_available():
        names = [
            torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
        ]
        yield Finding("device", "ok", f"{len(names)} GPU: {', '.join(set(names))}")
    elif torch.backends.mps.is_available():
        yield Finding("device", "ok", "Apple GPU")
    else:
        found = f"no GPU; torch uses {torch.get_num_threads()} of {os.cpu_count()} CPUs"
        yield Finding("device", "warn", found, "scoring works; training wants a GPU")


def _folders() -> Iterator[Finding]:
    """Caches: whether they can be written to, and how much fits."""
    folders = {"CE_ALIGN_HOME": cache_folder("")}
    folders |= {variable: brainscore_home(variable) for variable in HOMES}
    for variable, folder in folders.items():
        check = f"folder {variable}"
        existing = _existing(folder)
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            remedy = f"set {variable} to a folder that can be written to"
            yield Finding(check, "fail", f"{folder} cannot be written to", remedy)
            continue
        free = shutil.disk_usage(existing).free
        state: State = "ok"
        if free < LITTLE_SPACE:
            state = "fail" if free < NO_SPACE else "warn"
        remedy = "" if state == "ok" else "free some space or choose another disk"
        yield Finding(check, state, f"{folder}, {free / 1e9:.1f} GB free", remedy)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _credentials() -> Finding:
    if has_credentials():
        return Finding("AWS credentials", "ok", "there are some")
    remedy = (
        "only for private recordings: ask the Brain-Score team (www.brain-score.org) "
        f"for access, or {SUBMISSION}"
    )
    return Finding("AWS credentials", "warn", "none", remedy)


def _checkpoints(timeout: float) -> Finding:
    """Whether the host of the published networks answers."""
    address = os.environ.get(CHECKPOINTS_VARIABLE) or CHECKPOINTS_URL
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port
    port = port or (80 if parts.scheme == "http" else 443)
    check = "host of the published networks"
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as error:
        remedy = f"without it, set {CHECKPOINTS_VARIABLE} to a mirror"
        found = f"{host} cannot be reached ({error.strerror or error})"
        return Finding(check, "warn", found, remedy)
    return Finding(check, "ok", f"{host} answers")


def _recording(name: str, dataset: Dataset, timeout: float) -> Finding:
    check = f"recording {name}"
    if is_cached(dataset):
        return Finding(check, "ok", f"cached in {brainio_folder()}")
    kind = "private" if dataset.private else "open"
    answers = [
        ask_storage(BUCKET, dataset.storage_key, signed=signed, timeout=timeout)
        for signed in ((True, False) if has_credentials() else (False,))
    ]
    if "granted" in answers:
        return Finding(check, "ok", f"{kind}, and this machine may download it")
    if "refused" not in answers:
        remedy = f"run with a network, or copy its folders into {brainio_folder()}"
        found = f"{kind}, and Brain-Score's storage cannot be reached"
        return Finding(check, "warn", found, remedy)
    remedy = (
        "ask the Brain-Score team for access, or " + SUBMISSION
        if dataset.private
        else "look whether a newer brainscore-vision has moved it"
    )
    return Finding(check, "warn", f"{kind}, and the storage refuses it", remedy)
