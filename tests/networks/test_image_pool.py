"""The memory of generated images."""

import numpy as np
import pytest
import tensorflow as tf

from tf_reid.networks.image_pool import ImagePool


def test_the_pool_hands_out_earlier_fakes_half_of_the_time():
    size, image_size = 7, (1, 1)  # not a multiple of the batch: its last place is never used
    pool = ImagePool(size, image_size, seed=[3, 1])
    given, returned = [], []
    for step in range(200):
        fakes = np.repeat(np.array([2 * step + 1, 2 * step + 2], np.float32).reshape(2, 1, 1, 1), 3, axis=3)
        given.append(fakes[:, 0, 0, 0])
        returned.append(pool.exchange(tf.constant(fakes), tf.constant(step, tf.int64)).numpy()[:, 0, 0, 0])
        seen = np.concatenate(given)
        kept = pool.images.numpy()[: min(2 * step + 2, 6), 0, 0, 0]
        assert np.isin(returned[-1], seen).all() and np.isin(kept, seen).all()
        if 2 * (step + 1) <= size:
            np.testing.assert_array_equal(returned[-1], given[-1])  # while it fills
    later_given, later = np.array(given[3:]).ravel(), np.array(returned[3:]).ravel()
    assert 0.4 < np.mean(later == later_given) < 0.6
    everything = np.concatenate([later, pool.images.numpy()[:6, 0, 0, 0]])
    assert len(np.unique(everything)) == len(everything)  # once full, each comes out once


def test_a_pool_smaller_than_a_batch_is_refused_and_none_hands_back_what_it_gets():
    fakes = tf.random.stateless_uniform((4, 1, 1, 3), [0, 0])
    with pytest.raises(ValueError, match=r"method\.pool_size is 3, but a batch has 4 images"):
        ImagePool(3, (1, 1), seed=[0, 1]).exchange(fakes, tf.constant(0, tf.int64))
    for step in range(5):
        np.testing.assert_array_equal(ImagePool(0, (1, 1), seed=[0, 1]).exchange(fakes, step), fakes)


def test_replicas_keep_one_pool_which_a_checkpoint_restores_on_all(two_replicas, tmp_path):
    """Two replicas hand out what one does, before and after a restoration."""

    def fakes(step, images=4):
        return tf.random.stateless_uniform((images, 1, 1, 3), [step, 0])

    def given(pool, step):
        own = two_replicas.experimental_distribute_dataset(tf.data.Dataset.from_tensors(fakes(step)))
        out = two_replicas.run(pool.exchange, args=(next(iter(own)), tf.constant(step, tf.int64)))
        return np.concatenate([part.numpy() for part in two_replicas.experimental_local_results(out)])

    alone = ImagePool(6, (1, 1), seed=[3, 1])
    with two_replicas.scope():
        pool, resumed = ImagePool(6, (1, 1), seed=[3, 1]), ImagePool(6, (1, 1), seed=[3, 1])
    for step in range(8):
        np.testing.assert_array_equal(given(pool, step), alone.exchange(fakes(step), step))
    tf.train.Checkpoint(pool=resumed).restore(tf.train.Checkpoint(pool=pool).save(tmp_path / "pool"))
    swapped = 0
    for step in range(8, 12):
        expected = alone.exchange(fakes(step), step).numpy()
        np.testing.assert_array_equal(given(resumed, step), expected)
        swapped += np.sum(expected != fakes(step).numpy())
    assert swapped  # earlier fakes are handed out here


def test_the_pool_repeats_its_draws_for_the_same_seed_and_step():
    fakes = tf.random.stateless_uniform((2, 1, 1, 3), [0, 0])

    def run():
        pool = ImagePool(2, (1, 1), seed=[0, 1])
        return [pool.exchange(fakes * k, tf.constant(k, tf.int64)).numpy() for k in range(10)]

    np.testing.assert_array_equal(run(), run())
