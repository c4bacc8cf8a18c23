"""``bench`` in a process that may use only so many GB of the card.

python -m tests.benchmarks.gpu.capped GB run ...
"""

from __future__ import annotations

import sys

import torch

from bench.cli import main

if __name__ == "__main__":
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, float(sys.argv[1]) * 1e9 / total))
    sys.argv = ["bench", *sys.argv[2:]]
    main()
