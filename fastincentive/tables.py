"""Tables as aligned text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["markdown_table", "text_table"]

Rows = Sequence[Sequence[str]]


def text_table(header: Sequence[str], rows: Rows, left: int = 1) -> str:
    """Align columns with two blanks between them.

    Parameters
    ----------
    header : sequence of str
    rows : sequence of sequences of str
        Each as long as the header.
    left : int
        This many columns from the left, and the last one, are aligned to the left, the others to
        the right.
    """
    lines = [header, *rows]
    widths = [max(len(line[c]) for line in lines) for c in range(len(header))]
    last = len(header) - 1

    def join(line: Sequence[str]) -> str:
        cells = [
            text.ljust(width) if c < left or c == last else text.rjust(width)
            for c, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(join(line) for line in lines)


def markdown_table(header: Sequence[str], rows: Rows, left: int = 1) -> str:
    """Write a Markdown table, the first ``left`` columns and the last aligned to the left."""
    last = len(header) - 1
    rule = ["---" if c < left or c == last else "---:" for c in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])
