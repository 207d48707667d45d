"""The command line, one command a file; ``minboost.cli`` gathers them.

``options`` holds what they share: the options of a model and of a method, and what these come to.
"""
