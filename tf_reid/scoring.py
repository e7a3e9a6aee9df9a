"""Encoders and records -> scores. Sees a method only through its encoders."""

import functools

import numpy as np
import tensorflow as tf

from tf_reid import data, metrics


def extract(encoder, records: data.Records, image_size, *, batch_size=64, flip=False) -> np.ndarray:
    """Features of all records in order, float32 [N, D]; with `flip`, the mean over an image and its mirror image.

    Args:
        encoder: callable from float32 [B, H, W, 3] in [-1, 1] to float32 [B, D].
    """
    features = _compiled(encoder, flip)
    return np.concatenate([features(batch).numpy() for batch in data.image_batches(records, image_size, batch_size)])


@functools.lru_cache(maxsize=4)
def _compiled(encoder, flip):
    """One traced function an encoder, however often it is evaluated."""

    @tf.function(reduce_retracing=True)
    def features(images):
        straight = encoder(images)
        return 0.5 * (straight + encoder(images[:, :, ::-1])) if flip else straight

    return features


def extract_roles(encoders: dict, records: data.Records, image_size, **options) -> tuple[np.ndarray, np.ndarray]:
    """-> features of every record as a query and as a gallery image, each float32 [N, D]; see `ReIDModel.encoders`."""
    if set(encoders) == {"image"}:
        features = extract(encoders["image"], records, image_size, **options)
        return features, features
    if set(encoders) == {"probe", "gallery"}:
        return tuple(extract(encoders[role], records, image_size, **options) for role in ("probe", "gallery"))
    infrared = records.modality == "infrared"
    features = {
        role: extract(encoders[role], records.take(mask), image_size, **options)
        for role, mask in (("rgb", ~infrared), ("ir", infrared))
        if mask.any()
    }
    together = np.empty((len(records), next(iter(features.values())).shape[1]), np.float32)
    for role, values in features.items():
        together[infrared if role == "ir" else ~infrared] = values
    return together, together


def score(query_features, gallery_features, records: data.Records, trials, distance: str) -> dict:
    """Metrics (per cent) averaged over trials; see `metrics.average`."""
    results = []
    for trial in trials:
        query, gallery = trial.query, trial.gallery
        results.append(
            metrics.score(
                query_features[query],
                gallery_features[gallery],
                records.person[query],
                records.camera[query],
                records.person[gallery],
                records.camera[gallery],
                trial.same_camera_ignored,
                distance,
            )
        )
    return metrics.average(results)
