"""People and scans as hashes, for what travels further than the cohort: it names nobody, and still knows them again."""

from __future__ import annotations

import hashlib


def hashed_id(participant: str) -> str:
    """16 hexadecimal digits that stand for a person."""
    return _hash("person", participant)


def hashed_scan(content: str) -> str:
    """16 hexadecimal digits that stand for the checksum of a scan."""
    return _hash("scan", content)


def _hash(kind: str, value: str) -> str:
    return hashlib.sha256(f"brain-generative-pipeline:{kind}:{value}".encode()).hexdigest()[:16]
