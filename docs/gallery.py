"""Remake the pictures of docs/gallery: `make gallery`.

From what `make demo` and `make mini-paper IMAGES=tiny-imagenet` left; a picture whose
source is not there stays as it is. The same rows give the same pictures within 2.5 of
255 grey levels, whatever the fonts' versions. Networks that another processor trains
differ by rounding that grows with every step: their numbers are alike, not equal.
"""

import shutil
import subprocess
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
GALLERY = ROOT / "docs" / "gallery"
#: Pixels across, and colours.
WIDTH, COLOURS = 1200, 128
DEMO = (
    *("1", "2", "3", "5", "6", "7"),
    *("forest", "geometry", "lambda", "networks", "overlap", "training"),
)
PICTURES = {
    **{f"figure_{name}": ROOT / f"demo/paper/figure_{name}.png" for name in DEMO},
    "mini_paper_variability": ROOT / "mini-paper/figures/figure_2.png",
    "mini_paper_predictivity": ROOT / "mini-paper/figures/figure_3.png",
    "mini_paper_training": ROOT / "mini-paper/figures/figure_training.png",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def keep(picture: Image.Image, name: str) -> None:
    """Write a picture in as many pixels and colours as a page needs."""
    height = round(picture.height * WIDTH / picture.width)
    small = picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
    small.quantize(COLOURS, dither=Image.Dither.NONE).save(
        GALLERY / f"{name}.png", optimize=True
    )
    print(f"wrote docs/gallery/{name}.png")


def report_picture() -> None:
    """The first screen of the demonstration's report, in the light."""
    report, picture = ROOT / "demo/report.html", ROOT / "demo/report.png"
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None or not report.is_file():
        print(
            "kept docs/gallery/report_simulated.png: needs demo/report.html, Chromium"
        )
        return
    command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars"]
    command += [f"--window-size={WIDTH},936", f"--screenshot={picture}"]
    light = "--blink-settings=preferredColorScheme=1"
    subprocess.run(
        [*command, light, report.as_uri()], check=True, capture_output=True, timeout=120
    )
    keep(Image.open(picture), "report_simulated")


if __name__ == "__main__":
    for name, source in PICTURES.items():
        if source.is_file():
            keep(Image.open(source), name)
        else:
            print(f"kept docs/gallery/{name}.png: no {source.relative_to(ROOT)}")
    report_picture()
