"""This room turns records into what people read.

It makes tables, figures (``figures/``), the HTML report (``html/``), comparisons of two methods, the
regression gate (``gate/``) and comparisons with published numbers (``paper/``).

It makes no new results. It may pack recorded ones (``compact``) and delete stale ones (``survey``).

It may import ``stats``, ``records``, ``data.catalog``, ``prompts`` and the ground modules. It never imports
torch and never runs a method, so that a table can be made on a machine without the models.
"""
