from importlib import metadata

import numpy as np
import pytest

from ce_align.labelled import import_xarray


def test_datasets_survive_a_file_without_pythons_removed_interface(
    tmp_path, monkeypatch
):
    # As on Python 3.12: selecting a group is the only way.
    entry_points = metadata.entry_points

    def modern(**selection):
        if not selection:
            pytest.fail("asked for all entry points as a mapping")
        return entry_points(**selection)

    monkeypatch.setattr(metadata, "entry_points", modern)
    xr = import_xarray()
    xr.backends.plugins.list_engines.cache_clear()
    dataset = xr.Dataset({"r": ("neuroid", np.arange(3.0))})
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "a.nc") as opened:
        assert opened.identical(dataset)
