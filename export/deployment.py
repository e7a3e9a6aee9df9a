"""What TF Serving needs to serve a folder of exported models: its configuration, containers, instructions.

```
FOLDER/serving/models.config       of every model the versions that its labels name: `stable`, `canary` and your own
               batching.config     requests that come together are answered together
               monitoring.config   metrics for Prometheus
               compose.yaml        docker compose, on the CPU or, with --profile gpu, on a GPU
               kubernetes.yaml     a deployment that is ready once its models are AVAILABLE, and its service
               kuberay.yaml        the same models on Ray Serve, by the KubeRay operator
               grafana.json        a dashboard of the metrics of export.serve
               README.md           deploy, canary, roll back
```
`export/serving/` of this package holds the same for one model called `reid`.
"""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from export.names import check_label, is_model_name, is_name, version_number
from tf_reid.config import ConfigError
from tf_reid.files import write_text

IMAGE = "tensorflow/serving:2.21.0"
GRPC, REST = 8500, 8501
POLL_SECONDS = 30  # how often a server reads models.config
BATCHING = {
    "max_batch_size": 32,
    "batch_timeout_micros": 2000,
    "max_enqueued_batches": 64,
    "num_batch_threads": 2,
}
EXAMPLES = Path(__file__).with_name("serving")
FOR_ALL_MODELS = ("kuberay.yaml", "grafana.json")  # files that name no model

Labels = dict[str, int]  # label -> version


class Served(NamedTuple):
    """What of a model is served: versions, ascending, and the version of each label."""

    versions: list[int]
    labels: Labels


# --------------------------------------------------------------------- versions and labels


def exported_versions(folder: Path) -> dict[str, list[int]]:
    """Model -> its exported versions, ascending. A folder whose name no model may have is passed over."""
    models = {}
    for model in sorted(path for path in folder.iterdir() if path.is_dir() and is_model_name(path.name)):
        numbers = [version_number(path.parent.name) for path in model.glob("*/saved_model.pb")]
        if versions := [number for number in numbers if number is not None]:
            models[model.name] = sorted(versions)
    return models


def read_models_config(path: Path) -> dict[str, Served]:
    """Model -> what of it is served; nothing where there is no such file.

    Raises:
        ConfigError: the file cannot be read.
    """
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    if not path.exists():
        return {}
    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), model_server_config_pb2.ModelServerConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); correct it, or remove it to have it written anew."
        ) from None
    for model in config.model_config_list.config:
        if bad := [name for name in (model.name, *model.version_labels) if not is_name(name)]:
            raise ConfigError(f"{path}: {bad[0][:100]!r} cannot be the name of a model or label; correct it.")
    return {
        model.name: Served(sorted(model.model_version_policy.specific.versions), dict(model.version_labels))
        for model in config.model_config_list.config
    }


def served_models(folder: Path) -> dict[str, Served]:
    """Model -> what models.config says of it; each version has been checked to be there.

    Raises:
        ConfigError: the folder has no model, or lacks one that models.config names.
    """
    models = read_models_config(folder / "serving" / "models.config")
    if not models:
        raise ConfigError(f"{folder} has no exported model; make one with python -m export --run RUN --to {folder}.")
    for name, served in models.items():
        for version in served.versions:
            place = folder / name / str(version)
            if not (place / "saved_model.pb").exists():
                raise ConfigError(f"models.config names {place}, which is not there; restore it, or move its label.")
        if missing := {label for label, version in served.labels.items() if version not in served.versions}:
            raise ConfigError(
                f"models.config: label {min(missing)} of {name} is on a version that `versions` does not name."
            )
    return models


def set_label(folder: Path, model: str, label: str, version: int) -> None:
    """Put a label on an exported version in models.config; versions without a label are no longer served.

    Raises:
        ConfigError: there is no such model or version, no label may be called so, or there is no models.config yet.
    """
    check_label(label)
    labels = {name: served.labels for name, served in served_models(folder).items()}
    if model not in labels:
        raise ConfigError(f"{folder} serves no model {model}; its models are {', '.join(labels)}.")
    versions = exported_versions(folder)[model]
    if version not in versions:
        raise ConfigError(f"{model} has no version {version}; its versions are {', '.join(map(str, versions))}.")
    labels[model] = {**labels[model], label: version}
    write_text(folder / "serving" / "models.config", models_config(labels))


def _labels_after_export(versions, former):
    """`stable` and other labels stay where they were, as far as their versions exist; `canary` is the newest."""
    newest = versions[-1]
    kept = {label: version for label, version in former.items() if version in versions}
    return {"stable": newest, **kept, "canary": newest}


# -------------------------------------------------------------------------------- files


