"""This room compares our results with published numbers (results/paper).

It may import the rest of ``report``. It reads published numbers from CSV files and never changes them.
"""
