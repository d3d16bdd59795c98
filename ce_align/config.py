"""What every stage's configuration has in common."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ce_align.digests import digest_json
from ce_align.names import plain_path, split_name

__all__ = ["COMMITTED", "ConfigId", "NetworkConfig", "StageConfig"]

#: Stands for the layer that a network commits to a region.
COMMITTED = "committed"

#: Fields that name networks, whose digests say which they are.
NETWORKS = ("model", "model_a", "model_b", "baseline")
#: Fields that may be paths, whose spelling is no part of an identity.
PATHS = (*NETWORKS, "recording", "recordings", "images", "dataset", "file")


class ConfigId(str):
    """Identity of a result.

    Attributes
    ----------
    nameless : the same whatever the networks are called
    content : digests of what the settings name, and the algorithm
    """

    nameless: str
    content: dict[str, str]


class StageConfig(BaseModel):
    """Frozen, validated settings of one stage; saved beside its results.

    `stage` names the stage that a type of configuration is of; `narrowing` the fields
    that narrow a recording, which is identified by the digest of what is left.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    stage: ClassVar[str]
    narrowing: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _spelled(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        found = dict(given)
        for name in PATHS:
            value = found.get(name)
            if isinstance(value, str):
                found[name] = plain_path(value)
            elif isinstance(value, list | tuple) and all(
                isinstance(part, str) for part in value
            ):
                found[name] = tuple(map(plain_path, value))
        return found

    def fingerprint(self, **content: str) -> ConfigId:
        """Identity of a result: the settings and the digests of what they name.

        Parameters
        ----------
        **content
            Digests of the weights, images, responses and algorithm that the settings
            only name.
        """
        narrowing = {*self.narrowing}
        settings: dict[str, Any] = self.model_dump(mode="json", exclude=narrowing)
        whole = {
            "stage": type(self).__name__,
            "settings": settings,
            "content": content,
        }
        found = ConfigId(digest_json(whole))
        found.content = content
        # Whether there is a baseline is more than its name.
        unnamed = {name: "" for name in NETWORKS if settings.get(name)}
        found.nameless = digest_json({**whole, "settings": {**settings, **unnamed}})
        return found


class NetworkConfig(StageConfig):
    """Settings of a stage that looks at one network.

    `submodule` and `preprocessing` are other ways to spell its name: they become a part
    of `model`, and are None afterwards.
    """

    model: str
    submodule: str | None = Field(
        default=None,
        exclude=True,
        description="Part of a network, or of a checkpoint with several, such as "
        "'visual' of CLIP.",
    )
    preprocessing: Literal["timm"] | None = Field(
        default=None,
        exclude=True,
        description="timm: crop and interpolate as its pretrained_cfg states. Else the "
        "whole image is resized.",
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or not isinstance(given.get("model"), str):
            return given
        found = dict(given)
        name = split_name(plain_path(found["model"]))
        part, fed = found.get("submodule"), found.get("preprocessing")
        if isinstance(part, str):
            inner = f"{name.part}.{part}" if name.part else part
            name, found["submodule"] = name._replace(part=inner), None
        if fed == "timm":
            name, found["preprocessing"] = name._replace(timm=True), None
        found["model"] = str(name)
        return found
