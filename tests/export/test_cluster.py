"""Which replicas are asked of Ray, and on which cluster; what is written for KubeRay."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from export import cluster, deployment, serve
from tf_reid.config import ConfigError

LINES = {  # options -> replicas, threads of each, and what each takes of the cluster
    "": (1, None, {"num_cpus": 0, "num_gpus": 0.0}),
    "--replicas 2": (2, 4, {"num_cpus": 0, "num_gpus": 0.0}),
    "--replicas 4 --gpus-per-replica 0.5": (4, None, {"num_cpus": 0, "num_gpus": 0.5}),
    "--replicas 3 --ray auto": (3, None, {"num_cpus": 1, "num_gpus": 0.0}),
    "--replicas auto --ray 10.0.0.1:6379": ((1, 2), None, {"num_cpus": 1, "num_gpus": 0.0}),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, as it is imported
@pytest.mark.parametrize(("options", "expected"), LINES.items())
def test_options_become_replicas_of_ray(tmp_path, monkeypatch, options, expected):
    args = serve.arguments([str(tmp_path), *options.split()])
    started, deployed, private = {}, [], []
    # It would be of this process, whose other tests start Ray, too.
    monkeypatch.setattr("tf_reid.encoders.private_ray.set_environment", private.append)
    nodes = [{"Alive": True, "Resources": {"CPU": 8}}] * 2
    monkeypatch.setattr("ray.init", lambda **settings: started.update(settings))
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr("ray.serve.start", lambda **_: None)
    monkeypatch.setattr("ray.serve.status", lambda: SimpleNamespace(applications={}))
    monkeypatch.setattr(
        "ray.serve.run", lambda application, **settings: deployed.append(application) or SimpleNamespace(answer=None)
    )
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    is_local = args.ray == "local"
    cluster.start(serve.wanted_replicas(args), tmp_path if is_local else None)
    made = deployed[0]._bound_deployment
    scaling = made._deployment_config.autoscaling_config
    replicas = (scaling.min_replicas, scaling.max_replicas) if scaling else made.num_replicas
    resources = {name: made.ray_actor_options[name] for name in ("num_cpus", "num_gpus")}
    *_, threads, is_private = made.init_args
    assert (replicas, threads, resources) == expected and is_private == is_local
    assert started["address"] == args.ray and ("_temp_dir" in started) == is_local
    assert private == [tmp_path] * is_local


@pytest.mark.parametrize(("nodes", "gpus", "expected"), [([8, 4], 0.0, 2), ([8], 0.5, 4), ([8, 8], 2.0, 2)])
def test_a_cluster_has_room_for_so_many_replicas(nodes, gpus, expected):
    found = [{"Alive": True, "Resources": {"CPU": cpus, "GPU": 2}} for cpus in nodes]
    assert cluster.room([*found, {"Alive": False, "Resources": {"CPU": 99, "GPU": 99}}], gpus) == expected
    with pytest.raises(ConfigError, match="No node of the cluster has --gpus-per-replica 3"):
        cluster.room(found, 3.0)


def test_options_of_replicas_that_cannot_be_are_refused(tmp_path, capsys, monkeypatch):
    for option, value in (("--replicas", "0"), ("--gpus-per-replica", "-1"), ("--gpus-per-replica", "1.5")):
        with pytest.raises(SystemExit):
            serve.arguments([str(tmp_path), option, value])
        assert f"argument {option}: {value} is not between" in capsys.readouterr().err
    monkeypatch.setattr(serve, "served_models", lambda _folder: None)
    with pytest.raises(ConfigError, match="run this on a node of the cluster with --ray auto"):
        serve.main([str(tmp_path), "--ray", "ray://head:10001"])
    with pytest.raises(ConfigError, match=r"No Ray cluster answers at 127\.0\.0\.1:1: "):
        serve.main([str(tmp_path), "--ray", "127.0.0.1:1"])


def test_a_look_at_the_replicas_ends_before_ray_is_shut_down(monkeypatch):
    """One that came after would start a Ray that no command ends."""
    begun, released = threading.Event(), threading.Event()

    def look(_name):
        begun.set()
        released.wait(10)
        return 2

    monkeypatch.setattr(cluster, "SECONDS_BETWEEN_LOOKS", 0)
    monkeypatch.setattr(cluster, "_running", look)
    replicas = cluster.RayReplicas(SimpleNamespace(answer=None), SimpleNamespace(name="reid"))

    async def cancelled():
        watching = asyncio.create_task(replicas.watch())
        await asyncio.to_thread(begun.wait)
        watching.cancel()
        await asyncio.wait([watching], timeout=0.1)
        ended_early = watching.done()
        released.set()
        await asyncio.wait([watching], timeout=10)
        return ended_early, watching.cancelled()

    assert asyncio.run(cancelled()) == (False, True)


def test_the_pods_of_kuberay_start_the_server_and_ask_whether_it_is_ready():
    text = (Path(deployment.__file__).parent / "serving" / "kuberay.yaml").read_text()
    of_ray, service = yaml.safe_load_all(text)
    front, models = (group["template"] for group in of_ray["spec"]["workerGroupSpecs"])
    (container,) = front["spec"]["containers"]
    command = container["args"][0].split("exec python -m export.serve ")[1]
    args = serve.arguments([*command.split(), "--token", "secret"])
    assert (args.ray, args.host, args.replicas, args.access_log) == ("auto", "0.0.0.0", 2, "-")
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"grpc": 8500, "rest": 8501}
    assert service["spec"]["selector"] == front["metadata"]["labels"]
    mounts = [each["spec"]["containers"][0]["volumeMounts"] for each in (front, models)]
    assert mounts[0] == mounts[1] and mounts[0][0]["mountPath"] == str(args.folder)
