"""Name the columns of the frame that identify a cell, an evaluation and a row of a table."""

from __future__ import annotations

# One fit of one method, as the records name it (``bench.records.types.Cell``).
CELL = ("method", "dataset", "shots", "seed", "backbone", "prompts", "protocol", "preset")
# One evaluation of a fit: on which test set, with which changed settings. The frame has one row for each.
EVALUATION = (*CELL, "target", "variant")
# A row of a table is what its seeds and test sets share. The key of a row is printed in this order.
ROW = ("backbone", "method", "shots", "prompts", "protocol", "preset", "variant")
IMPORTED = "imported"  # the prompt set of records that `bench import` wrote, of which nothing is known
