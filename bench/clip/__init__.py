"""The models: a narrow face over open_clip.

This room resolves a backbone's name to weights on disk, checks these weights and their configurations, builds
the frozen model, and offers what methods need of it: taps of the image tower, pooling heads and the text
tower as pure functions of named tensors. It imports the ground (errors, names, files, paths, typed readers),
open_clip and torch, and no other part of bench. Modules that say that they import no torch can be used in a
plan. Only ``bench.clip.download`` downloads anything, and only ``bench weights get`` calls it. The room
never knows a method, a dataset or a record.
"""
