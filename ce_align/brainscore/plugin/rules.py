"""The rules of plugins: what is wrong with one, as its code and files say."""

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ce_align.brainscore.models import REGIONS
from ce_align.brainscore.plugin import Finding, fault, warning
from ce_align.brainscore.plugin.source import Call, PluginSource, folded
from ce_align.brainscore.plugin.writing import EMBEDDED, built, recovered_spec
from ce_align.checks import named_some
from ce_align.errors import ConfigError
from ce_align.files import check_regular, read_text

__all__ = ["findings", "layer_names", "stated_network"]

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

#: Endings of files that hold pickles or programs.
FORBIDDEN = {
    **dict.fromkeys((".pt", ".pth", ".pkl", ".ckpt", ".bin", ".joblib"), "a pickle"),
    **dict.fromkeys((".so", ".dll", ".dylib", ".pyd", ".exe", ".pyc"), "a program"),
}


def findings(source: PluginSource) -> Iterator[Finding]:
    """What is wrong with one plugin, whatever others there are."""
    yield from _registration(source)
    for identifier in source.identifiers:
        calls = list(source.calls(identifier))
        if len(source.identifiers) == 1:
            yield from _names(identifier, calls)
        yield from _weights(source, identifier)
        yield from _layers(source, identifier, calls)
        yield from _input(source, identifier, calls)
    yield from _tables(source)
    identifier = source.identifiers[0] if source.identifiers else ""
    calls = list(source.calls(identifier))
    for call in calls:
        yield from _execution(call)
    yield from _downloads(source, identifier, calls)
    yield from _files(source)
    yield from _citation(source, identifier)
    yield from _tests(source)
    yield from _setup(source)
    yield from _metadata(source)


# Will Brain-Score find the network, and store its numbers under a name of its own?


def _registration(source: PluginSource) -> Iterator[Finding]:
    for file, what in source.unreadable.items():
        yield fault("syntax", f"Python cannot read it: {what}", file)
    init, check = "__init__.py", "registration"
    if init not in source.trees and init not in source.unreadable:
        yield fault(check, "there is no __init__.py that registers a network")
    elif not source.registrations and init in source.trees:
        yield fault(check, "__init__.py registers no network", init)
    for found in source.registrations:
        if found.identifier is None:
            message = (
                "the identifier is no literal text, so that Brain-Score's text search "
                "does not find it; write model_registry['…'] = … for each network"
            )
        elif not found.found_to_load:
            message = (
                f"Brain-Score's text search does not find {found.identifier!r}; write "
                f"model_registry['{found.identifier}'] = … in one line"
            )
        elif not found.found_to_submit:
            message = (
                "another ] in the line makes Brain-Score's submission misread the "
                "identifier; keep brackets out of it"
            )
        else:
            continue
        yield fault(check, message, init, found.line)
    name, identifiers = source.name, source.identifiers
    if "." in name or name.startswith("_"):
        yield fault(
            "folder",
            f"Python cannot import a folder called {name!r} as Brain-Score does; "
            "avoid dots and a leading underscore",
        )
    if len(identifiers) == 1 and identifiers[0] != name:
        yield fault(
            "folder",
            f"the folder {name!r} and the identifier {identifiers[0]!r} differ; name "
            "the folder like the network",
        )


def _names(identifier: str, calls: Sequence[Call]) -> Iterator[Finding]:
    """The same name wherever Brain-Score stores something under one."""
    for call in calls:
        kind = call.name.rpartition(".")[2]
        stated = call.value("identifier")
        if not isinstance(stated, str):
            continue
        if kind == "ModelCommitment" and stated != identifier:
            message = f"registered as {identifier!r} but committed as {stated!r}"
            yield fault("identifier", message, call.file, call.line)
        if kind == "PytorchWrapper" and identifier not in stated:
            message = (
                f"its activations are stored as {stated!r}, which other networks may "
                f"share; use {identifier!r}"
            )
            yield fault("identifier", message, call.file, call.line)


# Is it the network that its name says?


class StatedNetwork(NamedTuple):
    """What a name or address says of a contrastive-equivariant network."""

    objective: str | None
    equivariance_weight: float | None
    epochs: int | None


