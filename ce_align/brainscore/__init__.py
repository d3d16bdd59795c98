"""Bridge to Brain-Score; the only room that imports brainscore_vision.

Importing it, and `register`, import neither brainscore_vision nor torch.
"""

from ce_align.brainscore.datasets import entries
from ce_align.data.recordings import register_recordings

__all__ = ["register"]


def register() -> None:
    """Make Brain-Score's recordings of IT available by name.

    Which of them lie on this machine already is looked up at every call.
    """
    register_recordings(entries())
