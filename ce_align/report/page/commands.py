"""The commands that compute stored results again."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ce_align.config import StageConfig
from ce_align.models.catalogue import GROUPS, invariant_sibling
from ce_align.report.page.stored import Source
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.official import OfficialConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.score import ScoreConfig
from ce_align.stages.transfer import TransferConfig

__all__ = ["commands"]

#: Stages whose command takes any number of networks, by the words that begin it.
MANY_NETWORKS: Mapping[str, tuple[list[str], type[StageConfig]]] = {
    "score": (["score"], ScoreConfig),
    # Brain-Score's own benchmark is an option of `score`.
    "official": (["score", "--official"], OfficialConfig),
    "analyze": (["analyze"], AnalysisConfig),
    "transfer": (["transfer"], TransferConfig),
}


def commands(sources: Iterable[Source], results: str = "results") -> dict[str, str]:
    """The command of every source, by its anchor.

    Networks that differ in nothing else share one command. What no option expresses is
    said as a recipe.

    Parameters
    ----------
    sources : stored configurations
    results : folder of the results
    """
    groups: dict[str, list[Source]] = {}
    for source in sources:
        shared = _expected(source.config)
        if source.stage in MANY_NETWORKS:
            shared.pop("model", None)
        key = json.dumps([source.stage, shared], sort_keys=True, default=str)
        groups.setdefault(key, []).append(source)
    found: dict[str, str] = {}
    where = [] if results == "results" else ["--results", results]
    for group in groups.values():
        words = _words(group)
        end = [] if group[0].stage == "train" else where
        line = shlex.join(["ce-align", *words, *end]) if words else _recipe(group[0])
        found |= dict.fromkeys([source.anchor for source in group], line)
    return found


def _expected(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without a baseline that follows from the network."""
    model, baseline = config.get("model"), config.get("baseline")
    usual = isinstance(model, str) and baseline == invariant_sibling(model)
    return {k: v for k, v in config.items() if k != "baseline" or not usual}


def _words(group: Sequence[Source]) -> list[str]:
    """Arguments of the command; none if its options do not express the settings."""
    stage, config = group[0].stage, _expected(group[0].config)
    if stage in MANY_NETWORKS:
        words, kind = MANY_NETWORKS[stage]
        names = _named(str(source.config.get("model")) for source in group)
        return [*words, *_options({"model": names, **_changed(kind, config)})]
    if stage == "overlap":
        pairs = {
            name: [config.pop(f"{name}_a", ""), config.pop(f"{name}_b", "")]
            for name in ("model", "layer")
        }
        return [stage, *_options({**pairs, **_changed(OverlapConfig, config)})]
    if stage == "correlate":
        settings = _changed(CorrelateConfig, config)
        settings["against"] = settings.pop("recordings", [])
        expressed = settings.keys() <= {"against", "seed"}
        return [stage, *_options(settings)] if expressed else []
    if stage == "imported":
        return ["import-scores", str(config.get("file"))]
    return _training(group[0]) if stage == "train" else []


def _named(models: Iterable[str]) -> list[str]:
    """Networks, by the name of their group if they are one."""
    names = list(dict.fromkeys(models))
    for group, members in GROUPS.items():
        if set(members) <= set(names):
            names = [group, *(name for name in names if name not in members)]
    return names


def _changed(kind: type[StageConfig], config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that differ from the defaults, without the network."""
    fields = kind.model_fields
    return {
        name: value
        for name, value in config.items()
        if name != "model"
        and not (name in fields and fields[name].default == value)
        and value is not None
    }


def _options(settings: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in settings.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            words.append(option)
            continue
        for one in value if isinstance(value, list) else [value]:
            words += [option, str(one)]
    return words


def _training(source: Source) -> list[str]:
    """Arguments of `ce-align train` if one of its presets leads to the settings."""
    from ce_align.trainer.presets import PRESETS, preset_config

    config = source.config
    chosen = ("backbone", "epochs", "pairs_per_step", "precision", "seed")
    changes = {name: config.get(name) for name in chosen}
    folder = source.rows[0].values.get("model", "") if source.rows else ""
    for preset in PRESETS:
        try:
            usual = preset_config(
                preset,
                str(config.get("objective")),
                equivariance_weight=config.get("equivariance_weight"),
                images=config.get("images"),
                **changes,
            ).model_dump(mode="json")
        except ValidationError:
            continue
        if usual == dict(config):
            first = {
                "objective": config["objective"],
                "weight": config["equivariance_weight"],
                "images": config["images"],
                "preset": preset,
            }
            defaults = {"seed": 0, **PRESETS[preset]}
            further = {k: v for k, v in changes.items() if defaults.get(k) != v}
            return ["train", *_options({**first, **further, "out": folder})]
    return []


def _recipe(source: Source) -> str:
    """What the command line cannot say, as a recipe."""
    if source.stage not in ("train", "correlate"):
        return f"# {source.stage!r} is no stage of this version"
    settings = ", ".join(f"{k}={v!r}" for k, v in source.config.items())
    kind = f"{source.stage.capitalize()}Config"
    return f"ce-align run recipe.py  # RECIPE = [{kind}({settings})]"
