"""A manifest as TOML: lists one entry a line, so that a change of one file is a change of one line.

Strings are escaped, and the text is read back and compared: a path cannot become anything but a path.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from slalom.errors import ModelError

_HEAD = "# Gramine 1.9, SGX. Written by slalom gramine-manifest; sign it with gramine-sgx-sign as it is.\n"
_TEMPLATE = re.compile(r"\{\{|\{%|\{#")  # what Gramine's Jinja step would take for its own
_BARE = re.compile(r"[A-Za-z0-9_]+")
_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f-\x9f\u2028\u2029]')


def encode_manifest(document: Mapping[str, Mapping[str, Any]]) -> str:
    """The TOML text of a document of tables. Raises ModelError for a string that cannot stand in one."""
    lines = [_HEAD]
    for table, entries in document.items():
        lines.append(f"[{table}]")
        lines += [f"{_key(key)} = {_value(value)}" for key, value in entries.items()]
        lines.append("")
    text = "\n".join(lines)
    if tomllib.loads(text) != document:
        raise ModelError("the manifest does not read back as it was written")
    return text


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + "".join(f"\n  {_value(item)}," for item in value) + ("\n]" if value else "]")
    raise ModelError(f"a manifest holds no {type(value).__name__}")


def _key(text: str) -> str:
    return text if _BARE.fullmatch(text) else _string(text)


def _string(text: str) -> str:
    """A TOML basic string. Raises ModelError for text that is not Unicode, or that a template engine would change."""
    if _TEMPLATE.search(text):
        raise ModelError(f"{text!r:.200} reads as a template to Gramine's tools", hint="give the file another name")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ModelError(f"{text!r:.200} is not valid UTF-8", hint="give the file another name")
    return '"' + _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + '"'
