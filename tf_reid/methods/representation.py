"""What stands for images when they are compared: encoders, and perhaps a similarity that was learned."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Representation:
    """How images of people become features, and how features are compared.

    Attributes:
        encoders: role -> Keras model from images float32 [B, H, W, 3] in [-1, 1] to features float32 [B, D]. Roles are
            `image`, or `rgb` and `ir`, or `probe` and `gallery`.
        similarity: (query features [B, D], gallery features [G, D]) -> float32 [B, G], higher is more alike; None
            where features are compared by a distance.
        compared_by: the networks that the similarity calls.
    """

    encoders: Mapping[str, keras.Model]
    similarity: Callable | None = None
    compared_by: Sequence[keras.Model] = ()

    @property
    def networks(self) -> list[keras.Model]:
        """All that its scores depend on."""
        return [*self.encoders.values(), *self.compared_by]
