"""What every stage's configuration has in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from ce_align.digests import digest_json

__all__ = ["StageConfig"]


class StageConfig(BaseModel):
    """Frozen, validated settings of one stage; saved beside its results."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def fingerprint(self, **content: str) -> str:
        """Identity of a result: the settings and the digests of what they name.

        Parameters
        ----------
        **content
            Digests of the weights, images, responses and algorithm that the settings
            only name.
        """
        settings: dict[str, Any] = self.model_dump(mode="json")
        return digest_json(
            {"stage": type(self).__name__, "settings": settings, "content": content}
        )
