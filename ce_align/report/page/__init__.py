"""The report: everything that is stored, as one page that needs nothing else."""

import base64
import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ce_align import __version__
from ce_align.files import atomic_path
from ce_align.progress import Progress, silent
from ce_align.report.inputs import Inputs
from ce_align.report.page.commands import commands
from ce_align.report.page.methods import GLOSSARY, READING, methods_of, references
from ce_align.report.page.parts import (
    make_parts,
    rows_table,
    scatter_data,
    setting_text,
)
from ce_align.report.page.stored import Source, read_sources
from ce_align.report.page.summary import findings, warnings_of
from ce_align.stages.same_network import identity, reasons_left_out

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["write_report"]

#: Titles of stages, in the order of the page.
STAGES = {
    "train": "Trainings",
    "score": "Predictivity",
    "official": "Predictivity by Brain-Score's own benchmark",
    "imported": "Imported scores",
    "similarity": "Similarity to recordings",
    "analyze": "Representational measures",
    "correlate": "Correlation with predictivity",
    "compare": "Predictivity of networks, in pairs",
    "overlap": "Explained variance of two networks",
    "unique": "What each of several networks adds to the others",
    "transfer": "Transfer",
}

#: What stands on both sides of a sign that no line should begin or end with.
RELATION = re.compile(r"λ ([=><]) (?=[.\d])")


def write_report(
    results: Path,
    out: Path,
    *,
    others: Path | None = None,
    runs: Sequence[Path] = (),
    title: str = "Alignment report",
    progress: Progress = silent,
) -> list[tuple[str, str]]:
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
    inputs = Inputs.load(results, others=others, runs=runs)
    anchors = {identity(row.values): row.anchor for s in sources for row in s.rows}
    figures, tables, missing = make_parts(inputs, anchors, progress)
    reproducing = commands(sources, results.as_posix())
    script = _asset("page.js")
    environments = {tuple(sorted(s.environment.items())) for s in sources}
    html = (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            version=__version__,
            results=results,
            counts=_counts(inputs, sources),
            findings=findings(inputs.networks.rows, inputs.labels),
            glossary=GLOSSARY,
            reading=READING,
            methods=methods_of(inputs.networks.rows, sources),
            references=references(inputs.networks.rows),
            warnings=warnings_of(inputs.networks, sources),
            anchors=anchors,
            figures=figures,
            scatter=scatter_data(inputs),
            tables=tables,
            missing=missing,
            failed=[(STAGES.get(f.stage, f.stage), f) for f in inputs.failures],
            stages=_stages(sources, inputs, reproducing),
            sources=sources,
            environments=[dict(items) for items in sorted(environments)],
            commands=reproducing,
            report_command=_own_command(results, out, others, runs),
            style=_asset("page.css"),
            script=script,
            script_hash=_script_hash(script),
        )
    )
    with atomic_path(out) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return missing


def _counts(inputs: Inputs, sources: Sequence[Source]) -> list[tuple[str, str]]:
    rows = inputs.networks.rows
    networks = rows["model"][rows["stage"] != "correlate"]
    scored = rows["recording"][rows["stage"] == "score"] if "recording" in rows else ()
    measured = rows["images"].dropna() if "images" in rows else ()
    days = sorted({str(day)[:10] for day in rows["created"]})
    counts = {
        "network": networks.nunique(),
        "recording": len(set(scored)),
        "image set": len(set(measured)),
        "row": len(inputs.rows),
        "configuration": len(sources),
    }
    return [
        *((name if n == 1 else f"{name}s", str(n)) for name, n in counts.items()),
        ("computed", days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"),
    ]


def _stages(
    sources: Sequence[Source], inputs: Inputs, lines: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Every stage that is stored: its title, the table of its rows, its commands."""
    left_out = reasons_left_out(inputs.rows)
    found = []
    for name in dict.fromkeys([*STAGES, *(source.stage for source in sources)]):
        own = [source for source in sources if source.stage == name]
        if own:
            found.append(
                {
                    "title": STAGES.get(name, name.capitalize()),
                    "table": rows_table(own, left_out),
                    "commands": list(dict.fromkeys(lines[s.anchor] for s in own)),
                }
            )
    return found


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
        loader=PackageLoader("ce_align.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "prose": _prose,
        "with_options": _with_options,
        "setting": setting_text,
    }
    return environment


def _prose(text: str) -> "Markup":
    """A sentence: backticks make code, D_B has its subscript, λ = 0 stays together."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    subscript = Markup("D<sub>B</sub>")
    return Markup("").join(
        Markup("<code>{}</code>").format(_with_options(part))
        if place % 2
        else subscript.join(
            map(escape, RELATION.sub("λ\u00a0\\1\u00a0", part).split("D_B"))
        )
        for place, part in enumerate(parts)
    )


def _with_options(command: str) -> "Markup":
    """A command none of whose names and options is broken at its dashes."""
    from markupsafe import Markup, escape

    whole = Markup('<span class="option">{}</span>')
    return Markup(" ").join(
        whole.format(word) if re.fullmatch(r"[\w-]*-[\w-]+", word) else escape(word)
        for word in command.split(" ")
    )


def _asset(name: str) -> str:
    return (files("ce_align.report") / "page" / name).read_text("utf-8").strip()


def _script_hash(script: str) -> str:
    """What the page's policy allows to run: this script and no other."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
