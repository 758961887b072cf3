"""References as BibTeX, from the form in which they stand in a text."""

from __future__ import annotations

import re

ARTICLE = re.compile(r"^(?P<journal>.+) (?P<year>\d{4}); (?P<volume>\d+)(?:\((?P<number>[\w-]+)\))?:(?P<pages>[\w-]+)$")
EVENT = re.compile(r"^(?P<event>.+) (?P<year>\d{4})$")


def bibtex(key: str, reference: str) -> str:
    """``Ho J, Jain A. Title. NeurIPS 2020. arXiv:2006.11239`` as an entry.

    Raises:
        ValueError: the reference is written otherwise.
    """
    authors, _, rest = reference.partition(". ")
    title, _, where = rest.partition(". ")
    where, _, eprint = where.partition(". arXiv:")
    fields = {"author": " and ".join(_author(name) for name in authors.split(", ")), "title": f"{{{title}}}"}
    if article := ARTICLE.match(where):
        kind = "article"
        fields |= {
            name: value.replace("-", "--") if name == "pages" else value
            for name, value in article.groupdict().items()
            if value
        }
    elif event := EVENT.match(where):
        kind = "inproceedings"
        fields |= {"booktitle": event["event"], "year": event["year"]}
    elif re.fullmatch(r"\d{4}", where):
        kind = "misc"
        fields |= {"year": where}
    else:
        raise ValueError(f"{reference!r} does not end with where and when it appeared")
    if eprint:
        fields |= {"eprint": eprint, "archiveprefix": "arXiv"}
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def _author(name: str) -> str:
    """``Sonoda LI`` as ``Sonoda, L. I.``; `et al` is what BibTeX calls others."""
    if name in ("et al", "et al."):
        return "others"
    family, _, initials = name.rpartition(" ")
    if not family:
        raise ValueError(f"{name!r} is no family name with initials")
    return f"{family}, {' '.join(f'{letter}.' for letter in initials)}"
