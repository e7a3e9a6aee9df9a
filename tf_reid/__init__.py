"""Person re-identification with generative and adversarial learning, in TensorFlow and Keras.

```python
import tf_reid

encoder = tf_reid.load("runs/simpgan")  # a run, or an exported model
embeddings = encoder.embed(["a.jpg", "b.jpg"])  # float32 [2, D]
encoder.distance("a.jpg", "b.jpg")
```

`import tf_reid` loads no TensorFlow: each name is imported when it is first used.
"""

import importlib
import os
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tf_reid.config import ConfigError
    from tf_reid.encoders.encoder import Encoder
    from tf_reid.encoders.image_checks import ImageError
    from tf_reid.encoders.loading import load

    __version__: str

__all__ = ["ConfigError", "Encoder", "ImageError", "__version__", "load"]

# On CPUs with AMX, TensorFlow 2.21's oneDNN computes bfloat16 convolutions with a stride wrong: finite images give NaN.
# Without AMX it computes them right. Upstream: https://github.com/uxlfoundation/oneDNN/pull/5494
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

_MODULES = {
    "ConfigError": "tf_reid.config",
    "Encoder": "tf_reid.encoders.encoder",
    "ImageError": "tf_reid.encoders.image_checks",
    "load": "tf_reid.encoders.loading",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        try:
            return metadata.version("tf_reid")
        except metadata.PackageNotFoundError:  # a checkout that is not installed
            return "unknown"
    if name not in _MODULES:
        raise AttributeError(f"module 'tf_reid' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
