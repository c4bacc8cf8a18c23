"""Few-shot CLIP adaptation under one leak-free protocol."""
