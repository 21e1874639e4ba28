"""What an experiment is: frozen settings (:mod:`.settings`), read from a YAML profile (:mod:`.profile`)."""

from mixcl.config.profile import load_profile as load_profile
from mixcl.config.profile import overlaid as overlaid
from mixcl.config.profile import with_settings as with_settings
from mixcl.config.settings import Experiment as Experiment
