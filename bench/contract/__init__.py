"""The contract: rules that every method must keep, as checks that run on any method or plugin.

``bench check-method`` and the tests of methods share the checks (``checks.py``, ``purity.py``). They run in
a small world of random towers and a few images (``lab.py``) with the program's own plan, desk and records.
The room also holds the starters of ``bench new method`` (``starter.py``). It may import plan, run, executors
and what lies below them. It knows no method by name and imports neither report nor cli.
"""
