"""The contract of a method, run on any plugin: ``bench check-method`` and the methods' tests share it."""
