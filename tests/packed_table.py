"""Tables that a page of the report carries for its script."""

from __future__ import annotations

import base64
import csv
import gzip
import re


def unpacked(text: str, name: str) -> list[dict[str, str]]:
    """A table that a page carries for its script."""
    found = re.search(f'id="{name}">([^<]+)<', text)
    assert found is not None
    lines = gzip.decompress(base64.b64decode(found[1])).decode().splitlines()
    return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
