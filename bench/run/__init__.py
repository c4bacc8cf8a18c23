"""The run: cells in one process, from features to records.

A ``Desk`` does one cell after the other. Its ``Encoder`` fills the feature store, its ``States`` fit or load
what a cell reads, ``fit`` and ``evaluate`` compute one cell, and its ``Recorder`` writes the records.
``Session`` holds what they share: device, backbones and feature store. ``guard`` undoes what a method does to
others.

The room may import the ground of bench and ``plan``, ``records``, ``train``, ``features``, ``data``,
``clip``, ``interface``, ``prompts``, ``sources`` and ``registry`` (``tests/imports.py`` holds the list). It
starts no other process to do cells (``executors`` does), prints nothing itself, and knows no method or
dataset by name.
"""
