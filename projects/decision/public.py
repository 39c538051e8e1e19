"""The public names of the project, such as `chopmix.Agent`."""

NAMES = {"recording.scripts": ("Agent", "GaveUp")}
"""The public names by the module that defines them."""
