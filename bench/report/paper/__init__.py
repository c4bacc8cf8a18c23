"""Published numbers (results/paper), and ours beside them with a verdict."""
