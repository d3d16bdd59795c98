"""What tests of importers share: folders of numbered images, and importing."""

import pytest
from numbered import numbered_pixels
from PIL import Image

from ce_align.data.importers import ImportSettings, import_recording


@pytest.fixture
def write_images(tmp_path):
    """Save numbered images under given names, without loss whatever they are."""

    def write(names, folder="images"):
        for k, name in enumerate(names):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(numbered_pixels(k)).save(path, "PNG")
        return tmp_path / folder

    return write


@pytest.fixture
def read(tmp_path):
    """Import with settings as keywords; what was told is in ``read.lines``."""

    def run(file, **settings):
        given = {
            name: str(value) if name in ("images", "order", "stimuli") else value
            for name, value in settings.items()
        }
        run.lines = []
        return import_recording(
            ImportSettings(file=str(file), **given), "mine", tell=run.lines.append
        )

    return run
