"""This room explains what a CLIP looks at, before and after a fit.

It computes the correspondence of two images, heat maps, and the importance of image parts (Shapley values),
and draws them. It may import torch and the rooms ``executors``, ``run``, ``plan``, ``records``, ``pocket``,
``data``, ``clip``, ``interface``, ``registry`` and ``stats``. It fits a method only through the engine, so
that the fit is recorded like any other. It never imports ``report`` and never changes a method.
"""
