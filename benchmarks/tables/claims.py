"""The papers' claims that do not hold at small size, tested again where each is likelier to hold. Three seeds each."""

from benchmarks.tables import cmgan, crossgan, dgnet, simpgan, view_adaptation
from benchmarks.tables.definitions import Columns, Data, Row, Score, Sweep, Table, Variant

SEEDS = (0, 1, 2)
BASELINES = Score(options=("--baselines",))
RANK_1_AND_MAP = ("rank1", "mAP")
ALL_RANKS = ("rank1", "rank5", "rank10", "mAP")
NEEDS_WEIGHTS = "method.weights=FILE names MobileNetV2's ImageNet weights where Keras cannot fetch them."


# --------------------------------------------------------------------- DG-Net: few labelled identities


def rows_of_few_labels(count: int) -> tuple[Row, ...]:
    """The rows of Table 3 where so many identities are labelled, and Eq. 3 alone for as many steps."""
    few = f"data.labelled_identities={count}"
    baseline = Variant(f"baseline_{count}", (*dgnet.BASELINE.settings, few))
    taught = (f"method.teacher={baseline.folder}", "stages.teacher.steps=0")
    both = Variant(f"both_{count}", (*taught, few), needs=(baseline,))
    alone = Variant(f"as_many_steps_{count}", (*dgnet.AS_MANY_STEPS.settings, few))
    of_lines = {
        "baseline": (baseline, "teacher"),
        "Eq. 3 alone, as many steps": (alone, "raw"),
        "primary": (both, "primary"),
        "fine-grained": (both, "fine"),
        "both": (both, "raw"),
    }
    return tuple(
        Row(f"{count} identities, {line}", variant, representation, at=count, line=line)
        for line, (variant, representation) in of_lines.items()
    )


DGNET = Table(
    name="claim-dgnet",
    of_paper=False,
    shows="Table 3 of DG-Net in few labelled identities: 25, 50, 100 and 150 of the training ones, with equal steps.",
    rows=tuple(row for count in (25, 50, 100, 150) for row in rows_of_few_labels(count)),
    full=(),
    cpu=(Columns("street", dgnet.STREET, RANK_1_AND_MAP),),
    plot=Sweep("labelled identities"),
    notes=(
        "The paper: both above primary above baseline.",
        "A seed draws the identities, too. The encoder of both, and of Eq. 3 alone, is trained for equally many steps.",
    ),
    seeds=SEEDS,
)


# --------------------------------------------------------------------- Cross-GAN: pairs, and features of a run

# `strong` on other people; it is scored on these.
ELSEWHERE = Variant(
    "elsewhere",
    (
        *("data.source=synthetic_pedestrians/station", "data.target=synthetic_pedestrians/street"),
        *("data.source_split=all", "evaluate.protocol=two_cameras"),
    ),
    config="strong",
)
NEAREST = ("method.pairing=nearest",)
BY_FEATURES = (*NEAREST, "method.paired_by=features")
OF_RUN = f"method.encoder={ELSEWHERE.folder}"


def on_features(variant: Variant, *settings: str) -> Variant:
    """A variant whose encoders are given the features of `strong`."""
    return Variant(f"features_{variant.name}", (*variant.settings, *settings, OF_RUN), needs=(ELSEWHERE,))


FEATURES = on_features(crossgan.FULL)
FEATURES_NEAREST = on_features(Variant("nearest", NEAREST))
FEATURES_BY_FEATURES = on_features(Variant("nearest_by_features", BY_FEATURES))
FEATURES_NOT_ALIGNED = on_features(crossgan.NO_ALIGNMENT)

CROSSGAN = Table(
    name="claim-crossgan",
    of_paper=False,
    shows="Cross-GAN with pairs of mutual nearest neighbours, and with the features of a run on other people.",
    rows=(
        Row("aligned, random pairs", crossgan.FULL),
        Row("not aligned", crossgan.NO_ALIGNMENT),
        Row("aligned, nearest latents", Variant("nearest", NEAREST)),
        Row("aligned, nearest pixels", Variant("nearest_by_features", BY_FEATURES)),
        Row("features of strong: their direct transfer", FEATURES, "direct"),
        Row("features of strong: aligned, random pairs", FEATURES),
        Row("features of strong: not aligned", FEATURES_NOT_ALIGNED),
        Row("features of strong: aligned, nearest latents", FEATURES_NEAREST),
        Row("features of strong: aligned, nearest features", FEATURES_BY_FEATURES),
        Row("pixels", crossgan.FULL, "pixels", BASELINES),
        Row("colour histogram", crossgan.FULL, "colour_histogram", BASELINES),
    ),
    full=(),
    cpu=(Columns("street", crossgan.STREET, ALL_RANKS),),
    notes=(
        "The paper: aligned codes retrieve, and better than codes that are not aligned.",
        "`strong` is trained with labels on `station`, whose people are others: these rows are not unsupervised.",
        "Nearest neighbours are ours, not the paper's.",
    ),
    seeds=SEEDS,
)


