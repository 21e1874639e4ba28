"""What the walk-through notebooks show: arrays by the package's own functions, and figures of these arrays."""

from mixcl.errors import needs

needs("notebooks", "ipywidgets", "seaborn")
