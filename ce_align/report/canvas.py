"""What figures are drawn on; a module apart, for matplotlib takes time to import."""

import io
from typing import Any

from matplotlib.figure import Figure

__all__ = ["Canvas"]

#: Pixels an inch that a notebook shows, and as many times that are drawn.
SHOWN, FINER = 100, 2


class Canvas(Figure):
    """A figure that a notebook shows, whatever its backend."""

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        from ce_align.report.style import style

        stream = io.BytesIO()
        with style():
            self.savefig(stream, format="png", dpi=SHOWN * FINER)
        return stream.getvalue(), {"width": int(self.get_figwidth() * SHOWN)}