def stated_network(text: str) -> StatedNetwork:
    """Objective, equivariance weight and epochs that a name or an address says.

    >>> stated_network("CE-MMCR_lmda_0001")
    StatedNetwork(objective='mmcr', equivariance_weight=0.001, epochs=None)
    >>> stated_network("https://lab.org/ce_barlow_l0_2_ep1000.safetensors")
    StatedNetwork(objective='barlow', equivariance_weight=0.2, epochs=1000)
    """
    objectives = set(re.findall(r"mmcr|barlow|simclr", text.lower()))
    if len(objectives) != 1:
        return StatedNetwork(None, None, None)
    weight = None
    if theirs := re.search(r"lmda_(\d+(?:\.\d+)?)", text):
        weight = _spelled(theirs[1])
    elif ours := re.search(r"(?:^|[/_-])l([01](?:[._]\d+)?)(?=[/_.-]|$)", text):
        weight = float(ours[1].replace("_", "."))
    epochs = re.search(r"(?:^|[/_-])ep(\d+)(?=[/_.-]|$)", text)
    return StatedNetwork(objectives.pop(), weight, int(epochs[1]) if epochs else None)


def _spelled(digits: str) -> float:
    """Weight that Brain-Score's identifiers spell: 01 is 0.1, 0001 is 0.001."""
    return float(digits if "." in digits else f"{digits[0]}.{digits[1:]}")


def _weights(source: PluginSource, identifier: str) -> Iterator[Finding]:
    expected = stated_network(identifier)
    told: set[str] = set()
    # The longest text is the whole address; others are parts that it is made of.
    for place in sorted(source.texts(identifier), key=len, reverse=True):
        if "/" not in place:
            continue
        found = stated_network(place)
        for field, wanted, there in zip(expected._fields, expected, found, strict=True):
            if field not in told and None not in (wanted, there) and wanted != there:
                told.add(field)
                yield fault(
                    "weights",
                    f"the identifier {identifier!r} says {field} {wanted}, but the "
                    f"weights are those of {there}: {place}",
                    source.model_file,
                )


def _tables(source: PluginSource) -> Iterator[Finding]:
    for node, _ in source.nodes():
        table = folded(node, {}) if isinstance(node, ast.Dict) else None
        if not isinstance(table, dict) or len(table) < 3:
            continue
        spelled = all(isinstance(k, str) and re.fullmatch(r"0\d*", k) for k in table)
        if not spelled or not all(isinstance(v, int | float) for v in table.values()):
            continue
        wrong = [f"{k} → {v:g}" for k, v in table.items() if _spelled(k) != v]
        if wrong:
            message = (
                f"the table of equivariance weights is wrong for {', '.join(wrong)}"
            )
            line = getattr(node, "lineno", None)
            yield warning("weights", message, source.model_file, line)


# Are layers and input what they are said to be?


def _layers(
    source: PluginSource, identifier: str, calls: Sequence[Call]
) -> Iterator[Finding]:
    file = f"region_layer_map/{identifier}.json"
    layers = _flat(source.returned("get_layers", identifier))
    if not (source.folder / file).is_file():
        yield warning(
            "layers",
            f"there is no {file}: Brain-Score will choose layers by scoring all of "
            "get_layers on its public recordings",
        )
    else:
        try:
            committed = json.loads(read_text(source.folder / file))
        except ValueError as error:
            yield fault("layers", f"not JSON: {error}", file)
            committed = {}
        if not isinstance(committed, dict) or not set(committed) <= set(REGIONS):
            yield fault("layers", f"expected layers of {', '.join(REGIONS)}", file)
            return
        chosen = _flat(list(committed.values()))
        if len(committed) > 1 and len(set(chosen)) == 1:
            message = (
                f"all regions read {chosen[0]}; commit each to a layer of its own, if "
                "that is not meant"
            )
            yield warning("layers", message, file)
        layers = [*chosen, *layers]
    architecture = _architecture(source, calls)
    existing = None if architecture is None else layer_names(architecture)
    if existing is not None and (absent := sorted({*layers} - existing - {"logits"})):
        yield fault("layers", f"{architecture} has no layer {named_some(absent)}")


def _flat(value: Any) -> list[str]:
    """Names in a list, or in a list of lists."""
    if isinstance(value, list):
        return [name for item in value for name in _flat(item)]
    return [value] if isinstance(value, str) else []


def _architecture(source: PluginSource, calls: Sequence[Call]) -> str | None:
    """Architecture that a plugin builds, if it builds exactly one by name."""
    stated = source.constants.get("ARCHITECTURE")
    if isinstance(stated, str):
        return stated
    names = set()
    for call in calls:
        if call.name == "torchvision.models.get_model" and call.node.args:
            names.add(folded(call.node.args[0], call.known))
        elif call.name.startswith("torchvision.models."):
            names.add(call.name.rpartition(".")[2])
    return str(names.pop()) if len(names) == 1 else None


