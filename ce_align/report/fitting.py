"""Names and words in fewer cells."""

import re
from collections.abc import Iterable

from rich.cells import cell_len

__all__ = ["breakable", "shortened"]


def shortened(names: Iterable[str], width: int) -> dict[str, str] | None:
    """Names of at most `width` cells, cut in their middle and different still.

    All are cut at the same place, which is the middle if that tells them apart. None if
    they can not be told apart.

    >>> shortened(["runs/barlow_l0.1", "runs/barlow_l0.3"], 10)
    {'runs/barlow_l0.1': 'runs/…l0.1', 'runs/barlow_l0.3': 'runs/…l0.3'}
    """
    distinct = dict.fromkeys(names)
    if all(cell_len(name) <= width for name in distinct):
        return {name: name for name in distinct}
    kept = max(width - 1, 0)
    whole = {name: name for name in distinct if cell_len(name) <= width}
    for tail in sorted(range(kept + 1), key=lambda tail: abs(2 * tail - kept)):
        found, taken = dict(whole), set(whole)
        for name in distinct:
            if name not in whole:
                end = _begin(name[::-1], tail)[::-1]
                found[name] = f"{_begin(name, kept - tail)}…{end}"
                if found[name] in taken:
                    break
                taken.add(found[name])
        else:
            return found
    return None


def _begin(text: str, width: int) -> str:
    """As many first characters as have room."""
    if text.isascii():
        return text[:width]
    end = 0
    while end < len(text) and cell_len(text[: end + 1]) <= width:
        end += 1
    return text[:end]


def breakable(text: str, width: int) -> str:
    """A text whose words are broken behind a hyphen or slash where they are too long.

    >>> breakable("an augmentation–augmentation", 15)
    'an augmentation–\\naugmentation'
    """
    words = []
    for word in text.split(" "):
        lines, short = [""], cell_len(word) <= width
        for piece in [word] if short else re.split(r"(?<=[-–/_])", word):
            if cell_len(lines[-1] + piece) <= width:
                lines[-1] += piece
            else:
                lines.append(piece)
        words.append("\n".join(filter(None, lines)))
    return " ".join(words)
