"""What DG-Net is scored by: the features of its two heads, side by side or alone, and the teacher's."""

import weakref

import keras

from tf_reid.methods.base import ReIDModel
from tf_reid.methods.representation import Representation
from tf_reid.networks.dgnet import pooled_views, weighted_features

# teacher -> its features; kept as long as the teacher
FEATURES_OF: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
FED_IN = {"online": "joint", "offline": "pretrain"}  # the stage in which the heads learn from swaps


def feature_models(
    encoder: keras.Model, primary: keras.Model, fine: keras.Model, beta: float
) -> dict[str, keras.Model]:
    """Name -> images float32 [B, H, W, 3] in [-1, 1] to features: `both` [B, 1024], `primary`, `fine` [B, 512].

    Args:
        encoder: E_a. primary, fine: its heads. beta: weight of the fine-grained cosine beside the primary one.
    """
    views = pooled_views(encoder)  # of all three: evaluation calls E_a once for them
    return {
        "both": weighted_features(views, [primary, fine], [1.0, beta**0.5]),
        "primary": weighted_features(views, [primary], [1.0]),
        "fine": weighted_features(views, [fine], [1.0]),
    }


def scored_by(model: ReIDModel) -> str:
    """The features that a run is scored by; a head that never learned from swaps is left out."""
    never_fed = model.steps_of_stage[FED_IN[model.feed]] <= model.warm_up or not model.primary_weight
    return "primary" if never_fed or not model.fine_ratio else "both"


def features_of(teacher: keras.Model) -> keras.Model:
    """What a teacher is scored by: one model, which is traced once, however often it is evaluated."""
    if teacher not in FEATURES_OF:
        FEATURES_OF[teacher] = teacher.features()
    return FEATURES_OF[teacher]


def representations_of(model: ReIDModel) -> dict[str, Representation]:
    """`raw`, the single heads where `raw` is both, and the teacher where this run trained one: the paper's baseline."""
    scored = scored_by(model)
    heads = ("primary", "fine") if scored == "both" else ()
    encoders = {"raw": model.features[scored]} | {head: model.features[head] for head in heads}
    # A finished run of an earlier version has a teacher of another form, which cannot be read and stays untrained.
    if model.steps_of_stage["teacher"] and (model.teacher.trained or not int(model.step)):
        encoders["teacher"] = features_of(model.teacher)
    return {name: Representation({"image": encoder}) for name, encoder in encoders.items()}
