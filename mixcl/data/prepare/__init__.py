"""``mixcl data prepare``: from files to the store."""

from mixcl.data.prepare.run import prepare as prepare
