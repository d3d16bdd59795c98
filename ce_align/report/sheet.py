"""Records as tables that fit: what varies is a column, what is shared stands above."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ce_align.checks import nearest_names
from ce_align.errors import ConfigError
from ce_align.names import printable
from ce_align.report.fitting import breakable, shortened

__all__ = ["UNBOUNDED", "Column", "Sheet", "as_asked", "facts_sheet"]

Record = Mapping[str, Any]

#: Width of a pipe, which has none: nothing is shortened in so much.
UNBOUNDED = 10_000
#: Cells between two columns.
GAP = 2
#: Lines that a heading has at most, unless its cells are narrower than its words.
HEADING_LINES = 3
#: And before rows that stand below a heading.
INDENT = 2
#: No name or text is put into fewer cells; texts not below the second before columns
#: have left the table.
NARROWEST, NARROWEST_TEXT = 12, 20
#: So many notes stand below a table, unless --full asks for all.
MOST_NOTES = 8
MISSING = "–"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name : field of the records, by which it is asked for
    title : above it; without one the name in words
    form : of its values: a format of numbers, or a function to text
    of : what it shows of a record, in place of the field
    kind : how it becomes narrower: a name is shortened in its middle, a text wrapped,
        what is whole and a number never; without a kind it is a number if its values
        are, else a name
    keep : it stays a column even where all rows have the same
    known : it does, too, if there is a value at all
    extra : it leaves the table where the width is not enough, the last one first
    fact : how it is told above the table, from ``title`` and ``value``
    head : how it is told above rows that share it, from ``value``
    """

    name: str
    title: str = ""
    form: str | Callable[[Any], str] = ".4g"
    of: Callable[[Record], Any] | None = None
    kind: Literal["name", "whole", "text", "number"] | None = None
    keep: bool = False
    known: bool = False
    extra: bool = False
    fact: str = "{title} {value}"
    head: str = "{value}"

    @property
    def heading(self) -> str:
        """What stands above it."""
        return self.title or printable(self.name.replace("_", " "))

    def value(self, record: Record) -> Any:
        """What it shows of a record, as it is."""
        return record.get(self.name) if self.of is None else self.of(record)

    def cell(self, record: Record) -> str:
        """What it shows of a record, as text in one line."""
        value = self.value(record)
        if value is None or value != value or value == "":
            return MISSING
        if not isinstance(self.form, str):
            return printable(self.form(value))
        return _text(value, self.form)


