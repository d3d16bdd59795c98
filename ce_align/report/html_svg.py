"""A figure of matplotlib as part of a page."""

import re
from xml.etree import ElementTree

__all__ = ["inline_svg"]

SVG = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"

#: Two digits are a hundredth of a point; matplotlib writes six.
LONG = re.compile(r"(\.\d\d)\d+")

#: Attributes that hold coordinates and nothing else.
COORDINATES = ("d", "x", "y")

REFERENCE = re.compile(r"url\(#([^)]+)\)")


def inline_svg(text: str, prefix: str, title: str, description: str) -> str:
    """An SVG document as an element that can stand beside others in a page.

    Identifiers get a prefix, for several figures use the same ones; the style sheet and
    the metadata of the document go, for they would be the page's.

    Parameters
    ----------
    text : as matplotlib writes it
    prefix : of all identifiers, unique in the page
    title, description : what assistive technology reads
    """
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    glyphs = {id(e) for defs in root.iter(f"{{{SVG}}}defs") for e in defs.iter()}
    for element in root.iter():
        _prefix(element, prefix)
        if id(element) not in glyphs:
            for name in COORDINATES:
                if name in element.attrib:
                    shorter = LONG.sub(r"\1", element.attrib[name])
                    element.set(name, shorter)
    width = float(root.attrib["width"].removesuffix("pt"))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("class", "plot")
    root.set("style", f"--natural-width: {width:.0f}pt")
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    for place, (tag, words) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{prefix}-{tag}"})
        element.text = words
        root.insert(place, element)
    return ElementTree.tostring(root, encoding="unicode")


def _prefix(element: ElementTree.Element, prefix: str) -> None:
    for name, value in list(element.attrib.items()):
        if name == "id":
            element.set("id", f"{prefix}-{value}")
        elif name == LINK:
            del element.attrib[LINK]
            own = value.startswith("#")
            element.set("href", f"#{prefix}-{value[1:]}" if own else value)
        elif "url(#" in value:
            element.set(name, REFERENCE.sub(rf"url(#{prefix}-\1)", value))
