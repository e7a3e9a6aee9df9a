"""What `import tf_reid` offers, and that it costs nothing until it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import tf_reid

ROOT = Path(__file__).parent.parent


def in_a_fresh_process(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_public_names_are_there():
    assert tf_reid.__all__ == ["ConfigError", "Encoder", "ImageError", "__version__", "load"]
    assert set(tf_reid.__all__) <= set(dir(tf_reid))
    from tf_reid.config import ConfigError
    from tf_reid.encoders.encoder import Encoder
    from tf_reid.encoders.image_checks import ImageError
    from tf_reid.encoders.loading import load

    assert (tf_reid.ConfigError, tf_reid.Encoder, tf_reid.ImageError, tf_reid.load) == (
        ConfigError,
        Encoder,
        ImageError,
        load,
    )
    assert issubclass(tf_reid.ConfigError, ValueError) and issubclass(tf_reid.ImageError, ValueError)
    assert isinstance(tf_reid.__version__, str)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tf_reid' has no attribute 'Embedder'"):
        tf_reid.Embedder  # noqa: B018


def test_errors_can_be_named_without_tensorflow():
    code = (
        "import sys, tf_reid; tf_reid.ImageError; tf_reid.ConfigError; tf_reid.__version__\n"
        "heavy = {'tensorflow', 'keras', 'tensorflow_datasets', 'tensorboard', 'faiss'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    assert in_a_fresh_process(code) == "[]"


def test_every_name_can_be_imported_by_a_star():
    assert in_a_fresh_process("from tf_reid import *; print(load.__name__, Encoder.__name__)") == "load Encoder"


def test_the_package_says_that_it_is_typed():
    assert (Path(tf_reid.__file__).parent / "py.typed").exists()
