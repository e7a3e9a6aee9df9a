"""The tables of DG-Net: joint generation and re-identification."""

from benchmarks.tables.definitions import NEEDED, Columns, Data, LeftOut, Row, Score, Sweep, Table, Variant

MARKET = Data("dgnet_market1501", "dgnet_market1501")
DUKE = Data("dgnet_dukemtmc_reid", "dgnet_dukemtmc_reid")
MSMT17 = Data("dgnet_msmt17", "dgnet_msmt17")
STREET = Data("dgnet_street", "dgnet")

TABLES = ()
LEFT_OUT = ()
