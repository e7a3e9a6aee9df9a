"""Losses: pure functions from tensors to a scalar mean over the batch they are given.

None of them knows of replicas or weights: a method multiplies by its weights, `ReIDModel.minimize` divides by replicas.
"""

import tensorflow as tf


def least_squares(scores, target):
    """Least-squares adversarial loss, mean of (score - target)² (SimPGAN Eq. 6-9).

    Args:
        scores: float [B, ...], what a critic says of each image (or patch).
        target: 1.0 for "real", 0.0 for "fake".
    """
    return tf.reduce_mean(tf.square(scores - target))


def l1(a, b):
    """Mean absolute difference of two equally shaped float tensors (the cycle loss of SimPGAN, section 4.3)."""
    return tf.reduce_mean(tf.abs(a - b))


def identification(logits, person):
    """Softmax cross-entropy, mean over images (SimPGAN Eq. 4).

    Args:
        logits: float [B, K].
        person: int [B], values 0..K-1.
    """
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=person, logits=logits))


def verification(logits, same_person):
    """Cross-entropy of "the two images show one person", mean over pairs (SimPGAN Eq. 2).

    Args:
        logits: float [P], before the sigmoid of Eq. 1.
        same_person: float [P], 1.0 where the pair shows one person, else 0.0.
    """
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=same_person, logits=logits))
