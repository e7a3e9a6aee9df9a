"""Requests are joined, refused and sent again by the front, whatever the replicas are; versions are replaced."""

import asyncio

from export import following, front, monitoring
from export.calls import Call, Reply, Seconds
from export.deployment import Served
from export.front import Front, ReplicaLost
from tf_reid.config import ConfigError

FIRST, SECOND = {"reid": Served([1], {"stable": 1})}, {"reid": Served([2], {"stable": 2})}


class Replicas:
    """Replicas that answer a call with its body, once they are let; they remember their batches."""

    def __init__(self, running=1):
        self.running, self.batches, self.served, self.let = running, [], [], asyncio.Event()
        self.moves, self.errors, self.model_seconds = [], [], 0.0

    async def answer(self, served, calls, may_be_slow):
        bodies = [call.body for call in calls]
        self.batches.append(bodies)
        self.served.append(served)
        await self.let.wait()
        if self.errors:
            raise self.errors.pop(0)
        replies = [None if body == b"slow" and not may_be_slow else Reply("OK", body, images=1) for body in bodies]
        return replies, Seconds(0.0, 0.0, self.model_seconds, 0.0)

    async def prepare(self, served):
        self.moves.append(("prepare", served))

    async def release(self, served):
        self.moves.append(("release", served))


def make(replicas, batch=3, queue=10):
    return Front(replicas, FIRST, batch, queue, monitoring.Monitoring())


async def asked(one, *bodies):
    """Tasks of calls with these bodies, all of which the front has."""
    tasks = [asyncio.create_task(one.answer(Call("grpc", "Predict", body))) for body in bodies]
    await asyncio.sleep(0)
    return tasks


async def replies(tasks):
    return [reply.content or reply.code for reply in await asyncio.gather(*tasks)]


def test_what_waits_is_joined_and_two_batches_are_out_for_each_replica():
    async def run():
        replicas = Replicas()
        one = make(replicas)
        one._seconds = 100.0  # a model that takes long: a second batch waits until it is full
        tasks = await asked(one, b"1", b"2", b"3", b"4")
        await asyncio.sleep(0.02)
        assert replicas.batches == [[b"1"], [b"2", b"3", b"4"]]
        tasks += await asked(one, b"5", b"6", b"7")
        await asyncio.sleep(0.02)
        assert len(replicas.batches) == 2 and one.waiting == 3 and one.outstanding == 2
        replicas.let.set()
        answers = await replies(tasks)
        return answers, replicas.batches

    answers, batches = asyncio.run(run())
    assert answers == [b"1", b"2", b"3", b"4", b"5", b"6", b"7"] and batches[2] == [b"5", b"6", b"7"]


def test_more_replicas_get_more_batches_and_no_batch_waits_for_ever():
    async def run():
        replicas = Replicas(running=2)
        one = make(replicas)
        one._seconds = 0.02
        tasks = await asked(one, b"1", b"2", b"3")
        await asyncio.sleep(0)
        assert replicas.batches == [[b"1"], [b"2"]]  # the third waits for others, half of the model's time
        await asyncio.sleep(0.1)
        assert replicas.batches[2] == [b"3"]
        replicas.let.set()
        return await replies(tasks)

    assert asyncio.run(run()) == [b"1", b"2", b"3"]


def test_a_full_queue_refuses_and_is_not_ready_until_half_of_it_is_gone():
    async def run():
        replicas = Replicas()
        one = make(replicas, batch=2, queue=4)
        one._seconds = 100.0
        tasks = await asked(one, *[b"%d" % number for number in range(7)])  # one and two are out, four wait
        assert one.waiting == 4 and one.why_not_ready() == ""
        (refused,) = await asyncio.gather(*await asked(one, b"more"))
        assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "too_many_waiting")
        assert one.why_not_ready() == "saturated"
        replicas.let.set()
        assert await replies(tasks) == [b"%d" % number for number in range(7)]
        assert one.why_not_ready() == ""
        replicas.running = 0
        assert one.why_not_ready() == "no replica"

    asyncio.run(run())


def test_a_server_under_load_is_ready_again_once_half_of_its_queue_is_gone():
    async def run():
        replicas = Replicas()
        one = make(replicas, batch=2, queue=8)
        one._seconds = 100.0
        tasks = await asked(one, *[b"%d" % number for number in range(11)])  # one and two are out, eight wait
        await asyncio.gather(*await asked(one, b"more"))
        assert one.why_not_ready() == "saturated"
        replicas.let.set()
        await asyncio.sleep(0)
        replicas.let.clear()
        await asyncio.sleep(0.02)
        assert one.waiting == 4 and one.why_not_ready() == ""
        replicas.let.set()
        await replies(tasks)

    asyncio.run(run())


def test_what_a_lost_replica_had_is_sent_again_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(front, "SECONDS_BEFORE_AGAIN", 0.0)

    async def run(losses):
        replicas = Replicas()
        replicas.errors = [ReplicaLost("it died")] * losses
        replicas.let.set()
        one = make(replicas)
        answers = await replies(await asked(one, b"1", b"2"))
        return answers, one.monitoring.registry.get_sample_value("tf_reid_sent_again_total")

    assert asyncio.run(run(1))[0] == [b"1", b"2"]
    assert asyncio.run(run(6))[0] == ["UNAVAILABLE"] * 2
    assert asyncio.run(run(1))[1] >= 1