@dataclass(frozen=True)
class Sheet:
    """Records and how a person reads them; rich prints it in any width.

    Attributes
    ----------
    records : one a row
    columns : from left to right; those without any value are left out
    title : above the table
    by : columns whose equal rows stay together
    effect : fields by which rows are sorted, the largest first; rows that stay together
        by their largest
    in_order : rows that stay together keep their order
    notes : below the table
    notes_of : notes of one record, to which marks beside its effect lead
    full : nothing is shortened, and no column leaves the table
    """

    records: Sequence[Record]
    columns: Sequence[Column]
    title: str = ""
    by: tuple[str, ...] = ()
    effect: tuple[str, ...] = ()
    in_order: bool = False
    notes: Sequence[str] = ()
    notes_of: Callable[[Record], Sequence[str]] = lambda record: ()
    full: bool = False

    def asked(
        self, columns: Sequence[str] = (), sort: str | None = None, full: bool = False
    ) -> "Sheet":
        """The same rows as somebody wants to see them.

        Parameters
        ----------
        columns : names of those to show, in this order; what it has not is left out
        sort : name of the column to sort by, - before it for the largest first
        full : every field of the records is shown, and nothing shortened
        """
        own = {column.name: column for column in self.columns}
        names = columns or (self.names if full else own)
        found = [own.get(name, Column(name)) for name in names if name in self.names]
        if columns:
            found = [replace(column, keep=True, extra=False) for column in found]
        by = tuple(name for name in self.by if not columns or name in columns)
        sheet = replace(self, columns=found, by=by, full=full)
        name = (sort or "").removeprefix("-")
        if name not in self.names:
            return sheet
        value = own.get(name, Column(name)).value
        records = _arranged(self.records, value, largest=sort != name)
        return replace(sheet, records=records, by=(), effect=())

    @property
    def names(self) -> dict[str, None]:
        """Every column by which it may be asked for."""
        fields = (name for record in self.records for name in record)
        return dict.fromkeys([*(column.name for column in self.columns), *fields])

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        if self.title:
            yield Text(printable(self.title), "bold", overflow="fold")
        if self.records:
            # What is read by a person has signs; what a program reads, hyphens.
            signs = options.is_terminal and options.encoding.startswith("utf")
            yield from self._body(options.max_width, signs)

    def _body(self, width: int, signs: bool) -> Iterator[RenderableType]:
        records = self._ordered()
        laid = [_Laid(column, records) for column in self.columns]
        for one in laid if signs else ():
            if one.kind == "number":
                one.cells = [cell.replace("-", "−") for cell in one.cells]
        laid = [one for one in laid if one.column.keep or not one.is_empty]
        shown = [one for one in laid if one.is_kept or not one.is_same]
        facts = [one for one in laid if one not in shown]
        shared, marks, notes = self._marked(records)
        if any(marks) and shown:
            place = [one.column.name in self.effect for one in shown]
            after = place.index(True) + 1 if any(place) else len(shown)
            shown.insert(after, _Laid.of_marks(marks))
        if facts:
            told = _in_lines([one.fact(0) for one in facts], width)
            yield Text(told, overflow="fold")
        if shown:
            yield from self._laid_out(shown, width)
        below = [*self.notes, *shared, *notes]
        most = len(below) if self.full or width >= UNBOUNDED else MOST_NOTES
        for note in below[:most]:
            yield Text(printable(note), overflow="fold")
        if len(below) > most:
            yield Text(f"and {len(below) - most} more notes (--full)")

    def _laid_out(self, shown: list["_Laid"], width: int) -> Iterator[RenderableType]:
        """The table, with headings of blocks or without columns where it must be."""
        widths = _fit(shown, width, [one.natural for one in shown])
        if widths is None and self.full:
            yield from _one_below_another(shown, width)
            return
        heads = [one for one in shown if one.column.name in self.by]
        blocks = _blocks(heads)
        left: list[_Laid] = []
        if widths is None and 0 < len(blocks) < len(shown[0].cells):
            told = [
                one
                for one in shown
                if one not in heads
                and not one.is_kept
                and all(map(one.is_same_in, blocks))
            ]
            shown = [one for one in shown if one not in (*heads, *told)]
            while any(cell_len(_heading(heads, told, b)) > width for b in blocks):
                extra = [one for one in told if one.column.extra]
                if not extra:
                    break
                left.insert(0, extra[-1])
                told.remove(extra[-1])
        else:
            heads, told = [], []
        inner = width - INDENT if heads else width
        while widths is None and shown:
            widths = _fit(shown, inner, [one.narrowest for one in shown])
            extra = [one for one in shown if one.column.extra]
            if widths is None and not extra:
                break
            if widths is None:
                left.insert(0, extra[-1])
                shown.remove(extra[-1])
        widths = widths or _fit(shown, inner, [one.folded for one in shown])
        parts = _parts(shown, width) if widths is None and not heads else None
        if parts is not None:
            for place, (part, fitting) in enumerate(parts):
                if place:
                    yield Text("")
                yield from _table(part, fitting, range(len(shown[0].cells)))
        elif widths is None:
            yield from _one_below_another([*heads, *told, *shown], width)
            return
        elif heads:
            yield from _table(shown, widths, range(0), indent=INDENT)
            for block in blocks:
                yield Text(_heading(heads, told, block), "bold", overflow="fold")
                yield from _table(shown, widths, block, indent=INDENT, header=False)
        else:
            blank = () if width >= UNBOUNDED else self.by
            yield from _table(shown, widths, range(len(shown[0].cells)), blank)
        if left:
            names = [one.column.heading for one in left]
            line = f"not shown at this width: {', '.join(names)} (--full)"
            yield Text(line, overflow="fold")

    def _ordered(self) -> list[Record]:
        """Records by effect, those that belong together in one block."""
        blocks: dict[tuple[Any, ...], list[Record]] = {}
        for record in self.records:
            blocks.setdefault(tuple(map(record.get, self.by)), []).append(record)
        if not self.effect:
            return [record for block in blocks.values() for record in block]

        def effect(record: Record) -> tuple[float, ...]:
            return tuple(_rank(record.get(name)) for name in self.effect)

        if not self.by:
            return sorted(self.records, key=effect, reverse=True)
        if not self.in_order:
            for block in blocks.values():
                block.sort(key=effect, reverse=True)
        else:
            ordered = sorted(
                blocks.values(), key=lambda block: max(map(effect, block)), reverse=True
            )
            return [record for block in ordered for record in block]
        return [record for block in blocks.values() for record in block]

    def _marked(
        self, records: Sequence[Record]
    ) -> tuple[list[str], list[str], list[str]]:
        """Notes of all records; the mark of each record; notes that are marked."""
        of_each = [list(self.notes_of(record)) for record in records]
        every = list(dict.fromkeys(note for notes in of_each for note in notes))
        shared = [note for note in every if all(note in notes for notes in of_each)]
        marked = {
            note: f"[{k}]"
            for k, note in enumerate((note for note in every if note not in shared), 1)
        }
        marks = [
            " ".join(marked[note] for note in notes if note in marked)
            for notes in of_each
        ]
        return shared, marks, [f"{mark} {note}" for note, mark in marked.items()]


