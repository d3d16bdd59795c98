"""What every stage's configuration has in common."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from ce_align.digests import digest_json

__all__ = ["COMMITTED", "ConfigId", "StageConfig"]

#: Stands for the layer that a network commits to a region.
COMMITTED = "committed"

#: Fields that name networks, whose digests say which they are.
NETWORKS = ("model", "model_a", "model_b", "baseline")


class ConfigId(str):
    """Identity of a result.

    Attributes
    ----------
    nameless : the same whatever the networks are called
    """

    nameless: str


class StageConfig(BaseModel):
    """Frozen, validated settings of one stage; saved beside its results.

    `stage` names the stage that a type of configuration is of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    stage: ClassVar[str]

    def fingerprint(self, **content: str) -> ConfigId:
        """Identity of a result: the settings and the digests of what they name.

        Parameters
        ----------
        **content
            Digests of the weights, images, responses and algorithm that the settings
            only name.
        """
        settings: dict[str, Any] = self.model_dump(mode="json")
        whole = {
            "stage": type(self).__name__,
            "settings": settings,
            "content": content,
        }
        found = ConfigId(digest_json(whole))
        # Whether there is a baseline is more than its name.
        unnamed = {name: "" for name in NETWORKS if settings.get(name)}
        found.nameless = digest_json({**whole, "settings": {**settings, **unnamed}})
        return found
