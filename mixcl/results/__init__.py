"""From evaluated runs to tables, statistics, the run card, the page of a run, and their verification."""

from mixcl.results.runs import Runs as Runs
from mixcl.results.runs import read_runs as read_runs
from mixcl.results.statistics import organ_metrics as organ_metrics
from mixcl.results.write import Table as Table
from mixcl.results.write import comparisons as comparisons
from mixcl.results.write import organs as organs
from mixcl.results.write import table1 as table1
from mixcl.results.write import table2 as table2
