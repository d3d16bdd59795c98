"""What the documents say is so: blocks run, links lead somewhere, numbers are there."""

import re
import sys
from fnmatch import fnmatch
from pathlib import Path
from unittest.mock import patch

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

import blocks  # noqa: E402

from ce_align.results import Row  # noqa: E402
from ce_align.stages import measures  # noqa: E402
from ce_align.stages.compare import CompareRow  # noqa: E402
from ce_align.stages.correlate import CorrelationRow  # noqa: E402
from ce_align.stages.measures import MeasureRow  # noqa: E402
from ce_align.stages.overlap import PARTS, OverlapRow  # noqa: E402
from ce_align.stages.quantities import quantities  # noqa: E402
from ce_align.stages.scores import ScoreRow  # noqa: E402
from ce_align.stages.similarities import SimilarityRow  # noqa: E402
from ce_align.stages.transfer import TransferRow  # noqa: E402
from ce_align.stages.unique import UniqueRow  # noqa: E402
from ce_align.trainer import objectives  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("letters_as_outlines")]

MEASURES = ROOT / "docs" / "measures.md"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder and caches that pages share, as a reader's would be."""
    return tmp_path_factory.mktemp("documents")


@pytest.fixture
def as_a_reader(workplace, monkeypatch) -> Path:
    monkeypatch.setenv("CE_ALIGN_HOME", str(workplace / "caches"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    folder = workplace / "work"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def what_pages_register():
    """Objectives and measures of the pages, which go when their test ends."""
    with patch.dict(measures._REGISTERED), patch.dict(objectives._REGISTERED):
        yield


def test_every_block_of_every_page_runs(as_a_reader):
    for page in blocks.pages():
        blocks.run_page(page, as_a_reader)


@pytest.mark.parametrize("page", blocks.notebooks(), ids=lambda page: page.stem)
def test_a_notebook_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    blocks.run_notebook(page, tmp_path)


def test_a_block_that_is_not_run_must_say_what_it_needs(tmp_path):
    page = ROOT / "docs" / "page.md"
    block = blocks.Block(page, 1, "sh", "sbatch job.sh\n")
    with pytest.raises(ValueError, match=r"docs/page\.md:1: sbatch is not run"):
        blocks.run_block(block, {})
    wrong = blocks.Block(
        page, 1, "sh", "# needs SLURM\nsbatch --wrap 'ce-align trian'\n"
    )
    with pytest.raises(Exception, match="trian"):
        blocks.run_block(wrong, {})


def _anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", head.lower()) for head in heads)
    return {word.strip().replace(" ", "-") for word in words}


@pytest.mark.parametrize(
    "page",
    [*blocks.pages(), *blocks.notebooks(), ROOT / "docs/notebooks/index.md"],
    ids=lambda page: page.name,
)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in _anchors(target), f"{page.name} links to {link}"


def test_the_readme_is_short_and_leads_to_every_guide():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 130
    assert max(map(len, re.sub(r"(?m)^\|.*", "", text).splitlines())) <= 125
    by_themselves = {"index", "guides", "reference", "architecture", "commands"}
    pages = {path.stem for path in ROOT.glob("docs/*.md")} - by_themselves
    missing = {stem for stem in pages if f"docs/{stem}.md" not in text}
    assert missing <= {"changelog"}


def _named_on_the_page() -> set[str]:
    return set(re.findall(r"`([\w*]+)`", MEASURES.read_text(encoding="utf-8")))


def test_the_page_of_measures_names_every_number_of_every_row():
    named = _named_on_the_page()
    common = set(Row.model_fields)
    about = re.compile(
        r"(digest|networks$|imported_from|seed|images$|baseline|recording|region|layer|"
        r"other|size|convention|dataset|measure|interval|given|regression|stage|animal)"
    )
    for kind in (
        ScoreRow,
        SimilarityRow,
        MeasureRow,
        CorrelationRow,
        OverlapRow,
        TransferRow,
        UniqueRow,
        CompareRow,
    ):
        numbers = {name for name in kind.model_fields if not about.search(name)}
        assert numbers - common <= named, kind.__name__


def test_the_page_of_measures_names_every_quantity():
    named = _named_on_the_page()
    endings = ("_excess_delta", "_floor", "_excess", "_delta")
    for name in quantities():
        stem = next((name.removesuffix(e) for e in endings if name.endswith(e)), name)
        matching = (fnmatch(stem, one) for one in named if len(one) > 3)
        assert stem in named or any(matching), name
    assert {f"overlap_{part}" for part in PARTS} <= named
