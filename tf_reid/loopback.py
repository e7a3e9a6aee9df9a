"""Whether an address is this machine's own, so that nobody else is at its other end."""

import ipaddress


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
