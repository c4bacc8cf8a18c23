"""Text of records in the page: never markup, and nothing in it that is not printable."""

from __future__ import annotations

import html

from bench.names import shown


def escape(text: str) -> str:
    """Text for an element or a quoted attribute; line breaks stay."""
    return html.escape(shown(text, keep="\n"))
