"""Let mkdocstrings show the section `Example:` of a docstring as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Name the section as Google's style does: `Examples:`. Otherwise its lines are taken for text."""

    def on_instance(self, *, obj: Object, **rest: Any) -> None:
        """Rename the section in one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
