"""The tables of Cross-GAN: two views, no labels."""

from benchmarks.tables.definitions import Cmc, Columns, Data, LeftOut, Row, Score, Sweep, Table, Variant

VIPER = Data("crossgan_viper", "crossgan_viper", trials=10)
CUHK03 = Data("crossgan_cuhk03", "crossgan_cuhk03", trials=10)
MARKET = Data(
    "crossgan_market1501",
    "crossgan_market1501",
    without={"transformed": "Its configuration searches no codes (method.search_steps is 0): it has too many queries."},
)
STREET = Data("crossgan_street", "crossgan")
VIPER_AT_SMALL_SIZE = Data(
    "crossgan_viper_small",
    "crossgan",
    (
        *("data.source=viper", "data.source_cameras=null", "evaluate.protocol=random_316"),
        *("stages.vae.steps=600", "stages.joint.steps=250"),
        # At 1e-3 the divergence is NaN within 125 steps.
        *(f"stages.{stage}.optimizers.encoders.learning_rate=2.0e-4" for stage in ("vae", "joint")),
    ),
    trials=10,
)

FULL = Variant("full")
NO_ALIGNMENT = Variant("without_alignment", ("method.alignment_weight=0", "stages.alignment.steps=0"))
NO_GAN = Variant("without_gan", ("method.adversarial_weight=0", "method.matching_weight=0"))
NO_MATCHING = Variant("without_matching", ("method.matching_weight=0",))


def shared(generator: int, discriminator: int) -> Variant:
    """So many units that both views share; 4 and 1 are the configurations' own."""
    if (generator, discriminator) == (4, 1):
        return FULL
    settings = f"method.generator_shared={generator}", f"method.discriminator_shared={discriminator}"
    return Variant(f"k{generator}_l{discriminator}", settings)


ACROSS = Score(options=("--across",), file="across")
BASELINES = Score(options=("--baselines",))
RANKS = ("rank1", "rank10", "rank20")
ALL_RANKS = ("rank1", "rank5", "rank10", "rank20", "mAP")
AGREEMENT = ("agree within 8, %", "agree exactly, %", "distance")
ANSWERS = {
    "aligned codes": "raw",
    "features of the discriminators": "discriminator",
    "images in the other view": "transformed",
}
MADE = ("encoded", "searched")  # images in the other view, by either way
ENCODED_OR_SEARCHED = "encoded: g2 of the aligned code; searched: g2 of the z whose g1(z) is nearest, as printed."
NOT_DEFINED = (
    "The paper does not say how it retrieves; its figures stand beside each of the answers that a run has.",
    "No label is read here. Section 5.1 of the paper also speaks of ResNet-50 fine-tuned on re-identification.",
)


def answers(paper: dict[str, tuple[float, ...]]) -> tuple[Row, ...]:
    """The method's row of a table, for each way to retrieve."""
    return tuple(Row(f"Cross-GAN, {title}", FULL, name, paper=paper) for title, name in ANSWERS.items())


VARIANTS = (
    *(Row(f"Cross-GAN, {title}", FULL, name) for title, name in ANSWERS.items()),
    *(Row(f"without alignment, {title}", NO_ALIGNMENT, name) for title, name in ANSWERS.items()),
    Row("without GAN, aligned codes", NO_GAN),
    Row("without GAN, images in the other view", NO_GAN, "transformed"),
    *(Row(f"without feature matching, {title}", NO_MATCHING, name) for title, name in ANSWERS.items()),
    Row("pixels", FULL, "pixels", BASELINES),
    Row("colour histogram", FULL, "colour_histogram", BASELINES),
)
AGREEMENT_ROWS = (
    *(
        Row(title, FULL, title)
        for title in ("the query itself", "another identity of the gallery", "mean of the gallery")
    ),
    *(
        Row(f"{variant}, {made}", of_variant, made)
        for variant, of_variant in {"with alignment": FULL, "without alignment": NO_ALIGNMENT}.items()
        for made in MADE
    ),
)
WITHOUT = {"GAN": NO_GAN, "feature matching": NO_MATCHING}

