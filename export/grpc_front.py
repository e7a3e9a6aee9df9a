"""The gRPC port of a server: who asks, and how large the message is; the rest is the front's."""

import functools
import time
import uuid

import grpc
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

from export.calls import Call, Reply
from export.front import Front
from tf_reid.web.bodies import Budget, Refused
from tf_reid.web.guard import Rules, is_token
from tf_reid.web.loopback import bracketed, is_loopback

SERVICES = (
    prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"],
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
)
OPTIONS = [
    ("grpc.so_reuseport", 0),  # a port that another server has is refused
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", 128),  # requests at once on one connection
    # A client that is gone is noticed; one that sends half a message and no more is let go with its connection.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_connection_age_ms", 600_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
]


class GrpcFront:
    """TensorFlow Serving's PredictionService and ModelService.

    Args:
        local_only: refuse clients of other machines, beside the address that the server listens on.
    """

    def __init__(self, front: Front, rules: Rules, local_only: bool):
        self.front, self.rules, self.local_only = front, rules, local_only
        self.held = Budget(max(rules.held_bytes, rules.most_bytes))
        self.given = Budget(rules.most_bytes)

    async def start(self, address: str, port: int) -> grpc.aio.Server:
        """Listen; returns the server, which has to be stopped."""
        server = grpc.aio.server(options=[*OPTIONS, ("grpc.max_receive_message_length", self.rules.most_bytes)])
        for service in SERVICES:
            # Without readers of messages: they are handed on as bytes.
            handlers = {
                method.name: grpc.unary_unary_rpc_method_handler(functools.partial(self._call, method.name))
                for method in service.methods
            }
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
        server.add_insecure_port(f"{bracketed(address)}:{port}")
        await server.start()
        return server

    async def _call(self, method: str, message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        start, identifier = time.monotonic(), uuid.uuid4().hex
        reply = Reply("CANCELLED", reason="client_left")
        try:
            reply = self.refusal(context) or await self._answer(Call("grpc", method, message))
        finally:  # it is cancelled where its client leaves
            seconds = time.monotonic() - start
            self.front.monitoring.request(identifier, "grpc", method, reply, len(message), seconds, context.peer())
        context.set_trailing_metadata((("x-request-id", identifier),))
        if reply.code != "OK":
            context.set_code(grpc.StatusCode[reply.code])
            context.set_details(reply.sentence)
        return reply.content

    async def _answer(self, call):
        """Large messages are given to the replicas as `Guard` gives large bodies."""
        size = len(call.body)
        if size <= self.rules.small_bytes:
            return await self.front.answer(call)
        try:
            async with self.held.holding(size, 0), self.given.holding(size, 3 * self.rules.seconds):
                return await self.front.answer(call)
        except Refused as error:
            return Reply("RESOURCE_EXHAUSTED", sentence=error.message, reason="too_many_waiting")

    def refusal(self, context: grpc.aio.ServicerContext) -> Reply | None:
        """The reply to a client that is not let in; None for others."""
        if self.local_only and not _is_local(context.peer()):
            sentence = "This server answers its own machine only; see --host."
            return Reply("PERMISSION_DENIED", sentence=sentence, reason="unauthorised")
        if self.rules.token is not None and not is_token(_authorization(context), self.rules.token):
            sentence = "This server needs its token; send authorization: Bearer TOKEN."
            return Reply("UNAUTHENTICATED", sentence=sentence, reason="unauthorised")
        return None


def _authorization(context):
    """Of a request; "" where it names none, or several."""
    values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    return values[0] if len(values) == 1 else ""


def _is_local(peer):
    """Of gRPC's name of a client, such as ipv4:127.0.0.1:5000 or ipv6:[::1]:5000."""
    kind, _, address = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind == "unix"
    return is_loopback(address.rpartition(":")[0].replace("%5B", "").replace("%5D", ""))
