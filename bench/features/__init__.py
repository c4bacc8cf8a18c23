"""Features: every image is encoded once per view, for all methods, shots and seeds."""
