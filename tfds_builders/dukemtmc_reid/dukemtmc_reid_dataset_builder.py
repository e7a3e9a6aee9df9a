"""DukeMTMC-reID: 1,812 identities seen by eight cameras on a campus; withdrawn by its authors, local copies only."""

from __future__ import annotations

from typing import ClassVar

from tfds_builders.market_layout import FOLDERS, MarketLayout
from tfds_builders.sources import Archive


class Builder(MarketLayout):
    """DukeMTMC-reID; a file is named person_c<camera>_f<frame>.jpg."""

    ARCHIVE = Archive(
        folder="DukeMTMC-reID",
        files=("DukeMTMC-reID.zip",),
        holds=tuple(FOLDERS),
        origin="a copy you have: its authors have withdrawn the data set",
        terms="withdrawn: see that your use of a copy is lawful and fair to the people it shows",
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions
    EXAMPLE = "0001_c2_f0046182.jpg"
    COUNTS: ClassVar = {"bounding_box_train": 16522, "query": 2228, "bounding_box_test": 17661}
