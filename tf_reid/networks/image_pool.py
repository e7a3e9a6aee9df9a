"""A memory of generated images, so that a discriminator sees more than the latest."""

import tensorflow as tf

from tf_reid.networks.compiled import uniform


class ImagePool(tf.Module):
    """For half of the new fakes, the discriminator sees an earlier one, and the new one takes its place in the pool.

    Every replica keeps the same pool, of the fakes of all replicas. The draws depend on seed and step alone, so that a
    resumed run repeats them. A place of the pool is free while all its values are zero.
    """

    def __init__(self, size: int, image_size: tuple[int, int], seed: list[int]):
        super().__init__()
        self.size, self.seed = size, seed
        self.images = tf.Variable(
            tf.zeros((size, *image_size, 3)),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            name="images",
        )

    def exchange(self, fakes: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """New fakes float32 [B, H, W, 3] -> as many fakes for the discriminator; while the pool fills, the new ones.

        Raises:
            ValueError: the pool is smaller than the batch of all replicas.
        """
        if not self.size:
            return fakes
        context, rows = tf.distribute.get_replica_context(), fakes.shape[0]
        if context.num_replicas_in_sync > 1:
            fakes = context.all_gather(fakes, axis=0)
        first = context.replica_id_in_sync_group * rows
        return self._exchanged(fakes, rows * context.num_replicas_in_sync, step)[first : first + rows]

    def _exchanged(self, fakes, count, step):
        """As `exchange`, for the fakes of all replicas, [count, H, W, 3]."""
        if self.size < count:
            raise ValueError(
                f"method.pool_size is {self.size}, but a batch has {count} images: set it to 0, or to {count} or more."
            )
        # Times 64: as in earlier versions, whose runs are repeated bit for bit.
        seed = tf.stack([self.seed[0] * 4 + self.seed[1], tf.cast(step, tf.int32) * 64])
        draws = uniform([self.size + count], seed)
        images = self.images.read_value()
        # All values are looked at: a fake of which some rows are exactly zero must not count as a free place.
        filled = tf.math.count_nonzero(tf.reduce_any(images != 0.0, axis=[1, 2, 3]), dtype=tf.int32)
        filling = filled + count <= self.size
        # Distinct places in the pool: the next free ones while it fills, then random ones.
        among = tf.where(tf.range(self.size) < filled, draws[: self.size], -1.0)
        slots = tf.where(filling, filled + tf.range(count), tf.math.top_k(among, count).indices)
        old = tf.gather(images, slots)
        swap = tf.logical_and(tf.logical_not(filling), draws[self.size :] < 0.5)
        stored = tf.where(tf.logical_or(filling, swap)[:, None, None, None], fakes, old)
        self.images.assign(tf.tensor_scatter_nd_update(images, slots[:, None], stored))
        return tf.where(swap[:, None, None, None], old, fakes)
