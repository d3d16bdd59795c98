"""How networks and files are named: one spelling, so that a name has one identity.

A name of a network is a source (``torchvision/resnet50``, ``runs/a``,
``file.py:build``, ``hf-hub:OWNER/REPO``, …), which may be followed by ``@PART``, one of
the networks in it, and by ``+timm``, for the preprocessing that timm states.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = [
    *("BRAIN", "FEATURES", "HUB", "KNOWN", "LOCAL_HUB", "OWN_BACKBONES", "NetworkName"),
    "REFERENCES",
    *("UNTRAINED", "labelled", "network_behind", "plain_path", "printable"),
    *("split_name", "with_nulls", "without_path"),
]

#: Begin names of networks from the hub, in the layout of the hub, and of features.
HUB, LOCAL_HUB, FEATURES = "hf-hub:", "local-dir:", "features:"

#: Begins names of networks whose weights are drawn anew: ``untrained/SEED:NAME``.
UNTRAINED = "untrained/"
#: Begins those of the animals of a recording but one: ``brain/RECORDING:ANIMAL``.
BRAIN = "brain/"
#: Shown beside networks, they need no training.
REFERENCES = ("pixels", "gabor", "v1_like")

#: Names of each kind that stand for what they name, whatever files are called so; other
#: rooms add theirs.
KNOWN: dict[str, set[str]] = {
    kind: set() for kind in ("network", "recording", "images", "dataset")
}

#: Architectures of `ce_align.backbones`, which brings torchvision.
OWN_BACKBONES = ("tiny", "resnet18_cifar")

#: Ends names of networks that are fed as timm states.
TIMM = "+timm"


def plain_path(name: str) -> str:
    """A name in one spelling; paths are relative if they lie in the current folder.

    >>> plain_path("./runs//a/"), plain_path("torchvision/resnet18:none")
    ('runs/a', 'torchvision/resnet18:none')
    """
    if "://" in name:
        return name
    # Such as file.py:callable, weights.pt:architecture or local-dir:FOLDER.
    return ":".join(map(_plain, name.split(":")))


def without_path(name: str, kind: str) -> str:
    """A name without what leads to a file or folder, whose content tells which it is.

    Such as ``:build`` of ``nets.py:build``; names that lead to none, or that are
    `KNOWN` of that kind, stay as they are.
    """
    asked = split_name(name)
    if "://" in name or asked.source in KNOWN.get(kind, ()):  # files have no kind
        return name
    if _exists(name):
        return ""
    parts = asked.source.split(":")
    features = asked.source.startswith(FEATURES)
    first = int(features or asked.source.startswith(LOCAL_HUB))
    for k in range(first, len(parts) if features else first + 1):
        parts[k] = "" if _exists(parts[k]) else parts[k]
    return str(asked._replace(source=":".join(parts)))


def _exists(path: str) -> bool:
    return bool(path) and Path(path).expanduser().exists()


def _plain(path: str) -> str:
    if "/" not in path and not path.startswith(("~", ".")):
        return path
    path = os.path.normpath(Path(path).expanduser())
    if not path.startswith(("/", "..")):
        return path
    here, whole = Path.cwd(), Path(os.path.normpath(Path.cwd() / path))
    return str(whole.relative_to(here) if here in whole.parents else whole)


class NetworkName(NamedTuple):
    """What the name of a network says.

    >>> str(NetworkName("clip.py:build", "visual", timm=True))
    'clip.py:build@visual+timm'
    """

    source: str
    part: str = ""
    timm: bool = False

    def __str__(self) -> str:
        source = self.source
        if self.part and source.startswith(HUB) and "@" not in source:
            source += "@main"  # what follows the first @ there is a revision
        part = f"@{self.part}" if self.part else ""
        return f"{source}{part}{TIMM if self.timm else ''}"


def split_name(name: str) -> NetworkName:
    """The parts of a network's name.

    >>> split_name("hf-hub:lab/net@v2@visual")
    NetworkName(source='hf-hub:lab/net@v2', part='visual', timm=False)
    """
    timm = name.endswith(TIMM)
    name = name.removesuffix(TIMM)
    source, _, part = name.rpartition("@")
    revision = name.startswith(HUB) and "@" not in source
    if not source or not part or "/" in part or revision:
        source, part = name, ""
    return NetworkName(source, part, timm)


def labelled(text: str) -> tuple[str | None, str]:
    """Label and name of ``LABEL = NAME``; without a label it is None.

    >>> labelled("mine = runs/a"), labelled("runs/lr=0.1")
    (('mine', 'runs/a'), (None, 'runs/lr=0.1'))
    """
    label, _, name = text.partition(" = ")
    if not label.strip() or not name.strip():
        return None, text
    return label.strip(), name.strip()


def with_nulls(names: Iterable[str], n_seeds: int) -> list[str]:
    """Networks, so many untrained ones of each architecture, and the references.

    >>> with_nulls(["runs/a"], 2)
    ['runs/a', 'untrained/1:runs/a', 'untrained/2:runs/a', 'pixels', 'gabor', 'v1_like']
    """
    asked = list(names)
    trained = [
        name
        for name in asked
        if name not in REFERENCES and not name.startswith((UNTRAINED, FEATURES, BRAIN))
    ]
    nulls = [
        f"{UNTRAINED}{k}:{name}" for name in trained for k in range(1, n_seeds + 1)
    ]
    return list(dict.fromkeys([*asked, *nulls, *REFERENCES]))


def network_behind(name: str) -> str | None:
    """The network that an untrained one is the null of; None of any other.

    >>> network_behind("untrained/2:nets.py:small"), network_behind("pixels")
    ('nets.py:small', None)
    """
    if not name.startswith(UNTRAINED):
        return None
    return name.partition(":")[2]


def printable(text: str) -> str:
    """A text in one line, what would move the cursor or colour the screen escaped.

    >>> print(printable("a\\x1b[31mb\\n"))
    a\\x1b[31mb\\n
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )
