"""This room writes the report: all results in one HTML file that opens from disk.

It may import the rest of ``report``, ``records`` and ``stats``. The page needs no network and no other file,
and text from records never becomes markup in it.
"""
