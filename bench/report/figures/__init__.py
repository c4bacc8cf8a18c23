"""Figures of the recorded results, drawn with Seaborn: one file per kind, ``plot`` puts them together."""
