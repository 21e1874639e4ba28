"""What the paper's tables say, number for number, so that results can be laid beside it (R21, R22, R23)."""

from typing import NamedTuple

UNKNOWN = "not in the source text"


class PaperRow(NamedTuple):
    """Dice from scratch (T.F.S.), with MixCL (Ours), and the difference as it is printed."""

    scratch: float
    mixcl: float
    difference: float

    @property
    def slip(self) -> bool:
        """The printed difference is not that of the two columns beside it (R21)."""
        return round(self.mixcl - self.scratch, 4) != self.difference


TABLE1: dict[tuple[str, float], PaperRow] = {
    ("msd_spleen", 5): PaperRow(0.5065, 0.5593, 0.0528),
    ("msd_spleen", 15): PaperRow(0.8247, 0.8430, 0.0183),
    ("msd_spleen", 50): PaperRow(0.9424, 0.9453, 0.0019),
    ("msd_spleen", 100): PaperRow(0.9597, 0.9612, 0.0015),
    ("btcv", 15): PaperRow(0.2459, 0.3871, 0.1412),
    ("btcv", 50): PaperRow(0.5851, 0.5939, 0.0085),
    ("btcv", 100): PaperRow(0.7524, 0.7656, 0.0132),
}
"""Table 1 by collection and percent of the labels; the paper spells BTCV also BTVC (R22)."""

SLIPS = dict(zip((key for key, row in TABLE1.items() if row.slip), "ab", strict=True))
"""The letter that marks a row of Table 1 whose printed difference is a slip (R21)."""

TITLES = {"msd_spleen": "Spleen", "btcv": "BTCV"}
"""The blocks of Table 1, from left to right."""

ARMS = {"scratch": "T.F.S.", "mixcl": "Ours"}
"""The arms of Table 1 under their names there."""

TABLE2 = {"Id": "identity", "Label": "alpha", "Recon": "beta"}
"""The columns of Table 2 with check marks, and the weight of ``loss`` that is above 0 where there is a mark.

The numbers of Table 2 are not in our copy of the paper (R23)."""
