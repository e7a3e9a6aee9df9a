"""Losses: pure functions from tensors to a scalar mean over the batch they are given.

Weights and replicas are not their concern: a method multiplies by its weights, `ReIDModel.minimize` divides by the
number of replicas.
"""

import tensorflow as tf


def least_squares(scores: tf.Tensor, target: float) -> tf.Tensor:
    """Least-squares adversarial loss, mean of (score - target)² (SimPGAN Eq. 6-9).

    Args:
        scores: float [B, ...], a discriminator's scores of images or patches.
        target: 1.0 for "real", 0.0 for "fake".
    """
    return tf.reduce_mean(tf.square(scores - target))


def l1(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Mean absolute difference of two equally shaped float tensors (the cycle loss of SimPGAN, section 4.3)."""
    return tf.reduce_mean(tf.abs(a - b))


def identification(logits: tf.Tensor, identity: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Softmax cross-entropy, mean over images (SimPGAN Eq. 4).

    Args:
        logits: float [B, K].
        identity: int [B], values 0..K-1.
        smoothing: this part of each label is spread evenly over all K (label smoothing, Luo et al. 2019, Eq. 3).
    """
    exact = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=identity, logits=logits))
    if not smoothing:
        return exact
    return (1.0 - smoothing) * exact + smoothing * uniform_cross_entropy(logits)


def center(features: tf.Tensor, centers: tf.Tensor, identity: tf.Tensor) -> tf.Tensor:
    """Squared distance to the own identity's center, mean over images (Wen et al., ECCV 2016, without its half).

    Args:
        features: float [B, D]. centers: float [K, D]. identity: int [B], values 0..K-1.
    """
    own = tf.matmul(tf.one_hot(identity, centers.shape[0]), centers)  # a gradient without indices, unlike tf.gather's
    return squared_error(features, own)


