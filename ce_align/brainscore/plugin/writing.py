"""What a Brain-Score plugin of ours says, and its files as text."""

import ast
import inspect
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = [
    *("EMBEDDED", "PluginSpec"),
    *("model_files", "plugin_files", "recovered_spec"),
]

#: Weights inside a plugin.
EMBEDDED = "weights.safetensors"

Region = Literal["V1", "V2", "V4", "IT"]

#: It names a Python package, a file and a text that Brain-Score searches for.
Identifier = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
]
Layer = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
Colours = tuple[float, float, float]

#: Of weights that are served.
ADDRESS = r"""https?://[^\s"'\\<>]+\.safetensors"""

#: Constants of model.py; together they determine its text.
CONSTANTS = {
    "IDENTIFIER": "identifier",
    "ARCHITECTURE": "architecture",
    "N_CLASSES": "n_classes",
    "LAYERS": "layers",
    "INPUT_SIZE": "input_size",
    "MEAN": "mean",
    "STD": "std",
    "INTERPOLATION": "interpolation",
    "WEIGHTS_URL": "weights_url",
    "WEIGHTS_SHA256": "weights_sha256",
    "BIBTEX": "bibtex",
}


class PluginSpec(BaseModel):
    """Everything that the code of a plugin depends on.

    Attributes
    ----------
    identifier : in Brain-Score, and of the plugin's folder
    architecture : torchvision's name, or ``tiny``
    n_classes : of the classifier; None without one
    layers : region to layer
    input_size, mean, std, interpolation : see `ce_align.models.networks.Preprocessing`
    weights_url : of the safetensors; None where they lie inside
    weights_sha256 : of that file
    bibtex : what to cite
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    identifier: Identifier
    architecture: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    n_classes: Annotated[int, Field(ge=1)] | None
    layers: Annotated[dict[Region, Layer], Field(min_length=1)]
    input_size: Annotated[int, Field(ge=1, le=4096)]
    mean: Colours
    std: Colours
    interpolation: Literal["nearest", "bilinear", "bicubic"]
    weights_url: str | None
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bibtex: Annotated[str, Field(min_length=1)]

    @field_validator("bibtex")
    @classmethod
    def _without_trailing_space(cls, bibtex: str) -> str:
        return "\n".join(line.rstrip() for line in bibtex.strip().splitlines()) + "\n"

    @field_validator("weights_url")
    @classmethod
    def _is_safe_address(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(ADDRESS, url):
            raise ValueError("expected http(s)://….safetensors")
        return url


def literal(value: Any) -> str:
    """Python text of a plain value, as a formatter would leave it."""
    if isinstance(value, str):
        if "\n" not in value:
            return json.dumps(value, ensure_ascii=False)
        lines = value.splitlines(keepends=True)
        return (
            "(\n"
            + "".join(f'    {literal(line.rstrip())[:-1]}\\n"\n' for line in lines)
            + ")"
        )
    if isinstance(value, dict):
        items = (f"{literal(k)}: {literal(v)}" for k, v in value.items())
        return "{" + ", ".join(items) + "}"
    return repr(value)


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["literal"] = literal
    return environment


def _render(template: str, **values: Any) -> str:
    return _templates().get_template(f"{template}.jinja").render(**values)


def _tiny_source() -> str:
    """The tiny network as text: Brain-Score's machines do not have this package."""
    from ce_align import backbones

    parts = (backbones.TinyResNet, backbones._stage)
    return "\n\n".join(
        inspect.getsource(part).rstrip() + "\n" for part in parts
    ).rstrip()


def model_files(spec: PluginSpec) -> dict[str, str]:
    """The files of a plugin that Brain-Score executes, by name."""
    values = spec.model_dump()
    tiny = _tiny_source() if spec.architecture == "tiny" else ""
    return {
        "__init__.py": _render("init.py", **values),
        "model.py": _render("model.py", **values, tiny_source=tiny),
    }


def plugin_files(
    spec: PluginSpec, expected: dict[str, tuple[float, float]]
) -> dict[str, str]:
    """All files of a plugin but weights and metadata, by name.

    Parameters
    ----------
    spec : what the plugin says
    expected
        mean and standard deviation of each layer for the pattern that its tests draw
    """
    values = spec.model_dump()
    layer_map = json.dumps(dict(spec.layers), indent=4) + "\n"
    return {
        **model_files(spec),
        "test.py": _render("test.py", **values, expected=expected),
        "requirements.txt": _render("requirements.txt"),
        f"region_layer_map/{spec.identifier}.json": layer_map,
    }


def recovered_spec(folder: Path) -> PluginSpec | None:
    """What a plugin says, if its code is exactly what this version writes, else None.

    Such code runs no other than torch's, torchvision's, safetensors' and Brain-Score's,
    whoever the plugin is from.
    """
    try:
        texts = {
            name: (folder / name).read_text(encoding="utf-8")
            for name in ("__init__.py", "model.py")
        }
        stated = {
            CONSTANTS[node.targets[0].id]: ast.literal_eval(node.value)
            for node in ast.parse(texts["model.py"]).body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in CONSTANTS
        }
        spec = PluginSpec(**stated)
    except (OSError, ValueError, SyntaxError, ValidationError, RecursionError):
        return None
    return spec if model_files(spec) == texts else None
