"""The settings of a run, by section, strictly typed. Importing this module does not load TensorFlow."""

import os
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field


def _must_exist(path: str) -> str:
    expanded = os.path.expanduser(path)
    if not os.path.exists(expanded):
        raise ValueError(f"there is no file or folder {path!r}")
    return expanded


def _two(size: list[int]) -> list[int]:
    if len(size) != 2:
        raise ValueError("should be [HEIGHT, WIDTH]")
    return size


def _number_or_fraction(value: Any) -> Any:
    whole = type(value) is int and 0 <= value <= MOST
    if not whole and not (type(value) is float and 0 <= value < 1):
        raise ValueError("must be a fraction below 1, or a whole number of identities")
    return value


ExistingPath = Annotated[str, AfterValidator(_must_exist)]
Weights = Literal["imagenet"] | ExistingPath | None  # of a backbone; None: random ones
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
MOST = 2**31 - 1  # what TensorFlow's integers hold, wherever a number ends
NonNegativeInt = Annotated[int, Field(ge=0, le=MOST)]
PositiveInt = Annotated[int, Field(ge=1, le=MOST)]
Height_Width = Annotated[list[Annotated[int, Field(ge=8, le=2**15)]], AfterValidator(_two)]


DataSet = str | dict[str, str | int | None]  # int, None: a folder's `distractor: 7`, `junk: null`


class Section(pydantic.BaseModel):
    """Values of one section: strictly typed (no string where a number belongs), finite, no unknown key."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Augment(Section):
    """What training does to an image; draws come from the run's seed."""

    flip: bool = True  # mirror half of the images
    pad: NonNegativeInt = 10  # pixels added on each side, by repeating the border; then a random crop of the old size
    grey: Fraction = 0.0  # fraction of the images that are made grey
    erase: Fraction = 0.0  # fraction of the images of which a rectangle is erased, with ImageNet's mean


class Data(Section):
    """Which images, at which size. A data set is `name`, `name/variant`, or the mapping that `folder` takes."""

    source: DataSet | Annotated[list[DataSet], Field(min_length=1)]  # a list: all are trained on, the first is scored
    target: DataSet | Annotated[list[DataSet], Field(min_length=1)] | None = None
    balance: Literal["images", "equal"] = "images"  # of a list: every image, or every data set, is drawn equally often
    source_cameras: list[Annotated[int, Field(ge=0, lt=2**63)]] | None = (
        None  # the source's images of these cameras only
    )
    source_split: Literal["train", "all"] = "train"
    target_split: Literal["train", "all"] = "train"  # "all": test images too, without their labels
    # Training identities of the scored data set, those of the highest numbers, are held out: settings are chosen on
    # them. A fraction or a number of them; 0: none. A protocol with validation identities of its own holds out those.
    validation: Annotated[int | float, BeforeValidator(_number_or_fraction)] = 0
    labelled_identities: NonNegativeInt = 0  # so many of the source's training identities, drawn by run.seed; 0: all
    trial: NonNegativeInt = 0  # the trial whose training identities `train` means, where a protocol has several
    image_size: Height_Width = [128, 64]
    augment: Augment = Augment()
    data_dir: str | None = None  # where built data sets are kept (default: TFDS's own place)
    manual_dir: str | None = None  # the folder of archives that you have to download yourself

    @pydantic.model_validator(mode="after")
    def _cameras_of_one_source(self) -> "Data":
        if self.source_cameras is not None and isinstance(self.source, list):
            raise ValueError("source_cameras numbers the cameras of one data set, but source is a list; set it to null")
        return self

    def sets_of(self, domain: str) -> list[DataSet]:
        """The data sets of "source" or "target", none where there is no target."""
        value: DataSet | list[DataSet] | None = getattr(self, domain)
        if value is None:
            return []
        return value if isinstance(value, list) else [value]


class Optimizer(Section):
    """One player's optimizer; its learning rate follows the stage's step, also in steps that do not move the player."""

    name: Literal["adam", "sgd"] = "adam"
    learning_rate: PositiveFloat = 2.0e-4
    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.999
    momentum: Fraction = 0.0
    nesterov: bool = False
    l2: NonNegativeFloat = 0.0  # times half the squared sum of the weights is added to the loss; no decoupled decay
    schedule: Literal["constant", "linear", "cosine", "drops"] = "constant"
    decay_from: Fraction = 0.5  # fraction of the stage's steps after which the learning rate falls towards 0
    drop_at: list[Fraction] = []  # fractions of the stage's steps at which "drops" divides the learning rate by ten
    warmup: Fraction = 0.0  # fraction of the stage's steps over which the learning rate rises linearly; 0: none
    warmup_from: Fraction = 0.1  # factor of the learning rate at the first step of the rise
    backbone_rate: PositiveFloat = 1.0  # factor of the learning rate for the variables of the player's backbones
    freeze_steps: NonNegativeInt = 0  # steps at the stage's start in which the player's backbones stay as they are
    # Momentum of a running mean of the weights; evaluation, pictures and saved networks use this mean. 0: no mean.
    ema_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0


