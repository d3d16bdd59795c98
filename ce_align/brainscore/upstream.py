"""The installed Brain-Score: quiet, installing nothing; its folders and storage."""

import importlib.util
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ce_align.errors import AccessError, CeAlignError, DataError
from ce_align.files import cache_folder, import_xarray

__all__ = [
    *("HOMES", "SUBMISSION", "Held", "ask_storage", "brainscore_home", "explained"),
    *("has_credentials", "import_brainscore", "installed_plugins"),
    "without_result_caching",
]

#: Variables that place Brain-Score's files, and the folders it takes without them:
#: recordings and stimuli, weights of networks, and results of functions.
HOMES = {
    "BRAINIO_HOME": "~/.brainio",
    "BRAINSCORE_HOME": "~/.brain-score",
    "RESULTCACHING_HOME": None,
}


def brainscore_home(variable: str) -> Path:
    """Folder of one kind of Brain-Score's files.

    What the environment states; else Brain-Score's usual folder, if the user has one;
    else a folder of our own cache. Results of functions never go to the usual folder:
    they are kept by name alone.
    """
    stated = os.environ.get(variable)
    if stated:
        return Path(stated).expanduser()
    usual = HOMES[variable]
    if usual and Path(usual).expanduser().is_dir():
        return Path(usual).expanduser()
    return cache_folder("brainscore") / variable.removesuffix("_HOME").lower()


def import_brainscore(module: str = "") -> ModuleType:
    """``brainscore_vision``, or the named module inside it.

    Unless the user has set ``BS_INSTALL_DEPENDENCIES``, it is set to ``no``:
    Brain-Score's default runs pip inside the process whenever a plugin is loaded.
    Its folders are set by `brainscore_home`.

    Raises
    ------
    CeAlignError
        If the package is not installed.
    """
    os.environ.setdefault("BS_INSTALL_DEPENDENCIES", "no")
    for variable in HOMES:  # it reads them once, when it is imported
        os.environ[variable] = str(brainscore_home(variable))
    import_xarray()  # which Brain-Score reads and writes files with
    name = f"brainscore_vision.{module}" if module else "brainscore_vision"
    try:
        with warnings.catch_warnings():
            # Its classes derived from xarray's announce themselves on every import.
            warnings.simplefilter("ignore", FutureWarning)
            return importlib.import_module(name)
    except ImportError as error:
        raise CeAlignError(
            f"brainscore-vision cannot be imported ({error}); install it with "
            "`pip install brainscore-vision`"
        ) from error


@cache
def installed_plugins(kind: str) -> dict[str, list[Path]]:
    """Folders of the installed plugins by the identifiers that they register.

    Their text is searched, as Brain-Score does it; none is imported.

    Parameters
    ----------
    kind : ``model`` or ``benchmark``
    """
    found = importlib.util.find_spec("brainscore_vision")
    places = found.submodule_search_locations if found else None
    pattern = re.compile(rf"""^\s*{kind}_registry\[['"]([^'"{{]+)['"]\]""", re.M)
    registered: dict[str, list[Path]] = {}
    for place in places or ():
        for init in sorted(Path(place, f"{kind}s").glob("*/__init__.py")):
            text = init.read_text(encoding="utf-8", errors="replace")
            for identifier in dict.fromkeys(pattern.findall(text)):
                registered.setdefault(identifier, []).append(init.parent)
    return registered


@contextmanager
def without_result_caching() -> Iterator[None]:
    """Let Brain-Score compute: it keeps results by names, whatever the content was."""
    variable = "RESULTCACHING_DISABLE"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


StorageState = Literal["granted", "refused", "unreachable"]

#: How to get a number without the data.
SUBMISSION = (
    "get the number by submission, as Brain-Score scores on it: "
    "ce-align submit --model MODEL --out DIR"
)