def kullback_leibler(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Divergence of the predicted distribution from the target, sum of q log(q / p), mean over images (DG-Net Eq. 8).

    Args:
        target: float [B, K], distributions q, without gradient. logits: float [B, K], of p.
    """
    each = tf.reduce_sum(tf.math.xlogy(target, target) - target * tf.nn.log_softmax(logits), axis=1)
    return tf.reduce_mean(each)


def normal_divergence(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """Divergence of N(mean, variance) from N(0, 1), summed over dimensions, mean over rows (Cross-GAN Eq. 5).

    Its printed form lacks the minus before the half, which would drive the latents away from the prior.

    Args:
        mean, log_variance: float [B, D].
    """
    each = -0.5 * (1.0 + log_variance - tf.square(mean) - tf.exp(log_variance))
    return tf.reduce_mean(tf.reduce_sum(each, axis=1))


def squared_error(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Squared differences summed over an image, mean over images, of two equally shaped float tensors [B, ...]."""
    return tf.reduce_mean(tf.reduce_sum(tf.square(a - b), axis=list(range(1, len(a.shape)))))


def verification(logits: tf.Tensor, same_identity: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of "the two images show one identity", mean over pairs (SimPGAN Eq. 2).

    Args:
        logits: float [P], before the sigmoid of Eq. 1.
        same_identity: float [P], 1.0 where the pair shows one identity, else 0.0.
    """
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=same_identity, logits=logits))


def squared_distances(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Squared Euclidean distance of every row to every row: float [A, D], float [B, D] -> [A, B], never negative."""
    products = tf.matmul(a, b, transpose_b=True)
    squares = tf.reduce_sum(a * a, axis=1)[:, None] + tf.reduce_sum(b * b, axis=1) - 2.0 * products
    return tf.maximum(squares, 0.0)  # rounding can leave a small negative square


def distances(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Euclidean distance of every row to every row, [A, B]; its gradient is 0 where two rows are equal."""
    squares = squared_distances(a, b)
    apart = squares > 1e-12
    return tf.where(apart, tf.sqrt(tf.where(apart, squares, 1.0)), 0.0)


def triplet(
    distance: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor, margin: float, mining: str = "all"
) -> tf.Tensor:
    """Triplet loss [d(a, p) - d(a, n) + margin]₊: anchors must be nearer to positives than to negatives.

    cmGAN, Eq. 2 and 3 (https://www.ijcai.org/proceedings/2018/94), with squared distances; FaceNet's for "semi_hard".

    Args:
        distance: float [A, B] of anchors to the others, squared or not.
        positive, negative: bool [A, B], whether the other is the anchor's positive, or its negative.
        mining: "all": mean over every triplet; "hard": an anchor's farthest positive and nearest negative, mean over
            the anchors that have both; "semi_hard": for every anchor and positive the nearest negative that is farther
            than the positive, or the farthest negative where none is; mean over the pairs.

    Returns:
        float scalar; 0 where there is no triplet.
    """
    if mining == "all":
        excess = tf.maximum(distance[:, :, None] - distance[:, None, :] + margin, 0.0)
        return _mean(excess, positive[:, :, None] & negative[:, None, :])
    has_negative = tf.reduce_any(negative, axis=1)
    farthest_negative = tf.reduce_max(tf.where(negative, distance, distance.dtype.min), axis=1)
    if mining == "hard":
        farthest = tf.reduce_max(tf.where(positive, distance, distance.dtype.min), axis=1)
        nearest = tf.reduce_min(tf.where(negative, distance, distance.dtype.max), axis=1)
        valid = has_negative & tf.reduce_any(positive, axis=1)
        farthest, nearest = tf.where(valid, farthest, 0.0), tf.where(valid, nearest, 0.0)
        return _mean(tf.maximum(farthest - nearest + margin, 0.0), valid)
    if mining != "semi_hard":
        raise ValueError(f"unknown mining {mining!r}: it must be 'all', 'hard' or 'semi_hard'")
    farther = negative[:, None, :] & (distance[:, None, :] > distance[:, :, None])
    nearest = tf.reduce_min(tf.where(farther, distance[:, None, :], distance.dtype.max), axis=2)
    chosen = tf.where(tf.reduce_any(farther, axis=2), nearest, farthest_negative[:, None])
    valid = positive & has_negative[:, None]
    return _mean(tf.maximum(distance - tf.where(valid, chosen, 0.0) + margin, 0.0), valid)


def _mean(values, mask):
    """Mean of the values where the mask is true; 0 where it is nowhere true."""
    mask = tf.cast(mask, values.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(values * mask), tf.reduce_sum(mask))


def contrastive(distance: tf.Tensor, same_identity: tf.Tensor, margin: float) -> tf.Tensor:
    """Pull images of one identity together, push others a margin apart: mean of y d² + (1 - y) [margin - d]₊².

    View adaptation, the second term of Eq. 2. With the sign that is printed it would do the opposite.

    Args:
        distance: float [P], Euclidean. same_identity: float [P], 1.0 or 0.0.
    """
    apart = tf.square(tf.maximum(margin - distance, 0.0))
    return tf.reduce_mean(same_identity * tf.square(distance) + (1.0 - same_identity) * apart)


def adaptive_contrastive(
    distance: tf.Tensor,
    positive: tf.Tensor,
    negative: tf.Tensor,
    margin: float,
    reading: str = "outside",
    weights_carry_gradient: bool = False,
) -> tf.Tensor:
    """The contrastive loss with weights that favour an anchor's far positives and near negatives, mean over anchors.

    View adaptation, Eq. 5 and 6, with the sign of the negative term and of w_n's normaliser put right:
    w_p = softmax of d over the positives P, w_n = softmax of -d over the negatives N, and an anchor's loss is

        sum_p w_p d_p²  +   sum_n w_n [margin - d_n]₊²      "outside"
                            sum_n [margin - w_n d_n]₊²      "inside", as printed: active until d_n > margin / w_n
                            [margin - sum_n w_n d_n]₊²      "pooled", the shape of DeepCC

    Args:
        distance: float [A, B], Euclidean, anchors to gallery images. positive, negative: bool [A, B].
        weights_carry_gradient: let the gradient flow through the weights, as DeepCC does; the paper is silent.
    """
    far, near = _softmax(distance, positive), _softmax(-distance, negative)
    if not weights_carry_gradient:
        far, near = tf.stop_gradient(far), tf.stop_gradient(near)
    pull = tf.reduce_sum(far * tf.square(distance), axis=1)
    if reading == "outside":
        push = tf.reduce_sum(near * tf.square(tf.maximum(margin - distance, 0.0)), axis=1)
    elif reading == "inside":
        each = tf.square(tf.maximum(margin - near * distance, 0.0))
        push = tf.reduce_sum(tf.where(negative, each, 0.0), axis=1)
    elif reading == "pooled":
        push = tf.square(tf.maximum(margin - tf.reduce_sum(near * distance, axis=1), 0.0))
        push = tf.where(tf.reduce_any(negative, axis=1), push, 0.0)
    else:
        raise ValueError(f"unknown reading {reading!r}: it must be 'outside', 'inside' or 'pooled'")
    return tf.reduce_mean(pull + push)


def _softmax(logits, mask):
    """Softmax over those of a row where the mask is true, zero elsewhere; a row without any is zero."""
    highest = tf.reduce_max(tf.where(mask, logits, logits.dtype.min), axis=1, keepdims=True)
    raised = tf.where(mask, tf.exp(tf.where(mask, logits - highest, 0.0)), 0.0)
    return tf.math.divide_no_nan(raised, tf.reduce_sum(raised, axis=1, keepdims=True))


def uniform_cross_entropy(logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy against the uniform distribution over classes, mean over images; least where all are as likely.

    View adaptation, Eq. 3 (the view-confusion loss), there over two classes: -½ log p - ½ log(1 - p).

    Args:
        logits: float [B, K].
    """
    return -tf.reduce_mean(tf.nn.log_softmax(logits))


def maximum_mean_discrepancy(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Squared MMD of two samples, the biased estimate: 0 where they are the same, larger the more they differ.

    Mean over five Gaussian kernels whose bandwidths are ¼ to 4 times the mean squared distance of the pooled rows;
    that mean carries no gradient (DAN, https://arxiv.org/abs/1502.02791).

    Args:
        a: float [A, D]. b: float [B, D].
    """
    both = tf.concat([a, b], axis=0)
    squares = squared_distances(both, both)
    bandwidth = tf.stop_gradient(tf.reduce_mean(squares)) + 1e-12
    kernel = sum(tf.exp(-squares / (factor * bandwidth)) for factor in (0.25, 0.5, 1.0, 2.0, 4.0)) / 5.0
    n = tf.shape(a)[0]
    within = tf.reduce_mean(kernel[:n, :n]) + tf.reduce_mean(kernel[n:, n:])
    return within - 2.0 * tf.reduce_mean(kernel[:n, n:])
