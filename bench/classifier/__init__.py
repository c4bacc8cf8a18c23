"""The classifier that a person takes home: one fitted method, saved as a folder, and its use on new images.

``file`` reads and writes the folder, ``parts`` turns a method's constants into tensors and plain data,
``model`` answers for images, ``images`` opens them, and ``cell`` makes a classifier of a recorded cell.
``module`` makes one module of tower and method, and ``onnx`` writes it for programs without PyTorch.
Reading and using one needs no dataset and no records.
"""
