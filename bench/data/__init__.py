"""The images: descriptions, readers, few-shot draws, views."""