@cache
def layer_names(architecture: str) -> frozenset[str] | None:
    """Layers of an architecture; None if it is unknown here."""
    try:
        layers = built(architecture).named_modules()
    except ConfigError:
        return None
    return frozenset(name for name, _ in layers if name)


def _input(
    source: PluginSource, identifier: str, calls: Sequence[Call]
) -> Iterator[Finding]:
    stated = prepared = None
    for node, known in source.nodes(identifier):
        match node:
            case ast.Assign(targets=[ast.Attribute(attr="image_size")], value=value):
                stated = folded(value, known) if stated is None else stated
    for call in calls:
        if call.name.rpartition(".")[2] in ("partial", "load_preprocess_images"):
            sizes = (call.value("image_size"), call.value("size"))
            prepared = next((s for s in sizes if isinstance(s, int)), prepared)
    if isinstance(stated, int) and prepared is not None and stated != prepared:
        message = f"images become {prepared} pixels, but image_size says {stated}"
        yield fault("preprocessing", message, source.model_file)


# What would its code do on the machine that runs it?


def _execution(call: Call) -> Iterator[Finding]:
    place = (call.file, call.line)
    if call.name == "torch.load" and call.value("weights_only") is False:
        message = (
            "torch.load(weights_only=False) executes code in the file; use "
            "safetensors, or weights_only=True"
        )
        yield fault("pickle", message, *place)
    elif call.name == "torch.load" and call.value("weights_only") is not True:
        message = (
            "torch.load without weights_only=True executes code in the file before "
            "torch 2.6; use safetensors, or say weights_only=True"
        )
        yield warning("pickle", message, *place)
    elif call.name in UNPICKLING:
        message = f"{call.name} executes code in the file; use safetensors"
        yield fault("pickle", message, *place)
    elif call.name == "numpy.load" and call.value("allow_pickle") is True:
        yield fault("pickle", "numpy.load(allow_pickle=True) executes code", *place)
    elif call.name in EXECUTING:
        message = f"{call.name} runs other programs or code; leave it out"
        yield fault("execution", message, *place)
    if call.value("trust_remote_code") is True:
        yield fault("execution", "trust_remote_code=True runs downloaded code", *place)


def _downloads(
    source: PluginSource, identifier: str, calls: Sequence[Call]
) -> Iterator[Finding]:
    hashes = any(call.name.startswith("hashlib.") for call in calls)
    unverified = False
    for call in calls:
        if call.name not in DOWNLOADING:
            continue
        place = (call.file, call.line)
        if not hashes and not _verifies(call):
            unverified = True
            message = (
                "what is downloaded is used without comparing a checksum, so that it "
                "can change unnoticed; pin its SHA-256"
            )
            yield fault("checksum", message, *place)
        named = len(call.node.args) > 1 or call.keyword("filename") is not None
        if call.name == "urllib.request.urlretrieve" and not named:
            message = (
                "urlretrieve without a file name leaves a temporary file behind at "
                "every load; name a file in a cache"
            )
            yield fault("temporary-files", message, *place)
            message = "it downloads at every load; keep the file in a cache"
            yield fault("cache", message, *place)
    if unverified:
        yield from _addresses(source, identifier)


def _verifies(call: Call) -> bool:
    argument = DOWNLOADING[call.name]
    if argument is None:
        return False
    if call.keyword(argument) is None:
        return argument == "hash_prefix" and len(call.node.args) > 2
    return call.value(argument) not in (False, "")


def _addresses(source: PluginSource, identifier: str) -> Iterator[Finding]:
    places = [urlsplit(place) for place in sorted(source.texts(identifier))]
    hosts = {place.netloc for place in places if place.scheme == "http"}
    pages = {
        f"{place.netloc}/{place.path.split('/')[1]}"
        for place in places
        if place.scheme in ("http", "https") and place.path.startswith("/~")
    }
    if hosts:
        message = f"not encrypted: {named_some(sorted(hosts))}"
        yield warning("address", message, source.model_file)
    if pages:
        message = (
            f"a personal web page may vanish or change: {named_some(sorted(pages))}; "
            "Brain-Score's team can host weights"
        )
        yield warning("address", message, source.model_file)