Watched = Literal["loss", "rank1", "mAP"]  # of the validation identities; a loss should fall, a score rise


class EarlyStop(Section):
    """A stage ends where the validation identities' loss no longer falls, or their score no longer rises."""

    watch: Watched = "loss"
    check_every: PositiveInt | None = None  # steps between two computations of the loss; null: run.validate_every
    patience: PositiveInt = 3  # so many of them without a new best end the stage

    @pydantic.model_validator(mode="after")
    def _scores_have_their_own_steps(self) -> "EarlyStop":
        if self.watch != "loss" and self.check_every is not None:
            raise ValueError(
                f"{self.watch} is computed every run.validate_every steps, and check_every is of the loss; leave it out"
            )
        return self


class RatePlateau(Section):
    """A stage's learning rates fall where what is watched of the validation identities no longer improves."""

    watch: Watched = "mAP"
    patience: PositiveInt = 3  # so many values without a new best multiply the learning rates
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1


class StageSettings(Section):
    """One stage of a training: its number of steps, its batches and the optimizers of its players."""

    steps: NonNegativeInt
    batch_size: Annotated[int, Field(ge=2, le=MOST, multiple_of=2)] = (
        32  # images of each domain in the global batch (of all replicas)
    )
    positive_fraction: Fraction = 0.5  # fraction of the labelled pairs whose two images show the same identity
    images_per_view: PositiveInt = 1  # images of an identity from each view, in a batch of two views
    images_per_identity: Annotated[int, Field(ge=2, le=MOST)] = 4  # in a batch of identities
    early_stop: EarlyStop | None = None  # end the stage before its last step; see data.validation
    plateau: RatePlateau | None = None  # lower the learning rates
    optimizers: dict[str, Optimizer]

    @pydantic.model_validator(mode="after")
    def _whole_rows(self) -> "StageSettings":
        if self.batch_size % (2 * self.images_per_view):
            raise ValueError(
                f"batch_size is {self.batch_size}, but images_per_view={self.images_per_view} needs a multiple of "
                f"{2 * self.images_per_view}"
            )
        return self

    @property
    def watched(self) -> dict[str, Watched]:
        """`early_stop` and `plateau`, as far as they are set, -> what they watch; nothing where it has no steps."""
        both = {"early_stop": self.early_stop, "plateau": self.plateau}
        return {key: setting.watch for key, setting in both.items() if setting and self.steps}


class Run(Section):
    """How a run is carried out and what it shows on the way."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    strategy: Literal["auto", "one", "mirrored", "multi_worker"] = "auto"  # auto: the GPUs that can share every batch
    jit_compile: bool | Literal["auto"] = "auto"  # compile training steps by XLA; auto: on one GPU, if a stage is long
    steps_per_call: PositiveInt = 1  # steps that TensorFlow carries out before Python acts again
    # of convolutions and matrix products in training steps; all else, evaluation and exported models are float32
    precision: Literal["float32", "bfloat16"] = "float32"
    deterministic: bool = True  # a repeated run is bit-identical, on the same machine
    checkpoint_every: PositiveInt = 500  # steps, as the next three
    log_every: PositiveInt = 20
    pictures_every: NonNegativeInt = 500  # 0: none
    evaluate_every: NonNegativeInt = 0  # 0: only at the end
    evaluate_queries: NonNegativeInt = 0  # queries of each trial in such an evaluation; 0: all
    validate_every: NonNegativeInt = 0  # steps between two scores of the validation identities; 0: none
    keep: Literal["last", "best"] = "last"  # weights of a stage: its last, or those of the highest validation mAP


class Evaluate(Section):
    """How the trained encoders are scored."""

    protocol: str | None = None  # one of the data set's protocols; its default otherwise
    identities: Literal["test", "validation"] = "test"  # "validation": those that are held out of training
    distance: Literal["cosine", "euclidean"] = "cosine"
    rerank: bool = False  # re-rank by k-reciprocal neighbours
    flip: bool = False  # use the mean feature of an image and its mirror image
    batch_size: PositiveInt = 64


class Config(Section):
    """All settings of a run, with every default filled in."""

    data: Data
    method: dict[str, Any]
    stages: dict[str, StageSettings]
    run: Run = Run()
    evaluate: Evaluate = Evaluate()
