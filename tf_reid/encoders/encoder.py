"""A trained encoder as people use it in Python: images -> embeddings -> distances. `loading.load` opens one.

```python
encoder = tf_reid.load("runs/simpgan")  # or an exported model: "models/simpgan", "models/simpgan/3"
embeddings = encoder.embed(["a.jpg", "b.jpg"])  # float32 [2, D]
encoder.distance("a.jpg", "b.jpg")
```

Which numbers are equal to which, on the same machine and with as many images in a batch:
- `distances` of images by a run's encoder are equal bit for bit to those that `tf_reid.evaluate` compares by.
- `embed` by a run's encoder is equal bit for bit to the features that `tf_reid.evaluate` keeps, put to unit length by
  `unit_length` where the run compares by the cosine.
- `embed` by an exported model is equal bit for bit to what a server answers with that model. Its batch normalisation is
  folded, so it differs from the run's by rounding (less than 1e-6 in a vector of unit length). NAME_int8 differs by
  more, since its convolutions compute in 8 bits: never compare its embeddings with the run's.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, overload

import numpy as np

from tf_reid.config import ConfigError
from tf_reid.encoders.boxes import Boxes, crops_of_boxes
from tf_reid.encoders.image_checks import ImageError
from tf_reid.encoders.image_reader import Image, ImageReader
from tf_reid.encoders.workers import Embedded, Encoded, Workers, embed, in_order
from tf_reid.metrics import similarity

EmbedPixels: TypeAlias = Callable[[np.ndarray], np.ndarray]  # uint8 [B, H, W, 3] -> float32 [B, D]
Images: TypeAlias = Iterable[Image]
OnError: TypeAlias = Literal["raise", "skip"] | Callable[[ImageError], object]

QUERY_ROLES, GALLERY_ROLES = ("probe", "image", "rgb"), ("gallery", "image", "rgb")  # the first that there is


class Encoder:
    """Images -> embeddings and distances, by a run's networks or by an exported model. Threads may share one.

    An image is a path, a URL such as s3://bucket/1.jpg (read by fsspec), the bytes of a JPEG, PNG, BMP, WebP, TIFF or
    GIF file, or an array uint8 [H, W, 3] in RGB; of any size. It is resized as evaluation does it. A file is read as it
    is seen: turned upright by the orientation that a camera wrote beside the pixels (EXIF), its transparency on white,
    of an animation the first frame.

    An array gives the embedding of a lossless file of it. A JPEG file does not always: OpenCV, Pillow and TensorFlow,
    which reads files here, decode it to slightly different pixels. So embed both sides of a comparison the same way.

    Attributes:
        roles: whose images it embeds: ("image",); of two-sided methods ("probe", "gallery") or ("rgb", "ir").
        width: D, the numbers in an embedding.
        image_size: (H, W), to which images are resized.
        metric: "cosine" or "euclidean", the distance that the run was configured to compare by. For the cosine,
            embeddings have unit length: their inner product is the cosine.
        digest: 16 hexadecimal digits that tell its embeddings from those of other weights or settings. A run and its
            exported models have the same, but for NAME_int8, which has its own.
        source: the run's folder, or that of an exported model's version.
        by_role: role -> function from pixels uint8 [B, H, W, 3] to the network's own features float32 [B, D].
    """

    def __init__(
        self,
        by_role: Mapping[str, EmbedPixels],
        *,
        width: int,
        image_size: tuple[int, int],
        metric: str,
        digest: str,
        source: Path,
        to_unit_length: bool = False,
    ):
        self.roles, self.width, self.image_size = tuple(by_role), width, image_size
        self.metric, self.digest, self.source = metric, digest, source
        self.by_role, self._reader = dict(by_role), ImageReader(image_size)
        self._to_unit_length = to_unit_length  # of a run's features; an exported graph does it itself

    def __repr__(self) -> str:
        return f"<Encoder of {self.source}: {' and '.join(self.roles)} images, {self.width} numbers, {self.metric}>"

    @property
    def query_role(self) -> str:
        """The role of the images that one searches by: probe, or image, or of rgb and ir the first.

        Raises:
            ConfigError: it embeds none of these.
        """
        return self._first_of(QUERY_ROLES)

    @property
    def gallery_role(self) -> str:
        """The role of the images that one searches in: gallery, or image, or of rgb and ir the first.

        Raises:
            ConfigError: it embeds none of these.
        """
        return self._first_of(GALLERY_ROLES)

    @overload
    def embed(
        self, images: Images, role: str | None = None, batch_size: int = 64, errors: Literal["raise"] = "raise"
    ) -> np.ndarray: ...

    @overload
    def embed(
        self,
        images: Images,
        role: str | None = None,
        batch_size: int = 64,
        *,
        errors: Literal["skip"] | Callable[[ImageError], object],
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def embed(
        self, images: Images, role: str | None = None, batch_size: int = 64, errors: OnError = "raise"
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Embed images, a batch at a time. A generator is never held in memory as a whole, but two batches of it.

        Args:
            images: any number of images, of which some may be paths, some bytes and some arrays.
            role: whose images they are, one of `roles`. It may be left out where there is only one.
            batch_size: images that go through the network at once.
            errors: what becomes of an image that cannot be read. "raise": it ends with an ImageError. "skip": it is
                left out. A function is called with the ImageError, and the image is left out.

        Returns:
            float32 [N, D]. If images may be left out: the embeddings of the readable ones, float32 [M, D] in order,
            and which ones these are, bool [N].

        Raises:
            ImageError: an image cannot be read, and `errors` is "raise".
            TypeError, ValueError: an argument is wrong, such as an array that is not uint8 [H, W, 3].
        """
        features, readable = self._features(images, role, batch_size, errors)
        embeddings = unit_length(features) if self._to_unit_length else features
        return embeddings if errors == "raise" else (embeddings, readable)

    def embed_many(
        self,
        images: Iterable[Encoded],
        role: str | None = None,
        batch_size: int = 64,
        *,
        workers: int | None = None,
        ray: str | None = None,
        gpus_per_worker: float = 0.0,
    ) -> Iterator[Embedded]:
        """Embed many images by several processes, each with this encoder's model, on this machine or a Ray cluster.

        Where a worker or its node dies, its images go to another. The numbers are those of `embed`, up to rounding
        (docs/bulk.md has how much).

        Args:
            images: paths, URLs or bytes, any number. On a cluster, paths must lead to the same files on each node.
            role: as for `embed`.
            batch_size: images that go through a worker's network at once.
            workers: how many processes. None: one for every two cores; on a cluster, as many as there is room for.
            ray: the address of a Ray cluster. None: a Ray of this process's own, which no other user can reach.
            gpus_per_worker: such as 1, or 0.5 for two workers on a GPU.

        Returns:
            An iterator: for each image, in order, its embedding or its error. Not all are in memory at once.

        Raises:
            ConfigError: there is no such cluster.
            RuntimeError: the workers cannot start, or fail on what is no fault of an image.
            TypeError, ValueError: an argument is wrong.
        """
        role = self._checked_role(role)
        _check_arguments(images, batch_size, "raise")
        images = list(images)
        blocks = embed(
            images,
            source=self.source,
            digest=self.digest,
            role=role,
            width=self.width,
            workers=Workers(workers, ray, gpus_per_worker),
            batch_size=batch_size,
            ordered=True,
        )
        return in_order(images, blocks)

    def embed_boxes(self, frame: np.ndarray, boxes: Boxes, role: str | None = None) -> np.ndarray:
        """Embed the boxes of a video's frame, as a detector gives them.

        Args:
            frame: uint8 [H, W, 3] in RGB. (OpenCV reads BGR: give it `frame[..., ::-1]`.)
            boxes: [N, 4], each x1, y1, x2, y2 in pixels; x2 and y2 are the first beyond the box. Every pixel that a
                box touches belongs to it. What lies outside of the frame is cut off.

        Returns:
            float32 [N, D].

        Raises:
            ImageError: a box, named by its index, has no pixel inside the frame.
            ValueError: the frame or the boxes have another type or shape.
        """
        return self.embed(crops_of_boxes(frame, boxes), role)

    def distance(self, a: Image | np.ndarray, b: Image | np.ndarray, roles: tuple[str, str] | None = None) -> float:
        """The distance of two images, lower is more alike.

        Args:
            a, b: images, or embeddings float32 [D]. Where a method has an encoder for probes and one for the gallery,
                `a` is the probe.
            roles: those of `a` and `b`. Needed where they are rgb and ir: `distance("night.png", "day.png",
                roles=("ir", "rgb"))`.
        """
        return float(self.distances(_one(a), _one(b), roles)[0, 0])

    def distances(
        self,
        queries: Images | np.ndarray,
        gallery: Images | np.ndarray,
        roles: tuple[str, str] | None = None,
        batch_size: int = 64,
    ) -> np.ndarray:
        """The distance of each query to each gallery image, lower is more alike.

        It is 1 − cosine (0 to 2) or the Euclidean distance, as `metric` says and as evaluation computes it. A run's
        re-ranking (evaluate.rerank) depends on the whole gallery and is not applied.

        Args:
            queries, gallery: images, or embeddings float32 [N, D] that `embed` gave. Give the embeddings of a gallery
                that is searched more than once.
            roles: those of the queries and of the gallery. Needed where they are rgb and ir.
            batch_size: images that go through a network at once.

        Returns:
            float32 [Q, G].

        Raises:
            ImageError: an image cannot be read.
            ValueError: the roles are missing or wrong; the message lists them.
        """
        query_role, gallery_role = self._sides(roles)
        query_features = self._compared(queries, query_role, batch_size)
        if gallery is queries and gallery_role == query_role:
            gallery_features = query_features
        else:
            gallery_features = self._compared(gallery, gallery_role, batch_size)
        return similarity.distances(query_features, gallery_features, self.metric)(slice(None))

    def _features(
        self, images: Images, role: str | None, batch_size: int, errors: OnError
    ) -> tuple[np.ndarray, np.ndarray]:
        """The network's own features, float32 [M, D], and which images could be read, bool [N]."""
        embed_pixels = self.by_role[self._checked_role(role)]
        _check_arguments(images, batch_size, errors)
        features, readable = [np.zeros((0, self.width), np.float32)], []
        for batch in self._read_ahead(images, batch_size):
            pixels = []
            for image in batch:
                readable.append(not isinstance(image, ImageError))
                if not isinstance(image, ImageError):
                    pixels.append(image)
                elif errors == "raise":
                    raise image
                elif callable(errors):
                    errors(image)
            if pixels:
                features.append(embed_pixels(np.stack(pixels)))
        return np.concatenate(features), np.array(readable, bool)

    def _read_ahead(self, images: Images, batch_size: int) -> Iterator[Iterator[np.ndarray | ImageError]]:
        """Batches of pixels or errors; while one goes through the network, threads read the next."""
        numbered, reading = enumerate(images), None
        while batch := list(itertools.islice(numbered, batch_size)):
            next_reading = self._reader.read(batch)
            if reading is not None:
                yield reading
            reading = next_reading
        if reading is not None:
            yield reading

    def _compared(self, images: Images | np.ndarray, role: str, batch_size: int) -> np.ndarray:
        """What is compared: features of images, or embeddings as they are."""
        if not isinstance(images, np.ndarray) or images.dtype.kind != "f":
            return self._features(images, role, batch_size, "raise")[0]
        if images.ndim != 2 or images.shape[1] != self.width:
            raise ValueError(
                f"An array of {images.dtype} {list(images.shape)} holds neither images, which are uint8 [H, W, 3], "
                f"nor embeddings of this encoder, which are float32 [N, {self.width}]."
            )
        return images.astype(np.float32, copy=False)

    def _checked_role(self, role: str | None) -> str:
        if role is None and len(self.roles) == 1:
            return self.roles[0]
        if role not in self.roles:
            given = "No role was given" if role is None else f"There is no role {role!r}"
            raise ValueError(f"{given}: {self.source} embeds images of the roles {', '.join(self.roles)}.")
        return role

    def _sides(self, roles: tuple[str, str] | None) -> tuple[str, str]:
        """The roles of queries and gallery."""
        if roles is not None:
            if isinstance(roles, str) or len(roles) != 2:
                raise ValueError(f"roles must be two, of the queries and of the gallery, not {roles!r}.")
            query_role, gallery_role = roles
            return self._checked_role(query_role), self._checked_role(gallery_role)
        if set(self.roles) == {"rgb", "ir"}:
            raise ValueError(
                f"{self.source} embeds images of the roles {', '.join(self.roles)}: say which role the queries and "
                'the gallery have, such as roles=("ir", "rgb").'
            )
        if self.roles in (("rgb",), ("ir",)):
            return self.roles[0], self.roles[0]
        return self.query_role, self.gallery_role

    def _first_of(self, roles: Sequence[str]) -> str:
        for role in roles:
            if role in self.roles:
                return role
        raise ConfigError(f"{self.source} embeds {', '.join(self.roles)} images, not {' or '.join(roles)} images.")


def unit_length(features: np.ndarray) -> np.ndarray:
    """Features float32 [N, D], each divided by its length; zeros stay zeros."""
    lengths = np.sqrt(np.einsum("nd,nd->n", features, features))
    return features / np.maximum(lengths, 1e-12)[:, None]


def _check_arguments(images: Images, batch_size: int, errors: OnError) -> None:
    if isinstance(images, str | Path | bytes) or (isinstance(images, np.ndarray) and images.ndim == 3):
        raise TypeError("One image was given in place of several; put it into a list: embed([image]).")
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number from 1 on, not {batch_size!r}.")
    if errors not in ("raise", "skip") and not callable(errors):
        raise ValueError(f'errors must be "raise", "skip", or a function of an ImageError, not {errors!r}.')


def _one(image: Image | np.ndarray) -> Images | np.ndarray:
    """One image, or one embedding [D], as several of which it is the only one."""
    if isinstance(image, np.ndarray) and image.dtype.kind == "f" and image.ndim == 1:
        return image[None]
    return [image]
