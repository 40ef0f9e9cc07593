"""YAML as people write it: keys in the order given, texts of several lines as blocks."""

from __future__ import annotations

from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _block(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _block)


def as_yaml(*documents: Any, comment: str = "") -> str:
    """Documents as one YAML text, below a comment."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    parts = (yaml.dump(one, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120) for one in documents)
    return head + "---\n".join(parts)