class _Laid:
    """A column with its cells."""

    def __init__(self, column: Column, records: Sequence[Record]) -> None:
        self.column = column
        self.cells = [column.cell(record) for record in records]
        self._short: dict[int, dict[str, str] | None] = {}
        values = [column.value(record) for record in records]
        self.kind = column.kind or (
            "number" if all(map(_is_number, values)) else "name"
        )

    @classmethod
    def of_marks(cls, marks: Sequence[str]) -> "_Laid":
        column = Column("", title=" ", kind="number", keep=True)
        laid = cls(column, [])
        laid.cells = list(marks)
        return laid

    @property
    def is_empty(self) -> bool:
        return all(cell == MISSING for cell in self.cells)

    @property
    def is_kept(self) -> bool:
        return self.column.keep or self.column.known

    @property
    def is_same(self) -> bool:
        return len(set(self.cells)) == 1

    def is_same_in(self, block: range) -> bool:
        """Whether all rows of a block have one value here."""
        return len({self.cells[place] for place in block}) == 1

    def head(self, place: int) -> str:
        """What a row has here, in the heading of a block."""
        return self.column.head.format(value=self.cells[place])

    def fact(self, place: int) -> str:
        """What a row has here, in words."""
        value = self.cells[place]
        return self.column.fact.format(title=self.column.heading, value=value)

    @property
    def natural(self) -> int:
        """Cells that it takes with nothing shortened or wrapped."""
        return max(map(cell_len, (self.column.heading, *self.cells)))

    @property
    def wrapped(self) -> int:
        """Cells that it takes with its heading wrapped into a few lines."""
        heading = self.column.heading
        least = max(map(cell_len, (*heading.split(), *self.cells)), default=0)
        while least and len(wrap(heading, least)) > HEADING_LINES:
            least += 1
        return least

    @property
    def folded(self) -> int:
        """Cells that it can do with if its names are folded."""
        if self.kind in ("number", "whole"):
            return self.wrapped
        heading = max(map(cell_len, self.column.heading.split() or [""]))
        return min(self.wrapped, max(NARROWEST, heading))

    @property
    def narrowest(self) -> int:
        """Cells that it can do with, its names in one line and told apart."""
        least = self.folded
        if self.kind == "text":
            return min(self.wrapped, max(least, NARROWEST_TEXT))
        while least < self.wrapped and shortened(self.cells, least) is None:
            least += 1
        return least

    def texts(self, width: int, places: range) -> list[Text]:
        """Its cells in a width, names shortened or, if they were alike then, folded."""
        if width not in self._short:
            text = self.kind == "text"
            self._short[width] = None if text else shortened(self.cells, width)
        short, cells = self._short[width], [self.cells[place] for place in places]
        if short is None:
            return [Text(breakable(cell, width), overflow="fold") for cell in cells]
        return [Text(short[cell], no_wrap=True) for cell in cells]


def _fit(shown: Sequence[_Laid], width: int, least: Sequence[int]) -> list[int] | None:
    """Widths of columns that fit together, none below its least; None without such."""
    room = width - GAP * (len(shown) - 1)
    if sum(least) > room:
        return None
    widths = [one.natural for one in shown]
    if sum(widths) > room:
        wrapped = [one.wrapped for one in shown]
        widths = [max(pair) for pair in zip(wrapped, least, strict=True)]
    while sum(widths) > room:
        spare = [w if w > n else 0 for w, n in zip(widths, least, strict=True)]
        widths[spare.index(max(spare))] -= 1
    # What is left over goes to headings that would be wrapped.
    for place, one in enumerate(shown):
        widths[place] += min(max(one.natural - widths[place], 0), room - sum(widths))
    return widths


def _blocks(heads: Sequence[_Laid]) -> list[range]:
    """Rows that follow each other and have the same heads."""
    keys = list(zip(*(one.cells for one in heads), strict=True))
    starts = [k for k, key in enumerate(keys) if k == 0 or key != keys[k - 1]]
    ends = [*starts[1:], len(keys)] if keys else []
    return [range(start, end) for start, end in zip(starts, ends, strict=True)]


def _in_lines(facts: Iterable[str], width: int) -> str:
    """Facts one after the other, none broken that fits into a line."""
    lines = [""]
    for fact in facts:
        longer = f"{lines[-1]} · {fact}" if lines[-1] else fact
        if lines[-1] and cell_len(longer) > width:
            lines.append(fact)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _heading(heads: Sequence[_Laid], told: Sequence[_Laid], block: range) -> str:
    """What a block of rows shares."""
    first = block.start
    facts = [one.fact(first) for one in told if one.cells[first] != MISSING]
    return " · ".join([*(one.head(first) for one in heads), *facts])


