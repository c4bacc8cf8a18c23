"""Escape text of records for the page, so that it is never markup and always printable."""

from __future__ import annotations

import html

from bench.names import shown


def escape(text: str) -> str:
    """Escape text for an element or a quoted attribute. Line breaks stay."""
    return html.escape(shown(text, keep="\n"))
