"""What this machine has and lacks, and what to do about it."""

import os
import platform
import shutil
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ce_align.brainscore.datasets import (
    BUCKET,
    DATASETS,
    Dataset,
    is_cached,
)
from ce_align.brainscore.upstream import (
    HOMES,
    SUBMISSION,
    ask_storage,
    brainscore_home,
    has_credentials,
    import_brainscore,
    storage_client,
)
from ce_align.errors import CeAlignError
from ce_align.files import cache_folder
from ce_align.models.catalogue import CHECKPOINTS_URL

__all__ = ["Condition", "examine"]

State = Literal["ok", "warn", "fail"]

#: Names a mirror of the published networks.
CHECKPOINTS_VARIABLE = "CE_ALIGN_CHECKPOINTS_URL"

#: Packages whose requirements are checked against what is installed.
REQUIRING = ("ce-align", "brainscore-vision")

#: Free space below which downloads or features soon do not fit, and none do, in bytes.
LITTLE_SPACE, NO_SPACE = 10 * 10**9, 10**8


@dataclass(frozen=True)
class Condition:
    """State of one thing on this machine, and what to do about it.

    It is ``fail`` where work without a network cannot be done, and ``warn`` where
    something else cannot. The remedy is empty if nothing is to be done.
    """

    check: str
    state: State
    found: str
    remedy: str = ""


def examine(timeout: float = 3.0) -> list[Condition]:
    """Look at packages, device, folders, network and the access to each recording.

    Nothing is written or downloaded: of a file in the storage only its header is asked.

    Parameters
    ----------
    timeout : seconds to wait for each answer of the network
    """
    # The waits for the network overlap each other and the imports.
    with ThreadPoolExecutor(len(DATASETS) + 3) as pool:
        clients = pool.submit(_clients, timeout)
        waiting = [pool.submit(_credentials), pool.submit(_checkpoints, timeout)]
        for name, dataset in DATASETS.items():
            waiting.append(pool.submit(_recording, name, dataset, clients))
        local = [
            Condition("Python", "ok", platform.python_version()),
            *(_versions(), _brainscore(), _device()),
            _folder("CE_ALIGN_HOME", cache_folder("")),
            *(_folder(variable, brainscore_home(variable)) for variable in HOMES),
        ]
        return [*local, *(condition.result() for condition in waiting)]


def _versions() -> Condition:
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
    if not wrong:
        return Condition("versions", "ok", f"{n_checked} requirements are met")
    remedy = "install them anew: pip install --force-reinstall ce-align"
    return Condition("versions", "fail", "; ".join(wrong), remedy)


def _brainscore() -> Condition:
    check = "Brain-Score"
    try:
        import_brainscore()
    except CeAlignError as error:
        return Condition(check, "fail", str(error), "mend the versions above")
    version = metadata.version("brainscore-vision")
    return Condition(check, "ok", f"brainscore-vision {version} can be imported")


def _device() -> Condition:
    try:
        import torch
    except ImportError as error:
        return Condition("device", "fail", f"torch: {error}", "pip install torch")
    if torch.cuda.is_available():
        names = [
            torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
        ]
        return Condition("device", "ok", f"{len(names)} GPU: {', '.join(set(names))}")
    if torch.backends.mps.is_available():
        return Condition("device", "ok", "Apple GPU")
    found = f"no GPU; torch uses {torch.get_num_threads()} of {os.cpu_count()} CPUs"
    return Condition("device", "warn", found, "scoring works; training wants a GPU")


def _folder(variable: str, folder: Path) -> Condition:
    """A cache: whether it can be written to, and how much fits."""
    check = f"folder {variable}"
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        remedy = f"set {variable} to a folder that can be written to"
        return Condition(check, "fail", f"{folder} cannot be written to", remedy)
    free = shutil.disk_usage(existing).free
    found = f"{folder}, {free / 1e9:.1f} GB free"
    if free >= LITTLE_SPACE:
        return Condition(check, "ok", found)
    state: State = "fail" if free < NO_SPACE else "warn"
    return Condition(check, state, found, "free some space or choose another disk")


def _credentials() -> Condition:
    if has_credentials():
        return Condition("AWS credentials", "ok", "there are some")
    remedy = (
        "only for private recordings: ask the Brain-Score team (www.brain-score.org) "
        f"for access, or {SUBMISSION}"
    )
    return Condition("AWS credentials", "warn", "none", remedy)


def _checkpoints(timeout: float) -> Condition:
    """Whether the host of the published networks answers."""
    address = urlsplit(os.environ.get(CHECKPOINTS_VARIABLE) or CHECKPOINTS_URL)
    host = address.hostname or ""
    port = address.port or (80 if address.scheme == "http" else 443)
    check = "host of the published networks"
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as error:
        remedy = f"without it, set {CHECKPOINTS_VARIABLE} to a mirror"
        found = f"{host} cannot be reached ({error.strerror or error})"
        return Condition(check, "warn", found, remedy)
    return Condition(check, "ok", f"{host} answers")


def _clients(timeout: float) -> list[Any]:
    """Clients of the storage: with credentials, where there are some, and without."""
    kinds = (True, False) if has_credentials() else (False,)
    return [storage_client(signed=signed, timeout=timeout) for signed in kinds]


def _recording(name: str, dataset: Dataset, clients: Future[list[Any]]) -> Condition:
    check = f"recording {name}"
    folder = brainscore_home("BRAINIO_HOME")
    if is_cached(dataset):
        return Condition(check, "ok", f"cached in {folder}")
    kind = "private" if dataset.private else "open"
    answers = [
        ask_storage(client, BUCKET, dataset.storage_key) for client in clients.result()
    ]
    if "granted" in answers:
        return Condition(check, "ok", f"{kind}, and this machine may download it")
    if "refused" in answers:
        found = f"{kind}, and the storage refuses it"
        remedy = "look whether a newer brainscore-vision has moved it"
        if dataset.private:
            remedy = f"ask the Brain-Score team for access, or {SUBMISSION}"
    else:
        found = "not here, and Brain-Score's storage cannot be reached"
        remedy = f"run with a network, or copy their folders into {folder}"
    return Condition(check, "warn", found, remedy)
