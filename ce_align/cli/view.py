"""How commands show rows: as tables that fit, as JSON, or as CSV."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ce_align.cli.screen import message, only_json, print_json, print_sheets, print_text
from ce_align.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ce_align.report.sheet import Sheet

__all__ = ["View"]

PANEL = "Options of every table"


def _whole(text: str | None) -> str | None:
    if text is not None and not text.strip(" ,-"):
        raise ConfigError("--columns and --sort take names of columns, found none")
    return text


def _printed(path: Path | None) -> Path | None:
    only_json(str(path) == "-")
    return path


@dataclass(frozen=True)
class View:
    """How the rows of a command are shown."""

    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Every column, nothing shortened.",
            rich_help_panel=PANEL,
        ),
    ] = False
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            callback=_whole,
            help="Only these columns, by their names in --json.",
            rich_help_panel=PANEL,
        ),
    ] = None
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            callback=_whole,
            help="Sort by this column; -COLUMN for the largest first.",
            rich_help_panel=PANEL,
        ),
    ] = None
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=_printed,
            help="Write every row in full here, '-' for standard output, and print no "
            "table.",
            rich_help_panel=PANEL,
        ),
    ] = None
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            callback=only_json,
            help="Print every row in full as JSON, and nothing else.",
            rich_help_panel=PANEL,
        ),
    ] = False

    def show(
        self,
        rows: "Sequence[BaseModel | Mapping[str, Any]]",
        sheets: "Iterable[Sheet]",
    ) -> None:
        """Print rows as they are asked for.

        Parameters
        ----------
        rows : all that there is to know, for JSON and CSV
        sheets : what a person sees of them

        Raises
        ------
        ConfigError
            If no row has a column that is asked for.
        """
        names = [name.strip() for name in (self.columns or "").split(",")]
        names = [name for name in names if name]
        if self.csv is not None or self.json:
            records = _records(rows, names, self.sort)
            if self.json:
                if str(self.csv) == "-":
                    raise ConfigError("--json and --csv - both print; give one of them")
                print_json(records)
            if self.csv is not None:
                _write_csv(records, self.csv)
            return
        from ce_align.report.sheet import as_asked

        print_sheets(as_asked(sheets, names, self.sort, self.full))


def _records(
    rows: "Sequence[BaseModel | Mapping[str, Any]]",
    names: Sequence[str],
    sort: str | None,
) -> list[dict[str, Any]]:
    """Rows with the columns that are asked for, all without, in the order asked for."""
    from ce_align.report.sheet import Sheet, as_asked

    whole = [
        dict(row) if isinstance(row, Mapping) else row.model_dump(mode="json")
        for row in rows
    ]
    return [
        {name: record.get(name) for name in names} if names else dict(record)
        for sheet in as_asked([Sheet(whole, ())], names, sort)
        for record in sheet.records
    ]


def _write_csv(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    from ce_align.files import atomic_path

    text = io.StringIO()
    fields = dict.fromkeys(name for record in records for name in record)
    writer = csv.DictWriter(text, list(fields), lineterminator="\n")
    writer.writeheader()
    for record in records:
        # Lists as JSON writes them.
        plain = {
            n: json.dumps(v) if isinstance(v, list | dict) else v
            for n, v in record.items()
        }
        writer.writerow(plain)
    if str(path) == "-":
        print_text(text.getvalue().rstrip("\n"))
        return
    with atomic_path(path) as temporary:
        temporary.write_text(
            text.getvalue(), encoding="utf-8", errors="backslashreplace", newline=""
        )
    n = len(records)
    message(f"{n} {'row' if n == 1 else 'rows'} in {path}")
