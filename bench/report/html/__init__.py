"""The report: all results in one HTML file that opens from disk and asks no network for anything."""
