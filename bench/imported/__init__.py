"""This room brings in predictions of methods that live elsewhere, as records that tables show.

``table`` reads and checks a CSV file, ``outputs`` turns probabilities into what records keep of an image, and
``records`` writes the records. The room runs nothing and imports no torch. docs/import.md shows the form of
the file.
"""
