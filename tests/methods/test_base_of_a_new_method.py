"""A new method is a file, a line in METHODS and a configuration: every test of all methods then runs for it by itself.

`toy.py` and `toy.yaml` are what would be `tf_reid/methods/toy.py` and `configs/toy.yaml`.
"""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import test_base
from conftest import IDENTITIES, SIZE, random_batch
from toy import Toy

from tf_reid import config as configuration
from tf_reid.methods import METHODS

HERE = Path(__file__).parent
REGISTERED = f"""
from pathlib import Path
from tf_reid.methods import METHODS
from toy import Toy

METHODS["toy"] = Toy

def pytest_collection():
    import conftest
    conftest.CONFIGS = Path({str(HERE)!r})
"""


def names_of_shared_tests():
    """Names of the tests in test_base.py that are parametrised by METHODS, or by their stages."""
    names = []
    for name, test in inspect.getmembers(test_base, inspect.isfunction):
        for mark in getattr(test, "pytestmark", []):
            if mark.name == "parametrize" and mark.args[1] in (METHODS, test_base.STAGES):
                names.append(name)
    return names


def test_tests_of_all_methods_run_for_a_new_one_by_themselves(tmp_path):
    (tmp_path / "registered.py").write_text(REGISTERED)
    paths = os.pathsep.join(map(str, (tmp_path, HERE, HERE.parent.parent)))
    options = ["-p", "registered", "-p", "no:cacheprovider", "--numprocesses", "0", "-vv", "-k", "toy"]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(HERE / "test_base.py")],
        cwd=HERE.parent.parent,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    expected = names_of_shared_tests()
    assert len(expected) >= 5
    passed = re.findall(r"::(\w+)\[toy.*PASSED", finished.stdout)
    assert set(passed) == set(expected)


def test_its_configuration_is_checked_by_its_constructor():
    config = configuration.load(str(HERE / "toy.yaml"), ["method.weights=null"], METHODS | {"toy": Toy})
    assert config.method == {"name": "toy", "backbone": "small", "weights": None}


def test_it_learns_one_batch():
    keras.utils.set_random_seed(0)
    config = configuration.load(str(HERE / "toy.yaml"), [], METHODS | {"toy": Toy})
    model = Toy(SIZE, IDENTITIES, 0, backbone="small", weights=None)
    model.compile(config.stages)
    model.begin("identification")
    batches = iter(tf.data.Dataset.from_tensors(random_batch()).repeat())
    values = [float(model.advance(batches)[1]["encoder/identification"]) for _ in range(30)]
    assert np.isfinite(values).all() and values[-1] < 0.3 * values[0]
