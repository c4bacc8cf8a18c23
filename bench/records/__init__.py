"""The records: what a run leaves behind on disk, and the keys of its numbers.

This room gives every fit and every evaluation its identity (``keys``), says what a record holds (``types``),
and reads and writes records as files (``store``) and packed (``packed``). It checks that what it reads is
what was written (``codec``, ``whole``, ``outcomes``, ``states``). It brings records of an older schema
over (``convert``, ``upgrade``) and joins results folders (``merge``).

It may import the ground, ``clip``, ``features`` and ``registry``. It never imports torch, never makes a
number itself, and never decides which of several records a table shows: ``bench.report`` does that.
"""
