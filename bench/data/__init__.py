"""The images: descriptions of datasets, the readers that find them, the few-shot draw, and views.

This room turns a dataset's name or path into lists of images with labels and class names, draws support and
validation sets from the lists, and opens image files. It imports the ground (errors, names, files, paths,
typed readers) and no other part of bench. It names two readers of the room above it, ``bench.pocket``, by a
string only (``bench.data.catalog``). It never imports open_clip, never trains, and never reads records.
"""
