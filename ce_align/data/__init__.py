"""Images and recordings."""

from ce_align.data.named import register_recording_reader, register_recordings
from ce_align.data.netcdf import read_recording
from ce_align.data.simulation import SIMULATED

register_recordings({SIMULATED.name: SIMULATED})
register_recording_reader(".nc", read_recording)