# --------------------------------------------------------------------- SimPGAN: real images, ImageNet weights


def to_real(name: str, source: str, target: str, *settings: str) -> Data:
    """A transfer to a real data set, at 128x64, by a classifier of `strong` with MobileNetV2."""
    return Data(
        f"simpgan_claim_{name}",
        "simpgan_viper_to_grid",
        (
            *(f"data.source={source}", f"data.target={target}", "data.target_split=all", "data.image_size=[128,64]"),
            *("evaluate.flip=true", "method.weights=imagenet", "method.classifier_kind=strong"),
            *("method.backbone=MobileNetV2", *settings),
        ),
    )


CLASSIFIER = "stages.classifier.optimizers.classifier"
# On a GPU: 64 channels, 6 blocks, 1,200 steps of four images of either domain.
ON_GPU = (
    *("method.generator_width=64", "method.generator_blocks=6"),
    *("stages.translation.steps=1200", "stages.translation.batch_size=4"),
)


def of_transfers(name: str, shows: str, direct: Variant, columns: tuple[Columns, ...], weights: str) -> Table:
    """The table of transfers whose classifier is that of a run of `strong`.

    Args:
        weights: the note on which weights its runs start from.
    """

    def translated(variant: Variant) -> Variant:
        settings = tuple(setting.replace(simpgan.DIRECT.folder, direct.folder) for setting in variant.settings)
        return Variant(variant.name, settings, full=ON_GPU, needs=(direct,))

    return Table(
        name=name,
        of_paper=False,
        shows=shows,
        rows=(
            Row("direct transfer", direct),
            Row("colour covariance", direct, "colour_covariance", BASELINES),
            Row("adaptive batch norm", direct, "adaptive_batch_norm", BASELINES),
            Row("GAN", translated(simpgan.GAN), "translated"),
            Row("SimPGAN", translated(simpgan.FULL), "translated"),
        ),
        full=columns,
        cpu=columns,
        notes=(
            "The paper: SimPGAN above direct transfer above a plain GAN.",
            "All images of the target are trained on, without their labels; its labels choose nothing.",
            weights,
        ),
        seeds=SEEDS,
    )


OF_LABELS = ("data.source_split=all", "method.last_stride=1")
REAL_DIRECT = Variant(
    "direct",
    (
        *("method.backbone=MobileNetV2", "method.last_stride=1", "data.augment.erase=0.5"),
        *("stages.classifier.images_per_identity=2", f"{CLASSIFIER}.learning_rate=3.5e-4"),
    ),
    config="strong",
)
SIMPGAN = of_transfers(
    "claim-simpgan",
    "SimPGAN on real images with a classifier of `strong` from ImageNet weights, at 128x64. Needs the archives.",
    REAL_DIRECT,
    (
        Columns("VIPeR → GRID", to_real("viper_to_grid", "viper", "grid", *OF_LABELS), ALL_RANKS),
        Columns("GRID → VIPeR", to_real("grid_to_viper", "grid", "viper", *OF_LABELS), ALL_RANKS),
        Columns(
            "VIPeR + GRID → 3DPeS",
            to_real("viper_grid_to_three_dpes", "[viper, grid]", "three_dpes", *OF_LABELS),
            ALL_RANKS,
        ),
    ),
    NEEDS_WEIGHTS,
)