def write(folder: Path) -> None:
    """Write FOLDER/serving after an export: models.config anew, other files where they are missing or unedited.

    A file that was edited stays as it is; a kubernetes.yaml that the models need otherwise is named on the screen.
    """
    target = folder / "serving"
    former = {name: served.labels for name, served in read_models_config(target / "models.config").items()}
    labels = {
        name: _labels_after_export(versions, former.get(name, {}))
        for name, versions in exported_versions(folder).items()
    }
    unedited = files(former) if former else {}
    for name, text in files(labels).items():
        path = target / name
        present = path.read_text() if path.exists() else None
        if name == "models.config" or present in (None, unedited.get(name)):
            write_text(path, text)
        elif name == "kubernetes.yaml" and present != text:
            print(f"{path} is kept as it is; remove it to have it written for all present models.")


def files(labels: dict[str, Labels]) -> dict[str, str]:
    """Name of a file -> its text.

    Args:
        labels: model -> label -> version.
    """
    first = next(iter(labels))
    return {
        "batching.config": "".join(f"{key} {{ value: {value} }}\n" for key, value in BATCHING.items()),
        "monitoring.config": 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n',
        "compose.yaml": _yaml(_compose()),
        "kubernetes.yaml": "---\n".join(map(_yaml, (_kubernetes_deployment(list(labels)), _kubernetes_service()))),
        **{name: (EXAMPLES / name).read_text(encoding="utf-8") for name in FOR_ALL_MODELS},
        "README.md": _instructions(first),
        # The last one: once it names a version, that version is served, and no failure may take it back.
        "models.config": models_config(labels),
    }


def _instructions(model):
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for before, after in (("/", ""), ("`", "`"), ("FOLDER ", " ")):
        text = text.replace(f"{before}reid{after}", f"{before}{model}{after}")
    return text


def models_config(labels: dict[str, Labels]) -> str:
    """TF Serving's list of models: of each the versions that its labels name."""
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    for name, labels_of_model in labels.items():
        model = config.model_config_list.config.add(name=name, base_path=f"/models/{name}", model_platform="tensorflow")
        model.model_version_policy.specific.versions.extend(sorted(set(labels_of_model.values())))
        for label, version in labels_of_model.items():
            model.version_labels[label] = version
    return text_format.MessageToString(config)


def ready(names: list[str], port: int = REST) -> str:
    """A bash command that succeeds where each model has an AVAILABLE version.

    A server answers 200 for a model that is still loading too, so the answer is read; the server's image has no curl.
    """
    requests = [shlex.quote(f"GET /v1/models/{name} HTTP/1.0\\r\\n\\r\\n") for name in names]
    check = "grep -q '\"AVAILABLE\"' <&3"
    return " && ".join(f"exec 3<>/dev/tcp/127.0.0.1/{port} && printf {request} >&3 && {check}" for request in requests)


class _WithoutAnchors(yaml.SafeDumper):
    """Writes a value that occurs twice in full both times."""

    def ignore_aliases(self, data):
        return True


def _yaml(data):
    return yaml.dump(data, Dumper=_WithoutAnchors, sort_keys=False, width=100)


def _server_arguments():
    return [
        f"--port={GRPC}",
        f"--rest_api_port={REST}",
        "--model_config_file=/models/serving/models.config",
        f"--model_config_file_poll_wait_seconds={POLL_SECONDS}",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_batching=true",
        "--batching_parameters_file=/models/serving/batching.config",
        "--monitoring_config_file=/models/serving/monitoring.config",
    ]


def _compose() -> dict[str, Any]:
    def service(image):
        return {
            "image": image,
            "entrypoint": ["/usr/bin/tensorflow_model_server"],
            "command": _server_arguments(),
            # Loopback only: put a gateway that knows its clients in front before others may reach it.
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


KUBERNETES_LABELS = {"app": "tf-reid-serving"}


def _kubernetes_deployment(names) -> dict[str, Any]:
    container = {
        "name": "serving",
        "image": IMAGE,
        "command": ["/usr/bin/tensorflow_model_server"],
        "args": _server_arguments(),
        "ports": [{"name": "grpc", "containerPort": GRPC}, {"name": "rest", "containerPort": REST}],
        "readinessProbe": {"exec": {"command": ["bash", "-c", ready(names)]}, "periodSeconds": 5, "timeoutSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": GRPC}, "initialDelaySeconds": 60, "periodSeconds": 20},
        "resources": {"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True},
    }
    claim = {"persistentVolumeClaim": {"claimName": "tf-reid-models", "readOnly": True}}
    pod = {"containers": [container], "volumes": [{"name": "models", **claim}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "tf-reid-serving", "labels": KUBERNETES_LABELS},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": KUBERNETES_LABELS},
            "template": {"metadata": {"labels": KUBERNETES_LABELS}, "spec": pod},
        },
    }


def _kubernetes_service() -> dict[str, Any]:
    ports = [{"name": name, "port": port, "targetPort": name} for name, port in (("grpc", GRPC), ("rest", REST))]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "tf-reid-serving"},
        "spec": {"selector": KUBERNETES_LABELS, "ports": ports},
    }