def _table(
    shown: Sequence[_Laid],
    widths: Sequence[int],
    places: range,
    blank: Collection[str] = (),
    *,
    indent: int = 0,
    header: bool = True,
) -> Iterator[RenderableType]:
    """Rows in exact widths; of `blank` columns what repeats is not written again."""
    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
        show_header=header and any(one.column.heading.strip() for one in shown),
    )
    texts = []
    for one, width in zip(shown, widths, strict=True):
        table.add_column(
            Text(one.column.heading, no_wrap=False),
            width=width,
            justify="right" if one.kind == "number" else "left",
        )
        texts.append(one.texts(width, places))
    for place, row in zip(places, zip(*texts, strict=True), strict=True):
        repeats, cells = place > 0, []
        for one, text in zip(shown, row, strict=True):
            is_blank = one.column.name in blank
            if is_blank:
                repeats &= one.cells[place] == one.cells[place - 1]
            cells.append(Text() if is_blank and repeats else text)
        table.add_row(*cells)
    yield Padding(table, (0, 0, 0, indent), expand=False)


def _parts(
    shown: Sequence[_Laid], width: int
) -> list[tuple[list[_Laid], list[int]]] | None:
    """Tables with their widths, each begun by the columns that tell all rows apart.

    Where those leave no room, by the first one. None if a column does not fit beside.
    """
    rows = list(zip(*(one.cells for one in shown), strict=True))
    distinct = (k for k in range(len(shown)) if len({r[:k] for r in rows}) == len(rows))
    for n_keys in dict.fromkeys((next(distinct, 1), 1)):
        keys, parts = list(shown[:n_keys]), list[tuple[list[_Laid], list[int]]]()
        for one in shown[n_keys:]:
            for begun in [parts[-1][0], keys] if parts else [keys]:
                part = [*begun, one]
                widths = _fit(part, width, [each.folded for each in part])
                if widths is not None:
                    break
            else:
                break
            parts[len(parts) - (begun is not keys) :] = [(part, widths)]
        else:
            return parts or None
    return None


def _one_below_another(shown: Sequence[_Laid], width: int) -> Iterator[RenderableType]:
    """Each record as lines of name and value, for what no table can hold."""
    names = shortened([one.column.heading for one in shown], max(width // 3, 8))
    for place in range(len(shown[0].cells)):
        block = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        block.add_column(no_wrap=names is not None, max_width=width // 3)
        block.add_column(overflow="fold")
        for one in shown:
            if one.cells[place] not in ("", MISSING):
                heading = one.column.heading
                name = heading if names is None else names[heading]
                block.add_row(Text(name), Text(one.cells[place], overflow="fold"))
        if place:
            yield Text("")
        yield block


def as_asked(
    sheets: Iterable[Sheet],
    columns: Sequence[str] = (),
    sort: str | None = None,
    full: bool = False,
) -> list[Sheet]:
    """Tables as somebody wants to see them, without those that have no such column.

    Raises
    ------
    ConfigError
        If none of them has a column that is asked for.
    """
    sheets = [sheet for sheet in sheets if sheet.records]
    known = {name: None for sheet in sheets for name in sheet.names}
    for name in (*columns, *([sort.removeprefix("-")] if sort else [])):
        if known and name not in known:
            near = nearest_names(name, known) or known
            raise ConfigError(f"no column {name!r}; the nearest are {', '.join(near)}")
    if columns:
        sheets = [one for one in sheets if not one.names.keys().isdisjoint(columns)]
    return [sheet.asked(columns, sort, full) for sheet in sheets]


def facts_sheet(facts: Mapping[str, str], title: str = "") -> Sheet:
    """What is known of one thing: names and texts, those that are empty left out."""
    records = [{"of": of, "text": text} for of, text in facts.items() if text]
    columns = (
        Column("of", " ", kind="text", keep=True),
        Column("text", " ", kind="text", keep=True),
    )
    return Sheet(records, columns, title)


def _arranged(
    records: Iterable[Record], value: Callable[[Record], Any], *, largest: bool
) -> list[Record]:
    """Records by a value, numbers as numbers, those without one last."""
    there: list[Record] = []
    missing: list[Record] = []
    for record in records:
        found = value(record)
        (missing if found is None or found != found else there).append(record)
    if all(_is_number(value(record)) for record in there):
        return [*sorted(there, key=value, reverse=largest), *missing]
    return [*sorted(there, key=lambda r: str(value(r)), reverse=largest), *missing]


def _text(value: Any, form: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return format(value, form)
    if isinstance(value, list | tuple):
        return printable(", ".join(map(str, value)))
    return printable(str(value))


def _is_number(value: Any) -> bool:
    return value is None or (
        isinstance(value, int | float) and not isinstance(value, bool)
    )


def _rank(value: Any) -> float:
    return float(value) if value is not None and value == value else float("-inf")