def _files(source: PluginSource) -> Iterator[Finding]:
    for path in sorted(source.folder.rglob("*")):
        name = path.relative_to(source.folder).as_posix()
        what = FORBIDDEN.get(path.suffix.lower())
        if path.is_symlink():
            yield fault("files", "a link does not survive the zip; put the file", name)
        elif what is not None and path.is_file() and "__pycache__" not in path.parts:
            yield fault("files", f"{what} inside the plugin; leave it out", name)
    path = source.folder / EMBEDDED
    stated = source.constants.get("WEIGHTS_SHA256")
    if not path.is_file():
        spec = recovered_spec(source.folder)
        if spec is not None and spec.weights_url is None:
            yield fault("checksum", f"{EMBEDDED} is missing")
        return
    with check_regular(path).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if stated is None:
        yield fault("checksum", f"no WEIGHTS_SHA256 is stated for {EMBEDDED}")
    elif found != stated:
        message = f"SHA-256 is {found}, but model.py states {stated}"
        yield fault("checksum", message, EMBEDDED)


# What is beside the code: citation, tests, requirements and metadata.


def _citation(source: PluginSource, identifier: str) -> Iterator[Finding]:
    file = source.model_file
    if "get_bibtex" not in source.functions:
        yield fault("bibtex", "there is no get_bibtex: nothing can be cited", file)
        return
    cited = source.returned("get_bibtex", identifier)
    if not isinstance(cited, str):
        return  # it is computed, which reading does not follow
    if not re.search(r"@\w+\s*\{", cited):
        shown = cited.strip()[:20]
        yield fault("bibtex", f"the citation is empty: {shown!r}", file)
        return
    fields = {field.lower() for field in re.findall(r"(\w+)\s*=", cited)}
    absent = [field for field in ("author", "year") if field not in fields]
    if not fields & {"url", "doi"}:
        absent.append("url or doi")
    if absent:
        message = f"Brain-Score cannot link the citation without {', '.join(absent)}"
        yield warning("bibtex", message, file)


def _tests(source: PluginSource) -> Iterator[Finding]:
    file = "test.py"
    if file in source.unreadable:
        return
    if file not in source.trees:
        yield fault("tests", "there is no test.py, which Brain-Score asks for")
        return
    tests = [
        node
        for node in ast.walk(source.trees[file])
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
    ]
    # A test can fail if it calls something, or asserts more than a constant.
    can_fail = any(
        isinstance(node, ast.Call)
        or (isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant))
        for test in tests
        for node in ast.walk(test)
    )
    if not tests:
        yield fault("tests", "test.py tests nothing", file)
    elif not can_fail:
        names = named_some([test.name for test in tests])
        yield fault("tests", f"no test can fail: {names} assert nothing", file)


def _setup(source: PluginSource) -> Iterator[Finding]:
    tree = source.trees.get("setup.py", ast.Module([], []))
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="setup") | ast.Attribute(attr="setup")):
                # A keyword without a name is a dictionary, which may hold one.
                if not {keyword.arg for keyword in node.keywords} & {"name", None}:
                    message = (
                        "setup() has no name, so that it installs as UNKNOWN-0.0.0; "
                        "use requirements.txt instead"
                    )
                    yield fault("setup", message, "setup.py", node.lineno)


def _metadata(source: PluginSource) -> Iterator[Finding]:
    from brainscore_core.metadata import MetadataError, contract

    files = ("metadata.yml", "metadata.yaml")
    file = next((name for name in files if (source.folder / name).is_file()), None)
    if file is None:
        yield warning("metadata", "there is no metadata.yml")
        return
    try:
        text = read_text(source.folder / file)
        document = contract.read_yaml(text)
        if isinstance(document, dict) and document.get("schema_version") == "2.0":
            contract.validate(document, "vision")
        else:  # before schema 2.0
            models = document.get("models") if isinstance(document, dict) else None
            if not isinstance(models, dict) or not all(
                isinstance(entry, dict) for entry in models.values()
            ):
                raise MetadataError("expected 'models' with an entry for each network")
            stated = {key for entry in models.values() for key in entry}
            if unknown := sorted(stated - contract.LEGACY_KEYS):
                raise MetadataError(f"unknown keys: {named_some(unknown)}")
    except (MetadataError, UnicodeError) as error:
        yield fault("metadata", str(error), file)
        return
    absent = [name for name in source.identifiers if name not in document["models"]]
    if absent:
        yield fault("metadata", f"nothing is said of {named_some(absent)}", file)
