"""Write what test_paper.py compares with: `python tests/report/write_golden.py`.

Look at what changed, every figure too, before you keep it.
"""

import tempfile
from pathlib import Path

from synthetic_rows import (
    OWN_INPUTS,
    REMARK,
    all_rows,
    histories,
    other_scores,
    store_arrays,
)
from test_paper import GOLDEN, pixels

from ce_align.report.inputs import Inputs
from ce_align.report.paper import FIGURES, TABLES, build_table, draw
from ce_align.report.paper.files import csv_text, write_table
from ce_align.results import ResultStore


def main():
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        store = ResultStore(Path(folder))
        store_arrays(store)
        rows, scores = all_rows(), other_scores()
        inputs = Inputs(rows, store, scores, dict(histories()), REMARK)
        for name in FIGURES:
            own = OWN_INPUTS.get(("figure", name))
            drawn = draw(name, own() if own else inputs)
            path = GOLDEN / f"figure_{name}.csv"
            path.write_text(csv_text(drawn.data), newline="\n")
            pixels(drawn.figure).save(path.with_suffix(".png"), optimize=True)
        for name in TABLES:
            own = OWN_INPUTS.get(("table", name))
            table = build_table(name, own() if own else inputs)
            write_table(table, GOLDEN / f"table_{name}")


if __name__ == "__main__":
    main()
