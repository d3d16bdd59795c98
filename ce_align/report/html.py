"""The report: everything that is stored, as one page that needs nothing else."""

import base64
import hashlib
import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ce_align import __version__
from ce_align.files import atomic_path
from ce_align.progress import Progress, silent
from ce_align.report.html_commands import commands
from ce_align.report.html_findings import findings, warnings_of
from ce_align.report.html_sections import make_sections
from ce_align.report.html_sources import Finder, Source, read_sources
from ce_align.report.html_tables import rows_table, setting_text
from ce_align.report.html_words import prose, with_options
from ce_align.report.material import Material
from ce_align.stages.same_network import reasons_left_out

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

__all__ = ["write_report"]

#: Titles of stages, in the order of the page.
STAGES = {
    "train": "Trainings",
    "score": "Predictivity",
    "official": "Predictivity by Brain-Score's own benchmark",
    "imported": "Imported scores",
    "analyze": "Representational measures",
    "correlate": "Correlation with predictivity",
    "overlap": "Explained variance of two networks",
    "transfer": "Transfer",
}

#: Rows of a stage that the page shows open; more are folded.
FOLDED = 40


def write_report(
    results: Path,
    out: Path,
    *,
    others: Path | None = None,
    runs: Sequence[Path] = (),
    title: str = "Alignment report",
    progress: Progress = silent,
) -> list[str]:
    """Write the report of a folder of results.

    Parameters
    ----------
    results : folder of a `ResultStore`
    out : file to write
    others : CSV with scores of other networks
    runs : folders of trainings whose rows are not in the results
    title : of the page
    progress : told of tables and figures done

    Returns
    -------
    What could not be drawn, and why.

    Raises
    ------
    DataError
        If there are no results, or a file is not one.
    """
    sources = read_sources(results, runs)
    material = Material.load(results, others=others, runs=runs)
    finder = Finder(sources)
    sections, missing = make_sections(material, finder, progress)
    shown = [
        {
            "label": found.label,
            "text": found.text,
            "detail": found.detail,
            "anchor": finder.anchor(found.value, found.names),
        }
        for found in findings(material.networks.rows)
    ]
    page = _environment().get_template("report.html.j2")
    script = _asset("report.js")
    reproducing = commands(sources, results.as_posix())
    html = page.render(
        title=title,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        results=results,
        counts=_counts(material, sources),
        findings=shown,
        warnings=warnings_of(material.networks, sources),
        figures=[section for section in sections if section.svg],
        tables=[section for section in sections if section.printed],
        missing=missing,
        stages=_stages(sources, material.rows),
        sources=_provenance(sources, reproducing),
        environments=_environments(sources),
        commands=_by_stage(sources, reproducing),
        report_command=_own_command(results, out, others, runs),
        style=_asset("report.css"),
        script=script,
        script_hash=_script_hash(script),
    )
    with atomic_path(out) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return [f"{name}: {reason}" for name, reason in missing]


def _counts(material: Material, sources: Sequence[Source]) -> list[tuple[str, str]]:
    rows = material.networks.rows
    networks = rows["model"][rows["stage"] != "correlate"]
    scored = rows["recording"][rows["stage"] == "score"] if "recording" in rows else ()
    days = sorted({str(day)[:10] for day in rows["created"]})
    counts = {
        "network": networks.nunique(),
        "recording": len(set(scored)),
        "row": len(material.rows),
        "configuration": len(sources),
    }
    return [
        *((name if n == 1 else f"{name}s", str(n)) for name, n in counts.items()),
        ("computed", days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"),
    ]


def _stages(sources: Sequence[Source], rows: "pd.DataFrame") -> list[dict[str, Any]]:
    names = dict.fromkeys([*STAGES, *(source.stage for source in sources)])
    left_out = reasons_left_out(rows)
    found = []
    for name in names:
        chosen = [source for source in sources if source.stage == name]
        if any(source.rows for source in chosen):
            table = rows_table(chosen, left_out)
            title = STAGES.get(name, name.capitalize())
            folded = len(table.lines) > FOLDED
            found.append({"title": title, "table": table, "folded": folded})
    for place, stage in enumerate(found):
        stage["anchor"] = f"rows-{place}"
    return found


def _environments(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Distinct machines and sets of versions, in the order of first use."""
    distinct = {tuple(sorted(source.environment.items())) for source in sources}
    return [dict(items) for items in sorted(distinct)]


def _provenance(
    sources: Sequence[Source], reproducing: dict[str, str]
) -> list[dict[str, Any]]:
    environments = _environments(sources)
    return [
        {
            "source": source,
            "settings": {
                name: setting_text(value) for name, value in source.config.items()
            },
            "rows": len(source.rows),
            "first": source.rows[0].anchor if source.rows else None,
            "environment": environments.index(dict(source.environment)) + 1,
            "command": reproducing[source.anchor],
        }
        for source in sources
    ]


def _by_stage(
    sources: Sequence[Source], reproducing: dict[str, str]
) -> list[tuple[str, list[str]]]:
    """Distinct commands, in the order in which they can be run."""
    found: dict[str, dict[str, None]] = {}
    for source in sources:
        lines = found.setdefault(source.stage, {})
        lines[reproducing[source.anchor]] = None
    order = dict.fromkeys([*STAGES, *found])
    return [(STAGES.get(s, s), list(found[s])) for s in order if s in found]


def _own_command(
    results: Path, out: Path, others: Path | None, runs: Iterable[Path]
) -> str:
    words = ["ce-align", "report", "--results", str(results), "--out", str(out)]
    words += ["--others", str(others)] if others else []
    for run in runs:
        words += ["--runs", str(run)]
    return shlex.join(words)


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Names of networks come from files that others wrote: all is escaped.
    environment = Environment(
        loader=PackageLoader("ce_align.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = prose
    environment.filters["with_options"] = with_options
    return environment


def _asset(name: str) -> str:
    return (files("ce_align.report") / "templates" / name).read_text("utf-8").strip()


def _script_hash(script: str) -> str:
    """What the page's policy allows to run: this script and no other."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
