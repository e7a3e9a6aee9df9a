"""Where a server may listen: whether an address is this machine's own, and whether a port is free."""

import ipaddress
import socket

from tf_reid.config import ConfigError


def is_loopback(host: str) -> bool:
    """Of a name or an address, IPv4 or IPv6, as it is written, with or without brackets."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:  # another name: whose it is, is not known
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def check_free(host: str, port: int, option: str):
    """Raise a ConfigError that names the option where something else listens on a port already, or none may."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just closed is free
        try:
            tried.bind((host.strip("[]"), port))
            tried.listen()
        except OSError as error:
            raise ConfigError(
                f"Port {port} of {host} cannot be used ({error.strerror}); choose another {option}."
            ) from None
