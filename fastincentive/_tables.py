"""Tables as aligned text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["markdown_table", "name_value_list", "small", "text_table"]


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Align columns, two blanks between them.

    Parameters
    ----------
    header : sequence of c str
    rows : sequence of sequences of c str
    align : str of length c
        "l" or "r" for each column: aligned to the left or to the right.
    """
    lines = [header, *rows]
    widths = [max(len(line[c]) for line in lines) for c in range(len(header))]

    def join(line: Sequence[str]) -> str:
        cells = zip(line, widths, align, strict=True)
        return "  ".join(
            text.ljust(width) if side == "l" else text.rjust(width) for text, width, side in cells
        ).rstrip()

    return "\n".join(join(line) for line in lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Write a Markdown table; arguments as in ``text_table``."""
    rule = ["---" if side == "l" else "---:" for side in align]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def name_value_list(rows: Sequence[tuple[str, object]]) -> str:
    """Lay out names and what they stand for, one a line, the values below each other."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def small(value: float, digits: int = 1) -> str:
    """Format a number of which mainly the size matters: 0, or with an exponent."""
    return "0" if value == 0 else f"{value:.{digits}e}"
