"""Tests of the pages in docs/, and the scripts that write the generated ones."""
