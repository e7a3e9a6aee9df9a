"""Where a server listens: whether only this machine reaches an address, and whether a port is free."""

import ipaddress
import socket

from tf_reid.config import ConfigError


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host: a name, or an IPv4 or IPv6 address with or without brackets."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:  # another name, which may lead to any machine
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def bracketed(host: str) -> str:
    """A host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host.strip('[]')}]" if ":" in host else host


def check_token(host: str, token: str | None, what: str) -> None:
    """Raise a ConfigError where others could reach `what` without a token."""
    if not is_loopback(host) and not token:
        raise ConfigError(
            f"--host {host} lets others reach {what}: give a --token (or TF_REID_TOKEN) that they have to send, "
            "and put a proxy that speaks TLS in front."
        )


def check_free(host: str, port: int, option: str) -> None:
    """Raise a ConfigError that names the command's option where a port is in use or may not be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed is free
        try:
            probe.bind((host.strip("[]"), port))
            probe.listen()
        except OSError as error:
            raise ConfigError(
                f"Port {port} of {host} cannot be used ({error.strerror}); choose another {option}."
            ) from None
