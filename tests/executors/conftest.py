"""The tiny measurement of tests/run."""

from tests.run.conftest import bench, cache, images

__all__ = ["bench", "cache", "images"]
