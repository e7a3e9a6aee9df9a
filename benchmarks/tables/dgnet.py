"""The tables of DG-Net: joint generation and re-identification."""

from benchmarks.tables.definitions import Columns, Data, LeftOut, Row, Score, Sweep, Table, Variant

MARKET = Data("dgnet_market1501", "dgnet_market1501")
DUKE = Data("dgnet_dukemtmc_reid", "dgnet_dukemtmc_reid")
MSMT17 = Data("dgnet_msmt17", "dgnet_msmt17")
STREET = Data("dgnet_street", "dgnet")
# Fig. 8 chooses α and β on the last of the training identities: 100 of 751 in the paper.
MARKET_HELD_OUT = Data("dgnet_market1501_held_out", "dgnet_market1501", ("data.validation=100",))
STREET_HELD_OUT = Data("dgnet_street_held_out", "dgnet", ("data.validation=30",))
IDENTITY = Variant("identity", config="identity", one_seed=True)  # whose features judge images at small size

# The teacher is the paper's baseline. It is trained once, and every other variant has it from that run.
BASELINE = Variant("baseline", ("stages.pretrain.steps=0", "stages.joint.steps=0"))
TAUGHT = (f"method.teacher={BASELINE.folder}", "stages.teacher.steps=0")
BOTH = Variant("both", TAUGHT, needs=(BASELINE,))
# Heads and encoder learn alone, from the swaps of a finished run, for as many steps as in it. At small size these are
# 700 of Eq. 3 alone and 460 of stage `joint`: swaps are fed back after 700 + 260, and rates fall after 700 + 138.
OFFLINE = Variant(
    "offline",
    (*TAUGHT, "method.feed=offline", f"method.swaps_from={BOTH.folder}", "stages.joint.steps=0"),
    full=(
        *("stages.pretrain.steps=100000", "stages.pretrain.batch_size=32"),
        *(f"stages.pretrain.optimizers.{player}.schedule=drops" for player in ("appearance", "heads")),
        *(f"stages.pretrain.optimizers.{player}.drop_at=[0.6,0.9]" for player in ("appearance", "heads")),
    ),
    cpu=(
        *("stages.pretrain.steps=1160", "stages.pretrain.batch_size=32", "method.warm_up=960"),
        *(f"stages.pretrain.optimizers.{player}.learning_rate=1.0e-3" for player in ("appearance", "heads")),
        *(f"stages.pretrain.optimizers.{player}.decay_from=0.722" for player in ("appearance", "heads")),
    ),
    needs=(BASELINE, BOTH),
)
UNTAUGHT = ("stages.teacher.steps=0",)
NOT_FED = (
    *UNTAUGHT,
    *(f"method.{key}=0" for key in ("primary_weight", "appearance_code_weight", "generated_identity_weight")),
)
# Without any identity loss a detached E_a would get no gradient at all.
NO_FEEDING = Variant("without_feeding", (*NOT_FED, "method.detach_appearance=false"))
NO_IDENTITY = Variant(
    "without_identity",
    (*NOT_FED, "method.detach_appearance=false", "method.identity_weight=0", "stages.pretrain.steps=0"),
)
AS_MANY_STEPS = Variant("as_many_steps", NOT_FED)  # Eq. 3 alone trains E_a, for as many steps as in the others


def taught(name: str, *settings: str) -> Variant:
    """A variant of the whole method."""
    return Variant(name, (*TAUGHT, *settings), needs=(BASELINE,))


def with_alpha(alpha: float) -> Variant:
    """0.2 is the paper's and the configurations' own."""
    return BOTH if alpha == 0.2 else taught(f"alpha_{alpha}", f"method.fine_ratio={alpha}")


def with_beta(beta: float) -> Score:
    """The same run with another weight of the fine-grained feature; 0.5 is the paper's and the configurations' own."""
    return Score() if beta == 0.5 else Score((f"method.fine_at_test={beta}",))


RANK_1_AND_MAP = ("rank1", "mAP_trapezoid")
ALL_RANKS = ("rank1", "rank5", "rank10", "mAP")
HELD_OUT = Score(("evaluate.identities=validation",))
QUALITY = ("FID", "SSIM within an identity")
BY_INCEPTION = Score(options=("--images", "imagenet"), file="images")
BY_IDENTITY = Score(options=("--images", IDENTITY.folder), file="images", needs=IDENTITY)
ALPHAS = (0.05, 0.1, 0.2, 0.4, 0.8)
BETAS = (0.0, 0.25, 0.5, 1.0, 2.0)
OTHER_METHODS = "The paper's other rows are other methods."
AVERAGE_PRECISION = "The paper's mAP is mAP_trapezoid here."
FID_NOTE = (
    "At small size FID is by the features of a run of `identity`, and compares these rows with one another alone."
)

