"""A classifier that a person takes home, as one module and as a file for other programs."""
