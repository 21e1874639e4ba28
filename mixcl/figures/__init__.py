"""Every plot, as a function from data to a matplotlib Figure; nothing is computed here that results should.

Figures are built without pyplot's state, so that they need no display and leave nothing behind.
"""

from mixcl.errors import needs

needs("notebooks", "seaborn")

from mixcl.figures.gains import gain_arms as gain_arms
from mixcl.figures.gains import gain_heatmap as gain_heatmap
from mixcl.figures.qualitative import qualitative as qualitative
from mixcl.figures.style import save as save
from mixcl.figures.tables import ablation_plot as ablation_plot
from mixcl.figures.tables import dumbbells as dumbbells
from mixcl.figures.tables import effects_plot as effects_plot
from mixcl.figures.tables import table1_plot as table1_plot
from mixcl.figures.training import TERMS as TERMS
from mixcl.figures.training import diagnostics as diagnostics
from mixcl.figures.training import losses as losses
from mixcl.figures.training import origin_of as origin_of
