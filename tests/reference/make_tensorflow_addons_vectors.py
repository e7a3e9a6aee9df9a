"""What tensorflow-addons 0.23 gives on seeded vectors, stored for tests/test_losses.py and tests/test_layers.py.

It does not import beside a supported TensorFlow. In an environment of its own (Python 3.11):

    pip install "tensorflow==2.15.*" "tensorflow-addons==0.23.*"
    python tests/reference/make_tensorflow_addons_vectors.py
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa


def main():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(12, 8)).astype(np.float32)
    identities = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 5], np.int32)
    found = {"features": features, "identities": identities}
    for name, squared in (("euclidean", False), ("squared", True)):
        found[f"distances_{name}"] = tfa.losses.metric_learning.pairwise_distance(features, squared)
        metric = "squared-L2" if squared else "L2"
        for margin in (0.5, 1.4):
            options = {"margin": margin, "distance_metric": metric}
            found[f"hard_{name}_{margin}"] = tfa.losses.triplet_hard_loss(identities[:10], features[:10], **options)
            found[f"semi_hard_{name}_{margin}"] = tfa.losses.triplet_semihard_loss(identities, features, **options)
            found[f"all_{name}_{margin}"] = every_triplet(found[f"distances_{name}"].numpy(), identities, margin)
    same = rng.integers(2, size=20).astype(np.float32)
    pairs = rng.uniform(0, 3, 20).astype(np.float32)
    found |= {"pair_distances": pairs, "pair_same": same}
    for margin in (1.0, 2.0):
        found[f"contrastive_{margin}"] = np.mean(tfa.losses.contrastive_loss(same, pairs, margin=margin))

    images = rng.normal(1, 2, (2, 5, 4, 3)).astype(np.float32)
    gamma, beta = rng.normal(size=(2, 3)).astype(np.float32)
    norm = tfa.layers.InstanceNormalization(epsilon=1e-5)
    norm.build(images.shape)
    norm.set_weights([gamma, beta])
    found |= {"images": images, "gamma": gamma, "beta": beta, "instance_norm": norm(images)}
    kernel = rng.normal(size=(6, 4)).astype(np.float32)
    spectral = tfa.layers.SpectralNormalization(tf.keras.layers.Dense(4), power_iterations=50)
    spectral.build((None, 6))
    spectral.layer.kernel.assign(kernel)
    spectral.normalize_weights()
    found |= {"kernel": kernel, "spectral_norm": spectral.layer.kernel}
    path = Path(__file__).with_name("tensorflow_addons.npz")
    np.savez_compressed(path, **{name: np.asarray(value) for name, value in found.items()})
    print(f"Written: {path}, by tensorflow-addons {tfa.__version__}, TensorFlow {tf.__version__}")


def every_triplet(distances, identities, margin):
    """The mean over all triplets, which tensorflow-addons lacks, of its distances."""
    losses = [
        max(distances[a, p] - distances[a, n] + margin, 0.0)
        for a in range(len(identities))
        for p in range(len(identities))
        for n in range(len(identities))
        if a != p and identities[a] == identities[p] and identities[a] != identities[n]
    ]
    return np.float32(np.mean(losses))


if __name__ == "__main__":
    main()
