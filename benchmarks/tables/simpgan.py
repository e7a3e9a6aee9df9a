"""The tables of SimPGAN: similarity preserved translation of the target domain to the source's style."""

from benchmarks.tables.definitions import Columns, Data, LeftOut, Row, Score, Table, Variant

# At full size the translation sees all target images, without their labels; per fold, those of the training half alone.
MARKET = Data("simpgan_market_to_grid", "simpgan_market_to_grid")
CUHK01 = Data("simpgan_cuhk01_to_grid", "simpgan_cuhk01_to_grid")
PER_FOLD = ("data.target_split=train",)
MARKET_PER_FOLD = Data("simpgan_market_to_grid_per_fold", "simpgan_market_to_grid", PER_FOLD, trials=10, base=MARKET)
CUHK01_PER_FOLD = Data("simpgan_cuhk01_to_grid_per_fold", "simpgan_cuhk01_to_grid", PER_FOLD, trials=10, base=CUHK01)
STREET = Data("simpgan_street_to_station", "simpgan")
VIPER = Data("simpgan_viper_to_grid", "simpgan_viper_to_grid")
VIPER_BACK = Data("simpgan_grid_to_viper", "simpgan_viper_to_grid", ("data.source=grid", "data.target=viper"))

DIRECT = Variant("direct", ("stages.translation.steps=0",))
FROM_DIRECT = (f"method.classifier={DIRECT.folder}", "stages.classifier.steps=0")
GAN = Variant("gan", (*FROM_DIRECT, "method.cycle_weight=0", "method.similarity_weight=0"), needs=(DIRECT,))
CYCLE = Variant("cycle", (*FROM_DIRECT, "method.similarity_weight=0"), needs=(DIRECT,))
FULL = Variant("full", FROM_DIRECT, needs=(DIRECT,))
FULL_IDENTITY = Variant("full_identity", (*FROM_DIRECT, "method.identity_weight=5.0"), needs=(DIRECT,))
FULL_COLOUR = Variant("full_colour", (*FROM_DIRECT, "method.generator=colour"), needs=(DIRECT,))

WHOLE = Score(("evaluate.protocol=whole",))
RANKS = ("rank1", "rank5", "rank10")
WITH_MAP = (*RANKS, "mAP")
BASELINES = Score(options=("--baselines",))

TABLE_1 = {
    "direct": {"Market-1501": (9.6, 21.2, 28.4), "CUHK01": (3.6, 7.2, 9.2)},
    "gan": {"Market-1501": (4.4, 10.8, 15.2), "CUHK01": (2.4, 6.4, 11.6)},
    "full": {"Market-1501": (18.0, 34.4, 43.2), "CUHK01": (13.2, 24.4, 32.4)},
}

# What a method should beat without a translation, and what each loss adds.
LOSS_BY_LOSS = (
    Row("direct transfer", DIRECT),
    Row("colour histogram", DIRECT, "colour_histogram", BASELINES),
    Row("colour covariance", DIRECT, "colour_covariance", BASELINES),
    Row("adaptive batch norm", DIRECT, "adaptive_batch_norm", BASELINES),
    Row("GAN", GAN, "translated"),
    Row("cycle: no similarity loss", CYCLE, "translated"),
    Row("SimPGAN", FULL, "translated"),
)

TABLES = (
    Table(
        name="simpgan-1",
        shows="Table 1: a classifier of Market-1501 or CUHK01 on GRID as it is, and on GRID translated by a plain GAN "
        "and by SimPGAN.",
        rows=(
            Row("direct transfer", DIRECT, paper=TABLE_1["direct"]),
            Row("GAN", GAN, "translated", paper=TABLE_1["gan"]),
            Row("SimPGAN", FULL, "translated", paper=TABLE_1["full"]),
        ),
        full=(
            Columns("Market-1501 → GRID, ten folds", MARKET, RANKS, paper="Market-1501"),
            Columns("Market-1501 → GRID, whole", MARKET, RANKS, paper="Market-1501", score=WHOLE),
            Columns("CUHK01 → GRID, ten folds", CUHK01, RANKS, paper="CUHK01"),
            Columns("CUHK01 → GRID, whole", CUHK01, RANKS, paper="CUHK01", score=WHOLE),
        ),
        cpu=(Columns("street → station", STREET, RANKS, paper="Market-1501"),),
        notes=(
            "The paper states ten folds of 125 queries; all its figures are multiples of 1/250, which points to one "
            "run of 250 queries against 1,025 images: whole. At full size both stand here.",
            "The translation is trained on all target images, without their labels. For one training a fold, on the "
            "fold's training half: simpgan-1-per-fold.",
            "UMDL, the paper's other row, is another method.",
        ),
    ),
    Table(
        name="simpgan-1-per-fold",
        shows="Table 1 with one training of the translation for each fold of GRID, on the target images of that fold's "
        "training half alone; scored on its test half.",
        rows=(
            Row("GAN", GAN, "translated", paper=TABLE_1["gan"]),
            Row("SimPGAN", FULL, "translated", paper=TABLE_1["full"]),
        ),
        full=(
            Columns("Market-1501 → GRID", MARKET_PER_FOLD, RANKS, paper="Market-1501"),
            Columns("CUHK01 → GRID", CUHK01_PER_FOLD, RANKS, paper="CUHK01"),
        ),
        cpu=(),
        notes=("The classifier is that of simpgan-1, where direct transfer stands: it sees no target image.",),
    ),
    Table(
        name="simpgan-variants",
        of_paper=False,
        shows="What each loss adds, and what a method should beat without a translation.",
        rows=(
            *LOSS_BY_LOSS,
            Row("SimPGAN with the identity loss of the authors' code", FULL_IDENTITY, "translated"),
            Row("SimPGAN with one affine map of the colours", FULL_COLOUR, "translated"),
        ),
        full=(Columns("Market-1501 → GRID", MARKET, WITH_MAP), Columns("CUHK01 → GRID", CUHK01, WITH_MAP)),
        cpu=(Columns("street → station", STREET, WITH_MAP),),
    ),
    Table(
        name="simpgan-viper",
        of_paper=False,
        shows="VIPeR and GRID, real images, at small size. Needs both archives.",
        rows=(
            *LOSS_BY_LOSS,
            Row("SimPGAN with one affine map of the colours", FULL_COLOUR, "translated"),
        ),
        full=(),
        cpu=(
            Columns("VIPeR → GRID, ten folds", VIPER, WITH_MAP),
            Columns("VIPeR → GRID, whole", VIPER, WITH_MAP, score=WHOLE),
            Columns("GRID → VIPeR", VIPER_BACK, WITH_MAP),
        ),
    ),
)

LEFT_OUT = (
    LeftOut(
        "simpgan-fig4",
        "images of GRID, Market-1501 and CUHK01 in the style of another.",
        "These are pictures without figures: `python -m tf_reid.visualize --run RUN translation` draws them of a run "
        "of simpgan-1.",
    ),
    LeftOut(
        "simpgan-fig5",
        "t-SNE of the features of source, target and translated images.",
        "This is a picture without figures: `python -m tf_reid.visualize --run RUN map` draws it of a run of "
        "simpgan-1.",
    ),
)
