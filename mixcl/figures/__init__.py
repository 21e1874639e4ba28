"""Every plot, as a function from data to a matplotlib Figure; nothing is computed here that results should.

Figures are built without pyplot, so that they need no display and leave no state behind; a notebook shows one that
ends a cell.
"""

from mixcl.figures.ct import ORGAN_COLOURS as ORGAN_COLOURS
from mixcl.figures.ct import organ_colour as organ_colour
from mixcl.figures.qualitative import overlay as overlay
from mixcl.figures.qualitative import qualitative as qualitative
from mixcl.figures.style import save as save
from mixcl.figures.tables import ARM_COLOURS as ARM_COLOURS
from mixcl.figures.tables import ARM_TITLES as ARM_TITLES
from mixcl.figures.tables import ablation_plot as ablation_plot
from mixcl.figures.tables import dumbbells as dumbbells
from mixcl.figures.tables import effects_plot as effects_plot
from mixcl.figures.tables import table1_plot as table1_plot
from mixcl.figures.training import TERMS as TERMS
from mixcl.figures.training import instruments as instruments
from mixcl.figures.training import losses as losses
from mixcl.figures.training import told as told