RENDERED_DIRECT = Variant(
    "direct",
    (
        *("method.backbone=MobileNetV2", "method.last_stride=2"),
        *("stages.classifier.steps=100", f"{CLASSIFIER}.learning_rate=3.5e-4"),
    ),
    config="strong",
)
RENDERED = ("data.source_split=train", "data.augment.pad=6", "method.last_stride=2")
SIMPGAN_RENDERED = of_transfers(
    "claim-simpgan-rendered",
    "SimPGAN from rendered people, all the labels that there are, to real images. Needs the archives.",
    RENDERED_DIRECT,
    tuple(
        Columns(
            f"rendered people → {title}",
            to_real(f"street_1000_to_{target}", "synthetic_pedestrians/street_1000", target, *RENDERED),
            ALL_RANKS,
        )
        for title, target in (("3DPeS", "three_dpes"), ("GRID", "grid"), ("VIPeR", "viper"))
    ),
    "method.weights=FILE names weights of `python -m tf_reid.pretrain`: 100 steps are few from others.",
)


# --------------------------------------------------------------------- view adaptation: pretrained mappings

RATES = tuple(
    f"stages.{stage}.optimizers.mappings.learning_rate=3.5e-4" for stage in ("finetune", "similarity", "adversarial")
)
VIPER_AND_3DPES = Data(
    "view_claim_viper_three_dpes",
    "view_adaptation",
    (
        *("data.source=[viper, three_dpes]", "data.balance=equal", "data.source_cameras=null"),
        *("data.image_size=[128,64]", "evaluate.protocol=view_adaptation"),
        *("method.probe_backbone=MobileNetV2", "method.gallery_backbone=MobileNetV2"),
        *("method.probe_weights=imagenet", "method.gallery_weights=imagenet", *RATES),
        *(f"stages.{stage}.images_per_view=1" for stage in ("similarity", "adversarial")),
    ),
    trials=10,
)
ONE_WITHOUT = Variant("shared_no_confusion", (*view_adaptation.SHARED.settings, *view_adaptation.NO_CONFUSION.settings))
VIEWS = Table(
    name="claim-views",
    of_paper=False,
    shows="View adaptation with pretrained mappings, trained on VIPeR and 3DPeS, scored on VIPeR. Needs both archives.",
    rows=(
        Row("two mappings, confusion (adaptive)", view_adaptation.ADAPTIVE),
        Row("two mappings, confusion (plain)", view_adaptation.PLAIN),
        Row("two mappings, no confusion", view_adaptation.NO_CONFUSION),
        Row("one mapping, confusion", view_adaptation.SHARED),
        Row("one mapping, no confusion", ONE_WITHOUT),
        Row("colour histogram", view_adaptation.ADAPTIVE, "colour_histogram", BASELINES),
    ),
    full=(),
    cpu=(Columns("VIPeR", VIPER_AND_3DPES, ALL_RANKS),),
    notes=(
        "The paper: confusion helps, and two mappings beat one.",
        "VIPeR has ten splits, each with a run of its own; --trials 0 1 2 trains on three of them.",
        "method.probe_weights=FILE and method.gallery_weights=FILE name weights where Keras cannot fetch them; "
        "method.gallery_backbone=EfficientNetV2B0 makes the two mappings differ, and the rows of one mapping fail.",
    ),
    seeds=SEEDS,
)


# --------------------------------------------------------------------- cmGAN: pretrained weights

NIGHT = Data(
    "cmgan_claim_street_night",
    "cmgan",
    (
        *("data.image_size=[128,64]", "method.backbone=MobileNetV2", "method.weights=imagenet"),
        *("stages.pretrain.steps=300", "stages.adversarial.steps=400"),
        *(f"stages.{stage}.optimizers.generator.learning_rate=3.5e-4" for stage in ("pretrain", "adversarial")),
    ),
)
CMGAN = Table(
    name="claim-cmgan",
    of_paper=False,
    shows="cmGAN and each half of its loss from ImageNet weights, on `street_night` with 400 training identities.",
    rows=(
        Row("identification alone", cmgan.IDENTITY_ONLY),
        Row("triplet loss alone", cmgan.TRIPLET_ONLY),
        Row("no adversary", cmgan.NO_ADVERSARY),
        Row("cmGAN", cmgan.FULL),
    ),
    full=(),
    cpu=(Columns("street_night, all-search, single-shot", NIGHT, cmgan.METRICS),),
    notes=("The paper: cmGAN above the triplet loss above identification.", NEEDS_WEIGHTS),
    seeds=SEEDS,
)

TABLES = (DGNET, CROSSGAN, SIMPGAN, SIMPGAN_RENDERED, VIEWS, CMGAN)
LEFT_OUT = ()
