"""What tells two sets of records apart."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import make_records

from tf_reid.data.records import content

RECORDS = make_records([1, 2, 3], [1, 1, 2])


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("identity", [1, 2, 4]),
        ("camera", [1, 1, 1]),
        ("file", ["0.png", "1.png", "3.png"]),
        ("modality", ["rgb", "rgb", "infrared"]),
    ],
)
def test_content_is_of_every_column_that_features_or_training_depend_on(column, values):
    assert content(replace(RECORDS, **{column: np.array(values)})) != content(RECORDS)


def test_content_is_of_the_images_in_their_order_and_not_of_where_they_lie():
    assert content(replace(RECORDS, name="elsewhere", population="others")) == content(RECORDS)
    assert content(replace(RECORDS, images=RECORDS.images[[0, 1, 1]])) != content(RECORDS)
    assert content(RECORDS.take(np.array([1, 0, 2]))) != content(RECORDS)
