"""Phantoms in the place of the seven collections, with their label gaps."""

from mixcl.data.phantom.collections import write_collections as write_collections
from mixcl.data.phantom.scan import make_case as make_case
