"""The images: descriptions of datasets, the readers that find them, the few-shot draw, and views.

This room turns a dataset's name or path into lists of images with labels and class names, draws support and
validation sets from the lists, and opens image files. It imports the ground (errors, names, files, paths,
typed readers) and no other part of bench. A room imports only rooms that stand earlier in the list of
docs/architecture.md; ``bench.pocket`` stands later, so ``bench.data.catalog`` names its two readers by a
string. This room never imports open_clip, never trains, and never reads records.
"""
