"""Rows of linear evaluation as a table for the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from ce_align.stages.transfer import TransferRow

__all__ = ["transfer_table"]

#: How a convention is called where a person reads it.
CONVENTIONS = {"top1": "top-1", "mean_per_class": "mean per class"}


def transfer_table(rows: "Sequence[TransferRow]") -> Table:
    """Accuracy in percent, with its spread over runs and its error over test images."""
    table = Table(title="Linear evaluation, accuracy in %", title_justify="left")
    for name in ("model", "data set", "accuracy"):
        table.add_column(name, overflow="fold")
    for name in ("mean", "± sd of runs", "± test error", "λ", "train/val/test", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        sizes = (row.n_train, row.n_validation, row.n_test)
        table.add_row(
            row.model,
            row.dataset,
            CONVENTIONS[row.convention],
            "–" if row.value is None else f"{100 * row.value:.2f}",
            "–" if row.sd is None else f"{100 * row.sd:.2f}",
            f"{100 * row.error:.2f}",
            f"{row.strength:.2g}",
            "/".join(map(str, sizes)),
            str(row.size),
        )
    return table
