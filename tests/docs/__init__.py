"""Scripts that make pages of docs/ from the program, and the tests that these pages are current."""
