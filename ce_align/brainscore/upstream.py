"""The installed Brain-Score: quiet, installing nothing; its folders and storage."""

import importlib.util
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ce_align.errors import AccessError, CeAlignError, DataError
from ce_align.files import cache_folder, import_xarray, read_text

__all__ = [
    *("HOMES", "SUBMISSION", "ask_storage", "brainscore_home", "explained_loading"),
    *("has_credentials", "import_brainscore", "installed_plugins"),
    *("storage_client", "without_result_caching"),
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
            text = read_text(init, errors="replace")
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


#: How to get a number without the data.
SUBMISSION = (
    "get the number by submission, as Brain-Score scores on it: "
    "ce-align submit --model MODEL --out DIR"
)


@contextmanager
def explained_loading(
    name: str, key: str, private: bool | None = None, files: Sequence[str] = ()
) -> Iterator[None]:
    """Say in one line why data of Brain-Score cannot be had.

    Parameters
    ----------
    name : of the data, as users type it
    key : in Brain-Score's registry
    private : whether the download needs credentials; None where not known
    files : names that the files carry

    Raises
    ------
    AccessError
        If the data are private or out of reach.
    DataError
        If files are damaged or incomplete.
    CeAlignError
        If a package is not installed.
    """
    try:
        yield
    except CeAlignError:
        raise
    except ImportError as error:
        raise CeAlignError(
            f"{name} needs a package that is not installed: {error}"
        ) from error
    except Exception as error:  # Brain-Score raises bare ones around those of botocore
        if fault := _fault_of_storage(error):
            raise _refusal(name, key, private, fault) from error
        if not isinstance(error, ValueError | AssertionError | OSError):
            raise
        raise DataError(
            f"the files of {name} in {brainscore_home('BRAINIO_HOME')} are damaged or "
            f"incomplete ({' '.join(str(error).split()) or type(error).__name__}); "
            f"delete the folders that hold {' and '.join(files) or 'them'} to download "
            "them again"
        ) from error


def _fault_of_storage(error: Exception) -> str | None:
    """What the storage did, None where the error has nothing to do with it."""
    import boto3.exceptions
    import botocore.exceptions as boto

    causes = list(_causes(error))
    kinds = tuple(map(type, causes))
    refused = [
        str(cause.response.get("Error", {}).get("Code", "?"))
        for cause in causes
        if isinstance(cause, boto.ClientError)
    ]
    if refused:
        fault = "refused the download: " + ", ".join(refused)
        if any(issubclass(kind, boto.NoCredentialsError) for kind in kinds):
            fault += " (this machine has no AWS credentials)"
        return fault
    unreachable = (boto.ConnectionError, boto.HTTPClientError)
    if any(issubclass(kind, unreachable) for kind in kinds):
        return "cannot be reached from here"
    if any(issubclass(kind, boto3.exceptions.Boto3Error) for kind in kinds):
        return "broke the download off; run again"
    if any(issubclass(kind, boto.BotoCoreError) for kind in kinds):
        return f"cannot be asked: {causes[-1]}"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those inside it: Brain-Score raises ``Exception([e1, e2])``."""
    yield error
    for argument in error.args:
        for inner in argument if isinstance(argument, list) else [argument]:
            if isinstance(inner, BaseException):
                yield from _causes(inner)


def _refusal(name: str, key: str, private: bool | None, fault: str) -> AccessError:
    if private is False:
        return AccessError(
            f"{name} is open, but Brain-Score's storage {fault}; run once with a "
            "network, or copy the recording's folders into "
            f"{brainscore_home('BRAINIO_HOME')}"
        )
    status = "is private" if private else "may be private"
    return AccessError(
        f"{name} {status} ({key} in Brain-Score), and the storage {fault}; ask the "
        "Brain-Score team (www.brain-score.org) for access and set what they give you "
        "as AWS credentials, or score on majajhong2015-public "
        f"(MajajHong2015public.IT-pls), which is open, or {SUBMISSION}"
    )


def has_credentials() -> bool:
    """Whether this machine has AWS credentials, wherever botocore looks for them."""
    import boto3

    return boto3.Session().get_credentials() is not None


def storage_client(*, signed: bool, timeout: float = 3.0) -> Any:
    """A client of the storage, which threads may share; making one takes 0.1 s.

    Parameters
    ----------
    signed : with the credentials of this machine, else without any
    timeout : seconds to wait for a connection and for an answer
    """
    import boto3
    import botocore.config

    config = botocore.config.Config(
        connect_timeout=timeout,
        read_timeout=timeout,
        retries={"max_attempts": 0},
        signature_version=None if signed else botocore.UNSIGNED,
        max_pool_connections=32,
    )
    return boto3.Session().client("s3", config=config, region_name="us-east-1")


def ask_storage(
    client: Any, bucket: str, key: str
) -> Literal["granted", "refused", "unreachable"]:
    """Whether a file may be read by a client; only its header is asked for."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.head_object(Bucket=bucket, Key=key)
    except ClientError:
        return "refused"
    except BotoCoreError:
        return "unreachable"
    return "granted"