@dataclass(frozen=True)
class Held:
    """What is known of data in the storage before it is asked for.

    Attributes
    ----------
    name : as users type it
    registry_id : what Brain-Score calls it
    private : whether the download needs credentials; None where not known
    parts : names that the files carry
    """

    name: str
    registry_id: str
    private: bool | None = None
    parts: tuple[str, ...] = ()


def explained(held: Held, error: Exception) -> CeAlignError | None:
    """What a failed load means to the user, or None for an unknown failure.

    Brain-Score raises bare exceptions around those of botocore.
    """
    # Brain-Score's way to its storage.
    boto: Any = import_module("botocore.exceptions")
    transfer: Any = import_module("boto3.exceptions")
    causes = list(_causes(error))
    refused = [
        str(cause.response.get("Error", {}).get("Code", "?"))
        for cause in causes
        if isinstance(cause, boto.ClientError)
    ]
    unreachable = (boto.ConnectionError, boto.HTTPClientError)
    if refused:
        fault = "refused the download: " + ", ".join(refused)
        if any(isinstance(cause, boto.NoCredentialsError) for cause in causes):
            fault += " (this machine has no AWS credentials)"
        return _refusal(held, fault)
    if any(isinstance(cause, unreachable) for cause in causes):
        return _refusal(held, "cannot be reached from here")
    if any(isinstance(cause, transfer.Boto3Error) for cause in causes):
        return _refusal(held, "broke the download off; run again")
    if any(isinstance(cause, boto.BotoCoreError) for cause in causes):
        return _refusal(held, f"cannot be asked: {causes[-1]}")
    if isinstance(error, ValueError | AssertionError | OSError):
        folder = brainscore_home("BRAINIO_HOME")
        files = " and ".join(held.parts) or "them"
        return DataError(
            f"the files of {held.name} in {folder} are damaged or incomplete "
            f"({' '.join(str(error).split()) or type(error).__name__}); delete the "
            f"folders that hold {files} to download them again"
        )
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those inside it: Brain-Score raises ``Exception([e1, e2])``."""
    yield error
    for argument in error.args:
        for inner in argument if isinstance(argument, list) else [argument]:
            if isinstance(inner, BaseException):
                yield from _causes(inner)


def _refusal(held: Held, fault: str) -> AccessError:
    if held.private is False:
        return AccessError(
            f"{held.name} is open, but Brain-Score's storage {fault}; run once with a "
            "network, or copy the recording's folders into "
            f"{brainscore_home('BRAINIO_HOME')}"
        )
    status = "is private" if held.private else "may be private"
    return AccessError(
        f"{held.name} {status} ({held.registry_id} in Brain-Score), and the storage "
        f"{fault}; ask the Brain-Score team (www.brain-score.org) for access and set "
        "what they give you as AWS credentials, or score on majajhong2015-public "
        f"(MajajHong2015public.IT-pls), which is open, or {SUBMISSION}"
    )


def has_credentials() -> bool:
    """Whether this machine has AWS credentials, wherever botocore looks for them."""
    boto3: Any = import_module("boto3")
    return boto3.Session().get_credentials() is not None


def ask_storage(
    bucket: str, key: str, *, signed: bool, timeout: float = 3.0
) -> StorageState:
    """Whether a file may be read; only its header is asked for.

    Parameters
    ----------
    bucket, key : of the file
    signed : with the credentials of this machine, else without any
    timeout : seconds to wait for a connection and for an answer
    """
    boto3: Any = import_module("boto3")
    botocore: Any = import_module("botocore")
    config_module: Any = import_module("botocore.config")
    exceptions: Any = import_module("botocore.exceptions")
    settings = {} if signed else {"signature_version": botocore.UNSIGNED}
    config = config_module.Config(
        connect_timeout=timeout,
        read_timeout=timeout,
        retries={"max_attempts": 0},
        **settings,
    )
    client = boto3.Session().client("s3", config=config, region_name="us-east-1")
    try:
        client.head_object(Bucket=bucket, Key=key)
    except exceptions.ClientError:
        return "refused"
    except exceptions.BotoCoreError:
        return "unreachable"
    return "granted"
