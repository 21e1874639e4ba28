"""``mixcl data check``: every file read, all that is wrong told, and a page with pictures."""

from mixcl.data.check.run import check as check
