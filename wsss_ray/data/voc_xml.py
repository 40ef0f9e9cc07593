"""Read the class names in the XML annotations of Pascal VOC."""

from __future__ import annotations

from xml.etree import ElementTree

from wsss_ray.core.errors import shown


def read_annotation(data: bytes, where: str, *, drop_difficult: bool = False) -> tuple[str, ...]:
    """Read the class names of the objects in a VOC annotation, each once. Raises ValueError that names the file (`where`)."""
    try:
        top = ElementTree.fromstring(data, ElementTree.XMLParser(target=_Plain()))
    except _DocumentType as err:
        raise ValueError(f"{where}: a document type is not expected in an annotation; remove it") from err
    except (ElementTree.ParseError, LookupError, ValueError) as err:
        raise ValueError(f"{where}: not XML: {shown(str(err), 200)}") from err
    objects = top.findall("object")
    easy = [found for found in objects if (found.findtext("difficult") or "0").strip() != "1"]
    kept = easy if drop_difficult and easy else objects
    names = [(found.findtext("name") or "").strip() for found in kept]
    return tuple(dict.fromkeys(names))


class _DocumentType(Exception):
    """Raised if an annotation has a document type, which may define entities that expand or name other files."""


class _Plain(ElementTree.TreeBuilder):
    """Build elements and text, but refuse a document type."""

    def doctype(self, *_: object) -> None:
        """Refuse the document type before anything in it is read."""
        raise _DocumentType
