"""The embedded suite: glyphs, scenes, and the recipe that made the two embedded CLIPs."""
