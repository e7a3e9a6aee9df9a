import socket

import pytest

from tf_reid.config import ConfigError
from tf_reid.web.loopback import check_free, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_this_machine_alone(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "::ffff:10.0.0.1", "example.org", ""])
def test_others_too(host):
    assert not is_loopback(host)


def test_a_port_in_use_is_refused_with_its_option():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        held.listen()
        with pytest.raises(ConfigError, match=rf"Port {port} of 127\.0\.0\.1 cannot be used .*; choose another --port"):
            check_free("127.0.0.1", port, "--port")
    check_free("127.0.0.1", port, "--port")  # free again
