"""The plan: what a command has to compute, decided before any image is opened.

A request becomes fits and evaluations with their keys (``planner``), each with the reason why it is still to
do (``todo``, ``why``), the features that it reads (``needs``), the time and disk that it costs (``estimate``,
``cost``) and the portions in which workers get it (``rounds``).

The room may import the ground of bench and ``records``, ``features``, ``data``, ``clip``, ``recipe``,
``interface``, ``prompts``, ``sources`` and ``registry`` (``tests/imports.py`` holds the list). It never
imports torch, decodes no image, fits nothing, writes no record, and knows no method or dataset by name.
"""
