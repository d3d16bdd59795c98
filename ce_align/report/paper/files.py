"""Tables and figures as files, and the configurations that recipes list."""

import re
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from ce_align.config import Spelled, StageConfig
from ce_align.files import atomic_path
from ce_align.report.inputs import Inputs
from ce_align.report.paper import FIGURES, TABLES, build_table, draw, known_name
from ce_align.report.paper.items import BuiltTable, Drawn, merged
from ce_align.report.style import save_figure
from ce_align.stages.running import Run

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    *("FigureConfig", "TableConfig", "csv_text", "execute", "latex", "markdown"),
    *("shared", "to_the_right", "write_figure", "write_table"),
]


class FigureConfig(StageConfig):
    """One figure, a key of `ce_align.report.paper.FIGURES`."""

    stage: ClassVar = "figure"

    figure: Annotated[str, Spelled("--which")] = Field(
        description=f"{', '.join(FIGURES)}."
    )
    columns: Literal[1, 2] = Field(default=2, description="Width in columns of a page.")
    others: str | None = Field(
        default=None, description="CSV of other networks' scores, for Figure 4."
    )
    runs: tuple[str, ...] = Field(
        default=(), description="Folder of a training, for its curves."
    )

    @field_validator("figure")
    @classmethod
    def _figure_exists(cls, name: str) -> str:
        return known_name("figure", name)

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"figure_{self.figure}"


class TableConfig(StageConfig):
    """One table, a key of `ce_align.report.paper.TABLES`."""

    stage: ClassVar = "table"

    table: Annotated[str, Spelled("--which")] = Field(
        description=f"{', '.join(TABLES)}."
    )

    @field_validator("table")
    @classmethod
    def _table_exists(cls, name: str) -> str:
        return known_name("table", name)

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"table_{self.table}"


def shared(config: FigureConfig | TableConfig) -> Hashable:
    """What configurations have in common that are drawn together: the same rows."""
    return (config.others, config.runs) if isinstance(config, FigureConfig) else None


def execute(configs: Sequence[FigureConfig | TableConfig], run: Run) -> None:
    """Write tables and figures of the rows in the store."""
    first = configs[0]
    others, runs = None, []
    if isinstance(first, FigureConfig):
        others = None if first.others is None else Path(first.others)
        runs = [Path(folder) for folder in first.runs]
    inputs = Inputs.load(run.store.folder, others, runs)
    noted: list[str] = []
    for config in configs:
        path = run.out / config.stem
        with run.attempt(config.stem):
            made: Drawn | BuiltTable
            if isinstance(config, FigureConfig):
                made = draw(config.figure, inputs, config.columns)
                run.outcome.files += write_figure(made, path)
            else:
                made = build_table(config.table, inputs)
                run.outcome.files += write_table(made, path)
                run.outcome.tables.append(made)
            run.outcome.n_done += 1
            noted += [f"{config.stem}: {note}" for note in made.notes]
    run.outcome.captions += merged(noted)


def write_figure(made: Drawn, path: Path) -> list[Path]:
    """Write a figure as PDF, SVG and PNG, its caption as Markdown, its numbers as CSV.

    `path` has no suffix.
    """
    words = [_titled(made), *(f"*{note}*" for note in made.notes)]
    words.append(f"Alternative text: {made.alt}")
    texts = {".md": "\n\n".join(words) + "\n", ".csv": csv_text(made.data)}
    written = [_write(path, suffix, text) for suffix, text in texts.items()]
    return save_figure(made.figure, path) + written


def _titled(made: Drawn | BuiltTable) -> str:
    """Mark, title and caption."""
    mark = f"{made.mark}. " if made.mark else ""
    return f"{mark}**{made.title}.** {made.caption}"


def write_table(table: BuiltTable, path: Path) -> list[Path]:
    """Write a table as Markdown, LaTeX and CSV; `path` has no suffix."""
    csv = csv_text(table.frame)
    texts = {".md": markdown(table), ".tex": latex(table), ".csv": csv}
    return [_write(path, suffix, text) for suffix, text in texts.items()]


def _write(path: Path, suffix: str, text: str) -> Path:
    target = path.with_name(path.name + suffix)
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return target


def csv_text(data: "pd.DataFrame") -> str:
    """A table of numbers as CSV, eight significant digits."""
    data = data.drop(columns="source", errors="ignore")
    text: str = data.to_csv(index=False, float_format="%.8g", lineterminator="\n")
    return text


def markdown(table: BuiltTable) -> str:
    """A table as Markdown with its title, caption and notes."""
    lines = [
        _titled(table),
        "",
        _pipes(table.shown.columns),
        _pipes("---:" if right else "---" for right in to_the_right(table)),
        *(_pipes(row) for row in table.shown.itertuples(index=False)),
    ]
    for note in table.notes:
        lines += ["", f"*{note}*"]
    return "\n".join(lines) + "\n"


def to_the_right(table: BuiltTable) -> list[bool]:
    """Which columns have numbers only."""
    return [
        all(re.match(r"[+−]?\.?\d|–$", str(cell)) for cell in table.shown[column])
        for column in table.shown
    ]


def _pipes(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


#: What LaTeX would take for a command, and letters that its text fonts lack.
_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "ΔD_B": r"$\Delta D_B$",
    "D_B": "$D_B$",
    "λ": r"$\lambda$",
    "Δ": r"$\Delta$",
    "±": r"$\pm$",
    "²": "$^2$",
    "−": "$-$",
    "–": "--",
    "√": r"$\surd$",
    "…": r"\ldots{}",
    ">": "$>$",
    "<": "$<$",
    "→": r"$\to$",
    "×": r"$\times$",
}


def latex(table: BuiltTable) -> str:
    """A table as LaTeX, for the package booktabs."""
    places = "".join("r" if right else "l" for right in to_the_right(table))
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{\textbf{{{_tex(table.title)}.}} {_tex(table.caption)}}}",
        rf"  \begin{{tabular}}{{{places}}}",
        r"    \toprule",
        f"    {' & '.join(map(_tex, table.shown.columns))} " + r"\\",
        r"    \midrule",
        *(
            f"    {' & '.join(map(_tex, row))} " + r"\\"
            for row in table.shown.itertuples(index=False)
        ),
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  \par\footnotesize {_tex(note)}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _tex(cell: object) -> str:
    """Text with what is special to LaTeX written out, the longest match first."""
    longest_first = sorted(_LATEX, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first))
    return re.sub(pattern, lambda found: _LATEX[found.group()], str(cell))
