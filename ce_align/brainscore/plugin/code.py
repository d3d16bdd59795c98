"""Checks of plugins: what their code would do on the machine that runs it."""

import hashlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from ce_align.brainscore.plugin.findings import Finding, fault, warning
from ce_align.brainscore.plugin.source import Call, PluginSource
from ce_align.brainscore.plugin.writing import EMBEDDED
from ce_align.checks import named_some

__all__ = ["code_checks"]

#: Calls that execute what is in a file.
UNPICKLING = {
    *("pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads"),
    *("dill.load", "dill.loads", "joblib.load", "pandas.read_pickle"),
}

#: Calls that execute text or programs.
EXECUTING = {
    *("eval", "exec", "os.system", "os.popen", "subprocess.run", "subprocess.call"),
    *("subprocess.check_call", "subprocess.check_output", "subprocess.Popen"),
    *("pip.main", "torch.hub.load"),
}

#: Calls that download, and the argument by which they verify, if they can.
DOWNLOADING = {
    "urllib.request.urlretrieve": None,
    "urllib.request.urlopen": None,
    "requests.get": None,
    "wget.download": None,
    "gdown.download": None,
    "gdown.cached_download": "hash",
    "torch.hub.download_url_to_file": "hash_prefix",
    "torch.hub.load_state_dict_from_url": "check_hash",
    "torch.utils.model_zoo.load_url": "check_hash",
}

#: Downloads that keep no file of their own accord.
UNKEPT = {"urllib.request.urlopen", "requests.get"}

#: Endings of files that hold pickles, programs or further archives.
FORBIDDEN = {
    **dict.fromkeys((".pt", ".pth", ".pkl", ".ckpt", ".bin", ".joblib"), "a pickle"),
    **dict.fromkeys((".so", ".dll", ".dylib", ".pyd", ".exe", ".pyc"), "a program"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".xz", ".7z"), "an archive"),
}


def code_checks(source: PluginSource) -> Iterator[Finding]:
    """Everything about execution, downloads and files of one plugin."""
    identifier = source.identifiers[0] if source.identifiers else ""
    calls = list(source.calls(identifier))
    for call in calls:
        yield from _execution(call)
    yield from _downloads(source, identifier, calls)
    yield from _files(source)
    yield from _embedded(source)


def _execution(call: Call) -> Iterator[Finding]:
    where = (call.file, call.line)
    if call.name == "torch.load":
        weights_only = call.value("weights_only")
        if weights_only is False:
            yield fault(
                "pickle",
                "torch.load(weights_only=False) executes code in the file; use "
                "safetensors, or weights_only=True",
                *where,
            )
        elif weights_only is not True:
            yield warning(
                "pickle",
                "torch.load without weights_only=True executes code in the file before "
                "torch 2.6; use safetensors, or say weights_only=True",
                *where,
            )
    elif call.name in UNPICKLING:
        yield fault(
            "pickle", f"{call.name} executes code in the file; use safetensors", *where
        )
    elif call.name == "numpy.load" and call.value("allow_pickle") is True:
        yield fault("pickle", "numpy.load(allow_pickle=True) executes code", *where)
    elif call.name in EXECUTING:
        yield fault(
            "execution",
            f"{call.name} runs other programs or code; leave it out",
            *where,
        )
    if call.value("trust_remote_code") is True:
        yield fault("execution", "trust_remote_code=True runs downloaded code", *where)


def _downloads(
    source: PluginSource, identifier: str, calls: list[Call]
) -> Iterator[Finding]:
    downloads = [call for call in calls if call.name in DOWNLOADING]
    looks = any(c.name.endswith((".is_file", ".exists", ".isfile")) for c in calls)
    hashes = any(call.name.startswith("hashlib.") for call in calls)
    unverified = False
    for call in downloads:
        where = (call.file, call.line)
        verified = hashes or _verifies(call)
        unverified |= not verified
        if not verified:
            yield fault(
                "checksum",
                "what is downloaded is used without comparing a checksum, so that it "
                "can change unnoticed; pin its SHA-256",
                *where,
            )
        forgotten = (
            call.name == "urllib.request.urlretrieve"
            and len(call.node.args) < 2
            and call.keyword("filename") is None
        )
        if forgotten:
            yield fault(
                "temporary-files",
                "urlretrieve without a file name leaves a temporary file behind at "
                "every load; name a file in a cache",
                *where,
            )
        if forgotten or (call.name in UNKEPT and not looks):
            yield fault(
                "cache", "it downloads at every load; keep the file in a cache", *where
            )
    if unverified:
        yield from _addresses(source, identifier)


def _verifies(call: Call) -> bool:
    argument = DOWNLOADING[call.name]
    if argument is None:
        return False
    node = call.keyword(argument)
    if node is None and argument == "hash_prefix":
        return len(call.node.args) > 2
    return node is not None and call.value(argument) not in (False, "")


def _addresses(source: PluginSource, identifier: str) -> Iterator[Finding]:
    places = [urlsplit(place) for place in sorted(source.texts_of(identifier))]
    hosts = {place.netloc for place in places if place.scheme == "http"}
    pages = {
        f"{place.netloc}/{place.path.split('/')[1]}"
        for place in places
        if place.scheme in ("http", "https") and place.path.startswith("/~")
    }
    if hosts:
        yield warning(
            "address", f"not encrypted: {named_some(sorted(hosts))}", source.model_file
        )
    if pages:
        yield warning(
            "address",
            f"a personal web page may vanish or change: {named_some(sorted(pages))}; "
            "Brain-Score's team can host weights",
            source.model_file,
        )


def _files(source: PluginSource) -> Iterator[Finding]:
    for path in sorted(source.folder.rglob("*")):
        name = path.relative_to(source.folder).as_posix()
        parts = PurePosixPath(name).parts
        if path.is_symlink():
            yield fault("files", "a link does not survive the zip; put the file", name)
        elif "__pycache__" in parts or path.is_dir():
            continue
        elif any(part.startswith(".") or part == "__MACOSX" for part in parts):
            yield warning("files", "a hidden file; leave it out", name)
        elif name.endswith("~"):
            yield warning("files", "an editor's copy; leave it out", name)
        elif path.suffix.lower() in FORBIDDEN:
            what = FORBIDDEN[path.suffix.lower()]
            yield fault("files", f"{what} inside the plugin; leave it out", name)


def _embedded(source: PluginSource) -> Iterator[Finding]:
    """Weights beside the code are those whose checksum the code states."""
    path = source.folder / EMBEDDED
    stated = source.constant("WEIGHTS_SHA256")
    if not path.is_file():
        if isinstance(stated, str) and "WEIGHTS_URL = None" in source.texts["model.py"]:
            yield fault("checksum", f"{EMBEDDED} is missing")
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if stated is None:
        yield fault("checksum", f"no WEIGHTS_SHA256 is stated for {EMBEDDED}")
    elif found != stated:
        yield fault(
            "checksum",
            f"SHA-256 is {found}, but model.py states {named_some([stated])}",
            EMBEDDED,
        )