TABLES = (
    Table(
        name="crossgan-2",
        shows="Table 2: VIPeR, ten random halves of 316 identities.",
        rows=answers({"VIPeR": (49.28, 91.66, 93.47)}),
        full=(Columns("VIPeR", VIPER, RANKS),),
        cpu=(Columns("street", STREET, RANKS, paper="VIPeR"),),
        notes=(*NOT_DEFINED, "The paper's other rows are other methods."),
    ),
    Table(
        name="crossgan-3",
        shows="Table 3: CUHK03, labelled boxes, 1160 / 100 / 100 identities, single-shot.",
        rows=answers({"CUHK03": (83.23, 96.73, 99.47)}),
        full=(Columns("CUHK03", CUHK03, RANKS),),
        cpu=(Columns("street", STREET, RANKS, paper="CUHK03"),),
        notes=(*NOT_DEFINED, "The paper's other rows are other methods."),
    ),
    Table(
        name="crossgan-4",
        shows="Table 4: Market-1501, single-shot.",
        rows=answers({"Market-1501": (72.15, 94.3, 97.5, 48.24)}),
        full=(Columns("Market-1501", MARKET, (*RANKS, "mAP")),),
        cpu=(Columns("street", STREET, (*RANKS, "mAP"), paper="Market-1501"),),
        notes=(*NOT_DEFINED, "The paper's other rows are other methods."),
    ),
    Table(
        name="crossgan-fig5",
        shows="Fig. 5: how many pixels of an image that was put into the other view agree with a true image of it, "
        "with and without alignment, on VIPeR. The figure's values are not in the text.",
        rows=AGREEMENT_ROWS,
        full=(Columns("VIPeR", VIPER, AGREEMENT, score=ACROSS),),
        cpu=(Columns("street", STREET, AGREEMENT, score=ACROSS),),
        notes=(ENCODED_OR_SEARCHED,),
    ),
    Table(
        name="crossgan-fig6",
        shows="Fig. 6: distance between an image put into the other view and a true image of it, for k shared units of "
        "the generators and l of the discriminators, on VIPeR. The figure's values are not in the text; in the paper "
        "more shared units of the generators are better.",
        rows=tuple(
            Row(f"k = {k}, l = {last}, {made}", shared(k, last), made, at=k, line=f"{made}, l = {last}")
            for made in MADE
            for last in range(6)
            for k in range(5)
        ),
        full=(Columns("VIPeR", VIPER, ("distance", "agree within 8, %"), score=ACROSS),),
        cpu=(Columns("street", STREET, ("distance", "agree within 8, %"), score=ACROSS),),
        plot=Sweep("shared units of the generators"),
        notes=(ENCODED_OR_SEARCHED,),
    ),
    Table(
        name="crossgan-fig7",
        shows="Fig. 7: CMC curves on VIPeR, CUHK03 and Market-1501.",
        rows=answers({}),
        full=(Columns("VIPeR", VIPER, RANKS), Columns("CUHK03", CUHK03, RANKS), Columns("Market-1501", MARKET, RANKS)),
        cpu=(Columns("street", STREET, RANKS),),
        plot=Cmc(),
        notes=("The paper's other curves are other methods.",),
    ),
    Table(
        name="crossgan-variants",
        of_paper=False,
        shows="The method without each of its parts, and what it should beat.",
        rows=VARIANTS,
        full=(Columns("VIPeR", VIPER, ALL_RANKS),),
        cpu=(Columns("street", STREET, ALL_RANKS),),
    ),
    Table(
        name="crossgan-variants-across",
        of_paper=False,
        shows="The distances and pixels of Fig. 5 without adversary and without feature matching.",
        rows=tuple(Row(f"without {part}, {made}", variant, made) for part, variant in WITHOUT.items() for made in MADE),
        full=(Columns("VIPeR", VIPER, AGREEMENT, score=ACROSS),),
        cpu=(Columns("street", STREET, AGREEMENT, score=ACROSS),),
        notes=(ENCODED_OR_SEARCHED,),
    ),
    Table(
        name="crossgan-shared",
        of_paper=False,
        shows="How well the discriminators' features find identities, for the shared units of Fig. 6.",
        rows=tuple(
            Row(f"k = {k}, l = {last}", shared(k, last), "discriminator", at=k, line=f"l = {last}")
            for last in range(6)
            for k in range(5)
        ),
        full=(Columns("VIPeR", VIPER, ("rank1", "rank20")),),
        cpu=(Columns("street", STREET, ("rank1", "rank20")),),
        plot=Sweep("shared units of the generators"),
    ),
    Table(
        name="crossgan-viper-across",
        of_paper=False,
        shows="The distances and pixels of Fig. 5 on VIPeR at small size. Needs its archive.",
        rows=(*AGREEMENT_ROWS, *(Row(f"without GAN, {made}", NO_GAN, made) for made in MADE)),
        full=(),
        cpu=(Columns("VIPeR", VIPER_AT_SMALL_SIZE, AGREEMENT, score=ACROSS),),
        notes=(ENCODED_OR_SEARCHED,),
    ),
    Table(
        name="crossgan-viper",
        of_paper=False,
        shows="VIPeR, real images, at small size, ten splits. Needs its archive.",
        rows=tuple(row for row in VARIANTS if row.variant != NO_MATCHING),
        full=(),
        cpu=(Columns("VIPeR", VIPER_AT_SMALL_SIZE, ALL_RANKS),),
    ),
)

LEFT_OUT = (
    LeftOut(
        "crossgan-1", "the layers of the networks.", "It holds no results; docs/methods/crossgan.md has the layers."
    ),
)
