"""The real scans' collections."""

from __future__ import annotations

from mixcl.config.settings import Collection
from mixcl.data.registry import BTCV_NAMES

IRCAD = {
    1: "liver", 2: "liver tumour", 3: "liver cyst", 4: "portal vein", 5: "venous system", 6: "artery",
    7: "spleen", 8: "right kidney", 9: "left kidney", 11: "right lung", 12: "left lung", 14: "bone",
}  # fmt: skip


COLLECTION = {
    "ircad": Collection(image="ircad{case}/ct.nii.gz", label="ircad{case}/seg.nii.gz", names=IRCAD),
    "total": Collection(image="s0{case}/ct.nii.gz", label="s0{case}/seg_btcv13.nii.gz", names=BTCV_NAMES),
    "sarcoma": Collection(image="sts{case}/ct.nii.gz", label="sts{case}/seg.nii.gz", names={1: "tumour"}),
}
