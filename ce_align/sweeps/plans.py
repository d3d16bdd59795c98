"""Plans: files that say what is to be run, as recipes in Python or as YAML."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError

from ce_align.config import StageConfig, check_settings, parse_yaml
from ce_align.errors import ConfigError, explained, first_line
from ce_align.files import read_bytes
from ce_align.recipes import Recipe, load_recipe
from ce_align.runner import STAGES, config_type, distinct
from ce_align.stages.train import training_folder
from ce_align.trainer.presets import TrainConfig, preset_config

__all__ = ["TRAINED", "read_plan"]

#: In place of a network's name: every network that the plan trains.
TRAINED = "trained"


def read_plan(path: Path, runs: Path) -> Recipe:
    """Read a plan: a recipe in Python, or YAML.

    In YAML a stage has a list of settings. A list where one value belongs stands for
    one configuration each, in all combinations; ``trained`` is every network that the
    plan trains, and ``preset`` of a training is that of ``ce-align train``::

        train:
          - {objective: [simclr, mmcr], equivariance_weight: [0, 0.3], preset: tiny,
             images: photos}
        score:
          - {model: trained, recording: v4.nc, layer: layer4}
        correlate:
          - {recordings: [v4.nc]}

    Parameters
    ----------
    path : of the file
    runs : folder of trainings

    Raises
    ------
    ConfigError
        If it is no such file, or names a stage or setting that there is not.
    """
    if path.suffix not in (".yaml", ".yml"):
        return load_recipe(path)
    try:
        text = read_bytes(path).decode("utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path} cannot be read: {first_line(error)}") from error
    try:
        found = parse_yaml(text)
        if not isinstance(found, dict) or not found:
            raise ConfigError(
                f"expected stages with lists of settings, found {found!r}; the stages "
                f"are {', '.join(STAGES)}"
            )
        configs = _configs(found, runs)
    except (ConfigError, ValidationError) as error:
        raise ConfigError(f"{path}: {explained(error)}") from error
    comment = text.lstrip().partition("\n")[0]
    purpose = comment.lstrip("# ") if comment.startswith("#") else path.stem
    return Recipe(path, purpose, configs)


def _configs(plan: Mapping[str, Any], runs: Path) -> tuple[StageConfig, ...]:
    found: list[StageConfig] = []
    if unknown := [stage for stage in plan if stage not in STAGES]:
        raise ConfigError(
            f"there is no stage {unknown[0]!r}; the stages are {', '.join(STAGES)}"
        )
    trained: list[str] = []
    for stage in (stage for stage in STAGES if stage in plan):
        entries = plan[stage]
        try:
            for entry in entries if isinstance(entries, list) else [entries]:
                if entry is not None and not isinstance(entry, Mapping):
                    raise ConfigError(f"expected settings, found {entry!r}")
                for settings in _combinations(config_type(stage), entry or {}, trained):
                    found.append(_config(stage, settings))
                    if isinstance(found[-1], TrainConfig):
                        trained.append(str(training_folder(found[-1], runs)))
        except (ConfigError, ValidationError) as error:
            raise ConfigError(f"{stage}: {explained(error)}") from error
    return distinct(found)


def _config(stage: str, settings: dict[str, Any]) -> StageConfig:
    if stage == "train" and (preset := settings.pop("preset", None)) is not None:
        return preset_config(preset, **settings)
    return config_type(stage)(**settings)


def _combinations(
    kind: type[StageConfig], entry: Mapping[str, Any], trained: Sequence[str]
) -> list[dict[str, Any]]:
    """One set of settings for every combination of what is listed."""
    check_settings([name for name in entry if name != "preset"], kind)
    values: dict[str, list[Any]] = {}
    for name, value in entry.items():
        field = kind.model_fields.get(name)
        one = not isinstance(value, list) or (
            field is not None and _takes_several(field.annotation)
        )
        listed = [value] if one else value
        values[name] = [
            network
            for each in listed
            for network in (trained if each == TRAINED else [each])
        ]
        if TRAINED in listed and not trained:
            raise ConfigError(f"{name} is {TRAINED!r}, but the plan trains no network")
    return [dict(zip(values, each, strict=True)) for each in product(*values.values())]


def _takes_several(annotation: Any) -> bool:
    """Whether a setting is itself a list."""
    if get_origin(annotation) in (Union, UnionType):
        return any(map(_takes_several, get_args(annotation)))
    kind = get_origin(annotation) or annotation
    return isinstance(kind, type) and issubclass(kind, tuple | list | dict)
