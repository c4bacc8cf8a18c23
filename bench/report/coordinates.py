"""The frame's columns that identify a cell, an evaluation and a row of a table."""

from __future__ import annotations

# One fit of one method, as the records name it (``bench.records.types.Cell``).
CELL = ("method", "dataset", "shots", "seed", "backbone", "prompts", "protocol", "preset")
# One evaluation of a fit: on which test set, with which changed settings. The frame has one row for each.
EVALUATION = (*CELL, "target", "variant")
# A row of a table: whatever its seeds and test sets share, in the order that its key is printed in.
ROW = ("backbone", "method", "shots", "prompts", "protocol", "preset", "variant")
