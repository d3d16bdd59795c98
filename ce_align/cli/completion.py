"""What a shell completes: names, without importing torch, and without an error."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from glob import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import typer

__all__ = ["COMPLETIONS"]

#: Words, some with what they mean.
Candidates: TypeAlias = Sequence[str | tuple[str, str]]

#: How the functions that build networks begin, by package.
BUILDERS = {
    "torchvision": r"^def (\w+)\(\s*\*,\s*weights",
    "timm": r"^@register_model\ndef (\w+)",
}


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _built(package: str) -> Iterator[str]:
    """Names of a package's networks, read from its source: importing takes seconds."""
    found = find_spec(package)
    folder = Path(found.origin).parent / "models" if found and found.origin else None
    for file in sorted(folder.glob("*.py")) if folder else ():
        yield from re.findall(BUILDERS[package], file.read_text("utf-8"), re.MULTILINE)


def _models(incomplete: str) -> list[str]:
    """Networks and groups of them, trainings here, and those of packages."""
    from ce_align.models.catalogue import EXPORTED, GROUPS, PUBLISHED
    from ce_align.names import REFERENCES

    names = [*GROUPS, *PUBLISHED, *REFERENCES]
    runs = (*Path().glob(f"*/{EXPORTED}"), *Path().glob(f"runs/*/{EXPORTED}"))
    names += sorted(str(path.parent) for path in runs)
    for package in BUILDERS if incomplete else ():
        if f"{package}/".startswith(incomplete) or incomplete.startswith(f"{package}/"):
            names += [f"{package}/{name}" for name in _built(package)]
    return _beginning(incomplete, names)


def _recordings(incomplete: str) -> list[str]:
    """Recordings by name, and files here."""
    from ce_align.brainscore import register
    from ce_align.data.named import RECORDINGS

    register()
    files = map(str, Path().glob(f"{escape(incomplete)}*.nc"))
    return _beginning(incomplete, [*RECORDINGS, *sorted(files)])


def _fetched(incomplete: str) -> list[str]:
    """What has files to be fetched."""
    from ce_align.brainscore.datasets import DATASETS
    from ce_align.models.catalogue import GROUPS, PUBLISHED

    stored = (name for name, known in DATASETS.items() if known.stored)
    return _beginning(incomplete, (*GROUPS, *PUBLISHED, *stored))


def _layers(ctx: typer.Context, incomplete: str) -> list[str]:
    """Layers of the networks that the line names, where they can be read at once.

    As deep as what is typed: ``layer1`` before ``layer1.0``.
    """
    names = ["all"]
    for model in ctx.params.get("model") or ():
        names += _layers_of(str(model), Path(ctx.params.get("results") or "results"))
    depth = incomplete.count(".")
    parts = (".".join(name.split(".")[: depth + 1]) for name in names)
    return _beginning(incomplete, parts)


def _layers_of(model: str, results: Path) -> Iterator[str]:
    """Parts of its weights, and layers that were scored."""
    from ce_align.models.catalogue import EXPORTED, PUBLISHED, local_file
    from ce_align.names import split_name
    from ce_align.results import ResultStore

    source = split_name(model).source
    file: Path | None = Path(source)
    if source in PUBLISHED:
        yield from PUBLISHED[source].layers.values()
        file = local_file(PUBLISHED[source])
    elif Path(source).is_dir():
        file = Path(source) / EXPORTED
    if file is not None and file.suffix == ".safetensors" and file.is_file():
        with file.open("rb") as weights:
            header = json.loads(weights.read(int.from_bytes(weights.read(8), "little")))
        for name in sorted(header):
            yield from (name.rpartition(".")[0],) if "." in name else ()
    for document in ResultStore(results).documents("score", sound=True):
        config = document.get("config", {})
        if config.get("model") == model and config.get("layer"):
            yield str(config["layer"])


def _recipes(incomplete: str) -> list[str]:
    """Python files with a recipe, here and one folder below."""
    begins = escape(incomplete)
    files = (*Path().glob(f"{begins}*.py"), *Path().glob(f"{begins}*/*.py"))
    found = (file for file in files if file.is_file())
    return sorted(str(f) for f in found if "RECIPE" in f.read_text("utf-8", "replace"))


def _objectives(incomplete: str) -> list[str]:
    # Read from the source, as importing takes seconds.
    source = Path(__file__).parents[1] / "trainer" / "objectives.py"
    text = source.read_text("utf-8")
    return _beginning(incomplete, re.findall(r'\bObjective\(\s*"(\w+)"', text))


def _backbones(incomplete: str) -> list[str]:
    from ce_align.names import OWN_BACKBONES

    residual = (n for n in _built("torchvision") if re.search(r"res(net|next)\d", n))
    return _beginning(incomplete, (*OWN_BACKBONES, *residual))


def _datasets(incomplete: str) -> list[str]:
    from ce_align.data.labelled import DATASETS

    return _beginning(incomplete, DATASETS)


def _stages(incomplete: str) -> list[str]:
    from ce_align.runner import STAGES

    return _beginning(incomplete, STAGES)


def _drawn(kind: str) -> Callable[[str], Candidates]:
    """Figures or tables, with what they show."""

    def complete(incomplete: str) -> Candidates:
        from ce_align.report import paper

        every = getattr(paper, kind)
        return [(name, every[name].about) for name in _beginning(incomplete, every)]

    return complete


def _quietly(complete: Callable[..., Candidates]) -> Callable[..., Candidates]:
    """Without candidates instead of an error, which a shell would show in the line."""

    def completed(ctx: typer.Context, incomplete: str) -> Candidates:
        given: Mapping[str, Any] = {"ctx": ctx} if complete is _layers else {}
        try:
            return complete(incomplete=incomplete, **given)
        except (OSError, ValueError, NotImplementedError):  # glob of an absolute path
            return []

    return completed


_BY_NAME: Mapping[str, Callable[..., Candidates]] = {
    "model": _models,
    "baseline": _models,
    "beside": _models,
    "recording": _recordings,
    "recordings": _recordings,
    "against": _recordings,
    "dataset": _datasets,
    "layer": _layers,
    "beside_layers": _layers,
    "objective": _objectives,
    "backbone": _backbones,
    "figure": _drawn("FIGURES"),
    "table": _drawn("TABLES"),
    "device": lambda incomplete: _beginning(
        incomplete, ("auto", "cpu", "cuda", "gpus", "mps")
    ),
    "stage": _stages,
    "recipe": _recipes,
    "fetched": _fetched,
}

#: What completes a value, by the name of its option or argument.
COMPLETIONS = {name: _quietly(complete) for name, complete in _BY_NAME.items()}
