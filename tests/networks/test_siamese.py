"""The siamese classifier against Eq. 1-5 of SimPGAN written out in NumPy."""

import numpy as np
import pytest
from conftest import IDENTITIES, SIZE, random_batch

from tf_reid.networks.siamese import SiameseClassifier


@pytest.fixture
def classifier():
    return SiameseClassifier(SIZE, IDENTITIES, "small", None, dropout=0.0)


def test_losses_are_equations_1_to_5(classifier):
    batch = random_batch(8)
    pairs, identities = batch["source"].numpy(), batch["source_identity"].numpy()
    losses = classifier.pair_losses(pairs, identities, training=False)
    v = classifier(pairs.reshape(-1, *SIZE, 3)).numpy().reshape(4, 2, -1)

    theta, bias = classifier.same_head.get_weights()
    q_hat = 1 / (1 + np.exp(-((v[:, 0] - v[:, 1]) ** 2 @ theta[:, 0] + bias[0])))
    q = (identities[:, 0] == identities[:, 1]).astype(float)
    assert 0 < q.mean() < 1
    verification = np.mean(-q * np.log(q_hat) - (1 - q) * np.log(1 - q_hat))
    np.testing.assert_allclose(losses["verification"], verification, rtol=1e-4)

    theta, bias = classifier.identity_head.get_weights()
    logits = v @ theta + bias
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    both = [-np.log(softmax[i, 0, identities[i, 0]]) - np.log(softmax[i, 1, identities[i, 1]]) for i in range(4)]
    np.testing.assert_allclose(losses["identity"], np.mean(both), rtol=1e-4)


def test_dropout_and_running_statistics_are_those_of_training_where_it_learns_alone():
    classifier = SiameseClassifier(SIZE, IDENTITIES, "small", None, dropout=0.5)
    batch = random_batch(8)
    for asked, training in (((), True), ((False,), False)):
        before = [variable.numpy() for variable in classifier.backbone.non_trainable_variables]
        first, again = (classifier.pair_losses(batch["source"], batch["source_identity"], *asked) for _ in range(2))
        for name in ("identity", "verification"):
            assert (abs(float(first[name] - again[name])) > 1e-4) == training, name
        after = [variable.numpy() for variable in classifier.backbone.non_trainable_variables]
        assert any((a != b).any() for a, b in zip(before, after, strict=True)) == training


def test_a_pair_scores_the_same_both_ways_round(classifier):
    v1, v2 = np.random.default_rng(0).normal(size=(2, 3, 256)).astype(np.float32)
    np.testing.assert_allclose(classifier.same_identity_logit(v1, v2), classifier.same_identity_logit(v2, v1))


def test_called_in_inference_it_ignores_the_rest_of_the_batch(classifier):
    images = random_batch(8)["source"].numpy().reshape(-1, *SIZE, 3)
    np.testing.assert_allclose(classifier(images)[:1], classifier(images[:1]), atol=1e-5)
