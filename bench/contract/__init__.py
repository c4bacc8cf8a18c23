"""The contract of a method, run on any plugin: what ``bench check-method`` and the tests of all methods
share.
"""