TABLE_3 = {
    "baseline": {"Market-1501": (89.6, 74.5), "DukeMTMC-reID": (82.0, 65.3), "MSMT17": (68.8, 36.2)},
    "primary": {"Market-1501": (94.0, 84.4), "DukeMTMC-reID": (85.6, 72.7), "MSMT17": (76.0, 49.7)},
    "fine": {"Market-1501": (91.6, 75.3), "DukeMTMC-reID": (78.7, 61.2), "MSMT17": (71.5, 43.5)},
    "both": {"Market-1501": (94.8, 86.0), "DukeMTMC-reID": (86.6, 74.8), "MSMT17": (77.2, 52.3)},
}
ON_STREET = Columns("street", STREET, RANK_1_AND_MAP, paper="Market-1501")

TABLES = (
    Table(
        name="dgnet-2",
        shows="Table 2: realism (FID, lower is better) and diversity (SSIM within an identity) of real images and of "
        "generated ones, Market-1501.",
        rows=(
            Row("real images", BOTH, "real", paper={"Market-1501": (7.22, 0.350)}),
            Row("DG-Net", BOTH, "swaps", paper={"Market-1501": (18.24, 0.360)}),
        ),
        full=(Columns("Market-1501", MARKET, QUALITY, score=BY_INCEPTION),),
        cpu=(Columns("street", STREET, QUALITY, "Market-1501", BY_IDENTITY),),
        notes=(
            FID_NOTE,
            "The paper prints that higher SSIM is better. Equal images have an SSIM of 1, so lower is more diverse.",
            "Real images: two random halves of the training images, one against the other. The paper does not say how "
            "its 7.22 is measured.",
            OTHER_METHODS,
        ),
    ),
    Table(
        name="dgnet-3",
        shows="Table 3: the baseline, the primary feature, the fine-grained feature, and both together.",
        rows=(
            Row("baseline", BASELINE, "teacher", paper=TABLE_3["baseline"]),
            Row("primary", BOTH, "primary", paper=TABLE_3["primary"]),
            Row("fine-grained", BOTH, "fine", paper=TABLE_3["fine"]),
            Row("both", BOTH, paper=TABLE_3["both"]),
            Row("both, images generated offline", OFFLINE, paper={"Market-1501": (None, 84.4)}),
        ),
        full=(
            Columns("Market-1501", MARKET, RANK_1_AND_MAP),
            Columns("DukeMTMC-reID", DUKE, RANK_1_AND_MAP),
            Columns("MSMT17", MSMT17, RANK_1_AND_MAP),
        ),
        cpu=(ON_STREET,),
        notes=(
            AVERAGE_PRECISION,
            "The baseline is the teacher, as in the paper.",
            "The row of images generated offline is a figure of section 4.3's text.",
        ),
    ),
    Table(
        name="dgnet-4",
        shows="Table 4: the whole method on Market-1501 and DukeMTMC-reID.",
        rows=(Row("DG-Net", BOTH, paper={"Market-1501": (94.8, 86.0), "DukeMTMC-reID": (86.6, 74.8)}),),
        full=(
            Columns("Market-1501", MARKET, RANK_1_AND_MAP),
            Columns("DukeMTMC-reID", DUKE, RANK_1_AND_MAP),
        ),
        cpu=(ON_STREET,),
        notes=(AVERAGE_PRECISION, OTHER_METHODS),
    ),
    Table(
        name="dgnet-5",
        shows="Table 5: the whole method on MSMT17.",
        rows=(Row("DG-Net", BOTH, paper={"MSMT17": (77.2, 87.4, 90.5, 52.3)}),),
        full=(Columns("MSMT17", MSMT17, ("rank1", "rank5", "rank10", "mAP_trapezoid")),),
        cpu=(Columns("street", STREET, ("rank1", "rank5", "rank10", "mAP_trapezoid"), "MSMT17"),),
        notes=(AVERAGE_PRECISION, OTHER_METHODS),
    ),
    Table(
        name="dgnet-fig4",
        shows="Fig. 4: images of the method, of the method without feeding them back, and without identity losses, "
        "too. The paper shows pictures; here their FID and SSIM stand.",
        rows=(
            Row("DG-Net", BOTH, "swaps"),
            Row("without feeding", NO_FEEDING, "swaps"),
            Row("without feeding and identity", NO_IDENTITY, "swaps"),
            Row("Eq. 3 alone trains the encoder (not in the paper)", AS_MANY_STEPS, "swaps"),
        ),
        full=(Columns("Market-1501", MARKET, QUALITY, score=BY_INCEPTION),),
        cpu=(Columns("street", STREET, QUALITY, score=BY_IDENTITY),),
        notes=(FID_NOTE, "Pictures: `python -m tf_reid.visualize --run RUN swaps`."),
    ),
    Table(
        name="dgnet-fig8-alpha",
        shows="Fig. 8, left: other ratios of the fine-grained loss to the primary one (alpha), on held-out training "
        "identities. The figure's values are not in the text; the best is 0.2.",
        rows=tuple(Row(f"ratio {alpha}", with_alpha(alpha), at=alpha) for alpha in ALPHAS),
        full=(Columns("Market-1501, held out", MARKET_HELD_OUT, RANK_1_AND_MAP, score=HELD_OUT),),
        cpu=(Columns("street, held out", STREET_HELD_OUT, RANK_1_AND_MAP, score=HELD_OUT),),
        plot=Sweep("ratio of the fine-grained loss"),
    ),
    Table(
        name="dgnet-fig8-beta",
        shows="Fig. 8, right: other weights of the fine-grained feature when scored (beta), on held-out training "
        "identities. The figure's values are not in the text; the best is 0.5.",
        rows=tuple(Row(f"weight {beta}", BOTH, score=with_beta(beta), at=beta) for beta in BETAS),
        full=(Columns("Market-1501, held out", MARKET_HELD_OUT, RANK_1_AND_MAP, score=HELD_OUT),),
        cpu=(Columns("street, held out", STREET_HELD_OUT, RANK_1_AND_MAP, score=HELD_OUT),),
        plot=Sweep("weight of the fine-grained feature"),
        notes=("All rows are one run, scored with other weights.",),
    ),
    Table(
        name="dgnet-baseline",
        of_paper=False,
        shows="The method beside an encoder that Eq. 3 alone trains for as many steps.",
        rows=(
            Row("both", BOTH),
            Row("both, primary", BOTH, "primary"),
            Row("both, fine-grained", BOTH, "fine"),
            Row("teacher", BASELINE, "teacher"),
            Row("Eq. 3 alone, as many steps", AS_MANY_STEPS),
        ),
        full=(Columns("Market-1501", MARKET, (*ALL_RANKS, "mAP_trapezoid")),),
        cpu=(Columns("street", STREET, ALL_RANKS),),
    ),
    Table(
        name="dgnet-variants",
        of_paper=False,
        shows="The method without its cycle or with the authors' released settings, and with other labels of the swaps "
        "than the teacher's.",
        rows=(
            Row("both", BOTH),
            Row("without the cycle", taught("without_cycle", "method.cycle_weight=0")),
            Row("Eq. 4 without gradient, as released", taught("released_eq_4", "method.code_gradient=released")),
            Row("appearance not detached", taught("not_detached", "method.detach_appearance=false")),
            Row("stripes of the body", taught("stripes", "method.stripes=true")),
            Row("labels: the likeliest identity", taught("teacher_hard", "method.teacher_style=hard")),
            Row("labels: of both identities", taught("teacher_both", "method.teacher_style=both")),
            Row(
                "labels: the appearance's identity",
                Variant("teacher_appearance", (*UNTAUGHT, "method.teacher_style=appearance")),
            ),
            Row("labels: all alike", Variant("teacher_uniform", (*UNTAUGHT, "method.teacher_style=uniform"))),
        ),
        full=(Columns("Market-1501", MARKET, (*ALL_RANKS, "mAP_trapezoid")),),
        cpu=(Columns("street", STREET, ALL_RANKS),),
    ),
)

LEFT_OUT = (
    LeftOut("dgnet-1", "what appearance and structure codes stand for.", "It holds no results."),
    LeftOut(
        "dgnet-fig1",
        "swaps of appearance and structure; likewise Fig. 3, 5, 6 and 7.",
        "These are pictures without figures: `python -m tf_reid.visualize --run RUN swaps interpolation` draws them of "
        "a run of dgnet-3. Other methods' images of Fig. 3 are not made.",
    ),
)
