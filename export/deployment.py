"""What a folder of exported models needs to be served by TF Serving: its configuration, containers, instructions.

```
FOLDER/serving/models.config       every model, its two newest versions, labels `stable` and `canary`
               batching.config     requests that come together are answered together
               monitoring.config   metrics for Prometheus
               compose.yaml        docker compose, on the CPU or, with --profile gpu, on a GPU
               kubernetes.yaml     a deployment that is ready once its models are AVAILABLE, and its service
               README.md           deploy, canary, roll back
```
`export/serving/` of this package holds the same for one model called `reid`.
"""

from pathlib import Path

import yaml
from google.protobuf import text_format

from tf_reid.config import ConfigError
from tf_reid.files import write_text

IMAGE = "tensorflow/serving:2.21.0"
GRPC, REST = 8500, 8501
BATCHING = {
    "max_batch_size": 32,
    "batch_timeout_micros": 2000,
    "max_enqueued_batches": 64,
    "num_batch_threads": 2,
}
INSTRUCTIONS = Path(__file__).with_name("serving") / "README.md"


def write(folder: Path):
    """Write FOLDER/serving/models.config anew, with the labels that it had; what else is missing or unedited, too.

    A file that was edited stays as it is; one that the new models need otherwise is named.
    """
    versions = {
        model.name: sorted(int(path.name) for path in model.iterdir() if path.name.isdigit())
        for model in sorted(folder.iterdir())
        if model.is_dir() and any((model / path.name / "saved_model.pb").exists() for path in model.iterdir())
    }
    target = folder / "serving"
    served = read_models_config(target / "models.config")
    labels = {name: found for name, (_, found) in served.items()}
    unedited = files({name: found for name, (found, _) in served.items()}, labels) if served else {}
    for file, text in files({name: found for name, found in versions.items() if found}, labels).items():
        there = (target / file).read_text() if (target / file).exists() else None
        if file == "models.config" or there in (None, unedited.get(file)):
            write_text(target / file, text)
        elif file == "kubernetes.yaml" and there != text:
            print(f"{target / file} is kept as it is; remove it to have it written for all models that are there now.")


def files(versions: dict[str, list[int]], labels: dict[str, dict[str, int]]) -> dict[str, str]:
    """Name of a file -> its text.

    Args:
        versions: model -> its versions, ascending.
        labels: model -> label -> version, as they are now; `canary` moves to the newest.
    """
    first = next(iter(versions))
    return {
        "models.config": _models(versions, labels),
        "batching.config": "".join(f"{key} {{ value: {value} }}\n" for key, value in BATCHING.items()),
        "monitoring.config": 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n',
        "compose.yaml": _yaml(_compose()),
        "kubernetes.yaml": "---\n".join(map(_yaml, _kubernetes(list(versions)))),
        "README.md": INSTRUCTIONS.read_text().replace("/reid", f"/{first}").replace("`reid`", f"`{first}`"),
    }


def read_models_config(path: Path) -> dict[str, tuple[list[int], dict[str, int]]]:
    """Model -> its versions that are served, and label -> version; nothing where there is no such file.

    Raises:
        ConfigError: the file cannot be read.
    """
    from tensorflow_serving.config import model_server_config_pb2

    if not path.exists():
        return {}
    try:
        config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise ConfigError(f"{path} cannot be read ({error}); mend it, or remove it to have it written anew.") from None
    return {
        model.name: (list(model.model_version_policy.specific.versions), dict(model.version_labels))
        for model in config.model_config_list.config
    }


class _Plain(yaml.SafeDumper):
    """Says what is said twice twice, rather than by an anchor."""

    def ignore_aliases(self, _data):
        return True


def _yaml(data):
    return yaml.dump(data, Dumper=_Plain, sort_keys=False, width=100)


def ready(names, port=REST) -> str:
    """A bash command that succeeds where each model has an AVAILABLE version.

    A server answers 200 for a model that is still loading too, so what it says is read; its image has no curl.
    """
    asked = "exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET /v1/models/{name} HTTP/1.0\\r\\n\\r\\n' >&3"
    answered = "grep -q '\"AVAILABLE\"' <&3"
    return " && ".join(f"{asked.format(port=port, name=name)} && {answered}" for name in names)


def _models(versions, labels):
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    for name, found in versions.items():
        newest = found[-1]
        kept = {label: version for label, version in labels.get(name, {}).items() if version in found}
        named = {"stable": newest} | kept | {"canary": newest}
        model = config.model_config_list.config.add(name=name, base_path=f"/models/{name}", model_platform="tensorflow")
        model.model_version_policy.specific.versions.extend(sorted(set(named.values())))
        for label, version in named.items():
            model.version_labels[label] = version
    return text_format.MessageToString(config)


def _arguments():
    return [
        f"--port={GRPC}",
        f"--rest_api_port={REST}",
        "--model_config_file=/models/serving/models.config",
        "--model_config_file_poll_wait_seconds=30",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_batching=true",
        "--batching_parameters_file=/models/serving/batching.config",
        "--monitoring_config_file=/models/serving/monitoring.config",
    ]


def _compose():
    def service(image):
        return {
            "image": image,
            "entrypoint": ["/usr/bin/tensorflow_model_server"],
            "command": _arguments(),
            # Loopback only: put a gateway that asks who is calling in front before others may reach it.
            "ports": [f"127.0.0.1:{port}:{port}" for port in (GRPC, REST)],
            "volumes": ["..:/models:ro"],
            "read_only": True,
            "restart": "unless-stopped",
        }

    gpus = {"reservations": {"devices": [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]}}
    return {
        "services": {
            "cpu": service(IMAGE) | {"profiles": ["cpu"]},
            "gpu": service(f"{IMAGE}-gpu") | {"profiles": ["gpu"], "deploy": {"resources": gpus}},
        }
    }


def _kubernetes(names):
    labels = {"app": "tf-reid-serving"}
    container = {
        "name": "serving",
        "image": IMAGE,
        "command": ["/usr/bin/tensorflow_model_server"],
        "args": _arguments(),
        "ports": [{"name": "grpc", "containerPort": GRPC}, {"name": "rest", "containerPort": REST}],
        "readinessProbe": {"exec": {"command": ["bash", "-c", ready(names)]}, "periodSeconds": 5, "timeoutSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": GRPC}, "initialDelaySeconds": 60, "periodSeconds": 20},
        "resources": {"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True},
    }
    claim = {"persistentVolumeClaim": {"claimName": "tf-reid-models", "readOnly": True}}
    pod = {"containers": [container], "volumes": [{"name": "models", **claim}]}
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "tf-reid-serving", "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    ports = [{"name": name, "port": port, "targetPort": name} for name, port in (("grpc", GRPC), ("rest", REST))]
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "tf-reid-serving"},
        "spec": {"selector": labels, "ports": ports},
    }