def test_an_error_of_a_living_replica_is_not_tried_again():
    async def run():
        replicas = Replicas()
        replicas.errors = [ValueError("a bug")]
        replicas.let.set()
        (reply,) = await asyncio.gather(*await asked(make(replicas), b"1"))
        return reply, replicas.batches

    reply, batches = asyncio.run(run())
    assert (reply.code, reply.reason) == ("INTERNAL", "failed") and "a bug" not in reply.sentence
    assert batches == [[b"1"]]


def test_a_slow_request_is_sent_again_alone_and_one_whose_client_left_is_not_sent():
    async def run():
        replicas = Replicas()
        one = make(replicas)
        one._seconds = 100.0
        tasks = await asked(one, b"1", b"slow", b"left")
        tasks.pop().cancel()
        await asyncio.sleep(0)
        tasks += await asked(one, b"2", b"3")
        replicas.let.set()
        return await replies(tasks), replicas.batches

    answers, batches = asyncio.run(run())
    assert answers == [b"1", b"slow", b"2", b"3"] and batches.count([b"slow"]) == 1
    sent = [body for batch in batches for body in batch]
    assert sent.count(b"slow") == 2 and b"left" not in sent


def test_a_server_that_stops_answers_what_it_has_and_refuses_the_rest():
    async def run():
        replicas = Replicas()
        one = make(replicas)
        tasks = await asked(one, b"1", b"2")
        one.is_stopping = True
        assert one.why_not_ready() == "stopping"
        (refused,) = await asyncio.gather(*await asked(one, b"3"))
        assert (refused.code, refused.reason) == ("UNAVAILABLE", "stopping")
        settled = asyncio.create_task(one.settled())
        await asyncio.sleep(0.02)
        assert not settled.done()
        replicas.let.set()
        await settled
        return [task.result().content for task in tasks]

    assert asyncio.run(run()) == [b"1", b"2"]


def test_a_server_that_stops_answers_what_a_lost_replica_had(monkeypatch):
    """It waits for a moment before it is sent again, and no replica has anything then."""
    monkeypatch.setattr(front, "SECONDS_BEFORE_AGAIN", 0.0)

    async def run():
        replicas = Replicas()
        replicas.errors = [ReplicaLost("it died")]
        one = make(replicas)
        (task,) = await asked(one, b"1")
        one._last, one._seconds = 3, 1.0  # as after a batch of three: a single request waits a tenth of that for others
        replicas.let.set()
        await one.settled()
        return task.done(), replicas.batches

    assert asyncio.run(run()) == (True, [[b"1"], [b"1"]])


def test_the_old_version_goes_once_its_last_batch_is_answered():
    async def run():
        replicas = Replicas()
        one = make(replicas)
        before = await asked(one, b"1")
        moving = asyncio.create_task(following.move(one, replicas, SECOND))
        await asyncio.sleep(0.01)
        assert replicas.moves == [("prepare", SECOND)] and not moving.done()
        after = await asked(one, b"2")
        replicas.let.set()
        assert await moving and await replies([*before, *after]) == [b"1", b"2"]
        assert replicas.served == [FIRST, SECOND] and replicas.moves[1:] == [("release", SECOND)]
        value = one.monitoring.registry.get_sample_value("tf_reid_label_version", {"model": "reid", "label": "stable"})
        assert value == 2 and not await following.move(one, replicas, SECOND)

    asyncio.run(run())


def test_a_slow_request_of_the_old_version_is_answered_before_that_version_goes():
    async def run():
        replicas = Replicas()
        one = make(replicas)
        tasks = await asked(one, b"slow")
        moving = asyncio.create_task(following.move(one, replicas, SECOND))
        await asyncio.sleep(0.01)
        replicas.let.set()
        await asyncio.sleep(0)
        replicas.let.clear()  # the batch is answered, but for the slow request, which is sent again alone
        await asyncio.sleep(0.02)
        assert replicas.batches == [[b"slow"]] * 2 and replicas.moves == [("prepare", SECOND)] and one.outstanding == 0
        replicas.let.set()
        assert await moving and await replies(tasks) == [b"slow"] and replicas.served == [FIRST, FIRST]
        assert replicas.moves[1:] == [("release", SECOND)]

    asyncio.run(run())


def test_a_broken_version_does_not_end_the_following_of_models_config(monkeypatch, tmp_path):
    found = iter([ValueError("saved_model.pb is half there"), ConfigError("reid/2 is not there"), SECOND])

    def served_models(_folder):
        following_one = next(found)
        if isinstance(following_one, Exception):
            raise following_one
        return following_one

    monkeypatch.setattr(following, "served_models", served_models)

    async def run():
        replicas, now = Replicas(), asyncio.Event()
        one = make(replicas)
        task = asyncio.create_task(following.follow(one, replicas, tmp_path, 100.0, now))
        for _ in range(3):
            now.set()  # as SIGHUP does
            while now.is_set():
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        task.cancel()
        return one.served

    assert asyncio.run(run()) == SECOND
