"""The one value of a label map that is no label: neither background (0) nor organ (R33)."""

UNKNOWN = 255
"""Nobody knows what a voxel or pixel of this value is: it takes no part in losses, metrics, counts or draws.

Prepared label maps, classes and labels of pixels have it alike; `mixcl.config.settings.Collection` says which values
of a file it stands for.  What lies beyond a scan is background, as it always was, not unknown.
"""
