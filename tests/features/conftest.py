"""Makes the fakes importable by name, in the worker processes that the tests start as well."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
