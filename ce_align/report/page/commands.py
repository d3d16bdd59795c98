"""The commands that compute stored results again."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from ce_align.config import StageConfig, option_of
from ce_align.models.catalogue import GROUPS, invariant_sibling
from ce_align.report.page.stored import Source
from ce_align.stages.compare import CompareConfig
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.official import OfficialConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.similarities import SimilarityConfig
from ce_align.stages.transfer import TransferConfig
from ce_align.stages.unique import UniqueConfig
from ce_align.trainer.presets import PRESETS, TrainConfig, preset_config

__all__ = ["commands"]

#: Words that begin the command of each stage, and its settings.
STAGES: Mapping[str, tuple[list[str], type[StageConfig]]] = {
    "score": (["score"], ScoreConfig),
    # Brain-Score's own benchmark is an option of `score`.
    "official": (["score", "--official"], OfficialConfig),
    "analyze": (["analyze"], AnalysisConfig),
    "transfer": (["transfer"], TransferConfig),
    "compare": (["compare"], CompareConfig),
    "overlap": (["overlap"], OverlapConfig),
    "unique": (["unique"], UniqueConfig),
    "similarity": (["similarity"], SimilarityConfig),
    "correlate": (["correlate"], CorrelateConfig),
    "train": (["train"], TrainConfig),
}


def commands(sources: Iterable[Source], results: str = "results") -> dict[str, str]:
    """The command of every source, by its anchor.

    Networks that differ in nothing else share one command.

    Parameters
    ----------
    sources : stored configurations
    results : folder of the results
    """
    groups: dict[str, list[Source]] = {}
    for source in sources:
        shared = _expected(source.config)
        shared.pop("model", None)
        key = json.dumps([source.stage, shared], sort_keys=True, default=str)
        groups.setdefault(key, []).append(source)
    found: dict[str, str] = {}
    where = [] if results == "results" else ["--results", results]
    for group in groups.values():
        words = _words(group)
        end = [] if group[0].stage == "train" else where
        line = (
            shlex.join(["ce-align", *words, *end])
            if words
            else f"# {group[0].stage!r} is no stage of this version"
        )
        found |= dict.fromkeys([source.anchor for source in group], line)
    return found


def _expected(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without a baseline that follows from the network."""
    model, baseline = config.get("model"), config.get("baseline")
    usual = isinstance(model, str) and baseline == invariant_sibling(model)
    return {k: v for k, v in config.items() if k != "baseline" or not usual}


def _words(group: Sequence[Source]) -> list[str]:
    """Arguments of the command; none if there is no such stage."""
    first = group[0]
    config = _expected(first.config)
    if first.stage == "imported":
        return ["import-scores", str(config.get("file"))]
    if first.stage not in STAGES:
        return []
    words, kind = STAGES[first.stage]
    if "model" in config:
        names = _named(str(source.config.get("model")) for source in group)
        named = [word for name in names for word in ("--model", name)]
        words = [*words, *named]
    if first.stage == "train":
        preset, usual = _nearest_preset(config)
        folder = str(first.rows[0].values.get("model", "")) if first.rows else ""
        options = _options(kind, _changed(kind, config, usual))
        return [*words, "--preset", preset, *options, "--out", folder]
    return [*words, *_options(kind, _changed(kind, config, {}))]


def _named(models: Iterable[str]) -> list[str]:
    """Networks, by the name of their group if they are one."""
    names = list(dict.fromkeys(models))
    for group, members in GROUPS.items():
        if set(members) <= set(names):
            names = [group, *(name for name in names if name not in members)]
    return names


def _changed(
    kind: type[StageConfig], config: Mapping[str, Any], usual: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of this version that differ from the usual ones, without the network."""
    defaults = {name: field.default for name, field in kind.model_fields.items()}
    return {
        name: value
        for name, value in {**kind.later, **config}.items()
        if name in defaults and name != "model" and value != {**defaults, **usual}[name]
    }


def _options(kind: type[StageConfig], settings: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in settings.items():
        option = option_of(kind, name)
        if value is True:
            words.append(option)
        elif value is False:
            words.append(f"--no-{option.removeprefix('--')}")
        elif value is None or isinstance(value, dict) or name == "families":
            words += ["--set", f"{name}={json.dumps(value)}"]
        else:
            for one in value if isinstance(value, list) else [value]:
                words += [option, str(one)]
    return words


def _nearest_preset(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The preset that differs least from the settings, and its settings as JSON."""
    found: dict[str, dict[str, Any]] = {}
    for preset, settings in PRESETS.items():
        with suppress(ValidationError):
            usual = preset_config(
                preset,
                str(config.get("objective")),
                equivariance_weight=0.0,
                images="",
                epochs=config.get("epochs"),
            ).model_dump(mode="json")
            usual["epochs"] = settings["epochs"]
            # Always said: on a GPU the command would choose another precision.
            said = ("objective", "equivariance_weight", "images", "precision")
            # Options that are given join those of the preset.
            if usual["options"].keys() <= config.get("options", {}).keys():
                found[preset] = {**usual, **dict.fromkeys(said)}
    nearest = min(
        found, key=lambda name: len(_changed(TrainConfig, config, found[name]))
    )
    return nearest, found[nearest]
