"""One command that measures this program on a GPU: ``python -m tests.benchmarks.gpu --out DIR``.

``__main__`` reads the flags, ``steps`` lists what is measured in order of value, ``watch`` runs the steps in
processes of their own under limits, ``worker`` is such a process, ``digest`` makes tables of what was found.
"""
