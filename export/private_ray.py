"""What a private Ray (`tf_reid.encoders.private_ray`) needs beside in the processes of its replicas."""


def keep_replica_here() -> None:
    """Have the replica in whose process this runs listen on 127.0.0.1, for which Ray has no option.

    Without this it listens on all addresses, though it answers none without the token.
    """
    from ray.serve._private import replica

    add = getattr(replica, "add_port_to_grpc_server", None)  # a private name: another version may not have it
    if add is not None:
        replica.add_port_to_grpc_server = lambda server, address: add(server, f"127.0.0.1:{address.split(':')[-1]}")
