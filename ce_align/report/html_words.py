"""Sentences and commands as markup; all that others wrote is escaped."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["prose", "with_options"]

#: What stands on both sides of a sign that no line should begin or end with.
RELATION = re.compile(r"λ ([=><]) (?=[.\d])")


def prose(text: str) -> "Markup":
    """A sentence: backticks make code, D_B has its subscript, λ = 0 stays together."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    subscript = Markup("D<sub>B</sub>")
    return Markup("").join(
        Markup("<code>{}</code>").format(with_options(part))
        if place % 2
        else subscript.join(
            map(escape, RELATION.sub("λ\u00a0\\1\u00a0", part).split("D_B"))
        )
        for place, part in enumerate(parts)
    )


def with_options(command: str) -> "Markup":
    """A command none of whose names and options is broken at its dashes."""
    from markupsafe import Markup, escape

    whole = Markup('<span class="option">{}</span>')
    return Markup(" ").join(
        whole.format(word) if re.fullmatch(r"[\w-]*-[\w-]+", word) else escape(word)
        for word in command.split(" ")
    )
