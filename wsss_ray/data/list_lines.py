r"""Write and read the lines of text lists: names of images and of classes, with comments.

A `#` starts a comment at the start of a line, and where white space is on both sides of it. So `photo #1` and `C#` are names, and
names may hold spaces. In these two places `\#` is a `#` of the name.
"""

from __future__ import annotations

import re

_COMMENT = re.compile(r"(?:^|(?<=\s)(?=#(?:\s|$)))#.*", re.DOTALL)
_MARKED = re.compile(r"^\\(?=\\*#)|(?<=\s)\\(?=\\*#(?:\s|$))")
_NEEDS_MARK = re.compile(r"^(?=\\*#)|(?<=\s)(?=\\*#(?:\s|$))")
_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")


def as_line(name: str) -> str:
    r"""Return the line, without its end, that `of_line` reads as this name. Line breaks in the name become spaces.

    Example:
        >>> as_line("#1 song"), as_line("C#")
        ('\\#1 song', 'C#')
    """
    return _NEEDS_MARK.sub(r"\\", _BREAKS.sub(" ", name).strip())


def of_line(line: str) -> str:
    r"""Return the text of a line without its comment and without white space around it.

    Example:
        >>> of_line("  dog # our own"), of_line("\\#1 song"), of_line("# all")
        ('dog', '#1 song', '')
    """
    return _MARKED.sub("", _COMMENT.sub("", line.strip()).strip())
