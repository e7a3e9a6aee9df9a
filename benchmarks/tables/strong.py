"""The table of the strong baseline: its tricks, one after the other."""

from dataclasses import replace

from benchmarks.tables.definitions import Columns, Data, Row, Score, Table, Variant

MARKET = Data("strong_market1501", "strong_market1501")
DUKE = Data("strong_dukemtmc_reid", "strong_dukemtmc_reid")
STREET = Data("strong_street", "strong")
STREET_HELD_OUT = Data("strong_street_held_out", "strong", ("data.validation=30",))

# Setting -> its value with the trick, and without. Every row of the paper adds one trick to those above.
TRICKS = {
    "warm-up": ("stages.classifier.optimizers.classifier.warmup", "0.0833", "0"),
    "random erasing": ("data.augment.erase", "0.5", "0"),
    "label smoothing": ("method.label_smoothing", "0.1", "0"),
    "last stride 1": ("method.last_stride", "1", "2"),
    "batch-norm neck": ("method.bnneck", "true", "false"),
    "center loss": ("method.center_weight", "5.0e-4", "0"),
}
NAMES = list(TRICKS)
# Rank-1 and mAP on Market-1501.
PAPER = ((87.7, 74.0), (88.7, 75.2), (91.3, 79.3), (91.4, 80.3), (92.0, 81.7), (94.1, 85.7), (94.5, 85.9))
PAPER_DUKE = (86.4, 76.4)  # of the last row


def with_tricks(count: int) -> Row:
    """The row with the first tricks of the paper's order."""
    title = f"+ {NAMES[count - 1]}" if count else "plain"
    settings = (
        f"{key}={with_it if number < count else without}"
        for number, (key, with_it, without) in enumerate(TRICKS.values())
    )
    paper = {"Market-1501": PAPER[count]} | ({"DukeMTMC-reID": PAPER_DUKE} if count == len(NAMES) else {})
    return Row(title, Variant(f"tricks_{count}", tuple(settings)), paper=paper)


METRICS = ("rank1", "mAP")
ROWS = tuple(with_tricks(count) for count in range(len(NAMES) + 1))

TABLES = (
    Table(
        name="strong-tricks",
        shows="The table of tricks: each row has those of the rows above it, too.",
        rows=ROWS,
        full=(Columns("Market-1501", MARKET, METRICS), Columns("DukeMTMC-reID", DUKE, METRICS)),
        cpu=(Columns("street", STREET, METRICS, paper="Market-1501"),),
    ),
    Table(
        name="strong-held-out",
        of_paper=False,
        shows="The same rows on 30 training identities that are held out: settings are chosen on them.",
        rows=tuple(replace(row, paper={}) for row in ROWS),
        full=(),
        cpu=(Columns("street", STREET_HELD_OUT, METRICS, score=Score(("evaluate.identities=validation",))),),
    ),
)

LEFT_OUT = ()
