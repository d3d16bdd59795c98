"""Bridge to Brain-Score; the only room that imports brainscore_vision.

Importing it, and `register`, import neither brainscore_vision nor torch.
"""

from ce_align.brainscore.datasets import entries, stated_sha1
from ce_align.data.importers.brainio import STATED_SHA1
from ce_align.data.named import register_recording_source, register_recordings

__all__ = ["register", "register_networks"]


def register() -> None:
    """Make Brain-Score's recordings available by name.

    The five of IT are listed, and which of them lie on this machine already is looked
    up at every call; ``brainscore/ID`` names the recording of any neural benchmark.
    """
    from ce_align.brainscore.benchmarks import load_benchmark_recording

    register_recordings(entries())
    register_recording_source("brainscore", load_benchmark_recording)
    STATED_SHA1.update(stated_sha1())


def register_networks() -> None:
    """Let ``brainscore/NAME`` name networks of Brain-Score's registry.

    Apart from `register`, because the room of networks imports torch.
    """
    from ce_align.brainscore.models import load_brainscore_network
    from ce_align.models.load import register_source

    register_source("brainscore", load_brainscore_network)
