"""Images and recordings."""

from ce_align.data.recordings import register_recordings
from ce_align.data.simulation import SIMULATED

register_recordings({SIMULATED.name: SIMULATED})
