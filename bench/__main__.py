"""``python -m bench`` runs the command ``bench``."""

from bench.cli import main

main()
