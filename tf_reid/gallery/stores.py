"""The kinds of galleries, by the form of the address. A kind's library is loaded where a gallery of it is opened."""

from typing import TYPE_CHECKING, Any

from tf_reid.config import ConfigError

if TYPE_CHECKING:
    from tf_reid.gallery.base import Gallery

ADDRESSES = "a folder, qdrant://HOST:PORT/COLLECTION, or postgresql://USER@HOST:PORT/DATABASE?gallery=NAME"


def open_gallery(address: str, about: dict[str, Any] | None = None) -> "Gallery":
    """The gallery in a folder, on a Qdrant server or in a PostgreSQL database.

    Args:
        about: what it is made with where there is none; see `FaissGallery`.

    Raises:
        ConfigError: there is none and none is to be made; it cannot be opened; it is another model's; the address is
            none.
    """
    if address.startswith(("qdrant://", "qdrants://")):
        from tf_reid.gallery.qdrant_gallery import connect

        return connect(address, about)
    if address.startswith(("postgresql://", "postgres://")):
        from tf_reid.gallery.postgres_gallery import PostgresGallery

        return PostgresGallery(address, about)
    if "://" in address:
        scheme = address.partition("://")[0]
        raise ConfigError(f"An address of a gallery does not begin with {scheme}://; it is {ADDRESSES}.")
    from tf_reid.gallery.faiss_gallery import FaissGallery

    return FaissGallery(address, about)
