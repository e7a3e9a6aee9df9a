"""From a run to new versions of its served models, proved before they get their names."""

from functools import partial
from pathlib import Path

from export import deployment, names, proof, quantisation, saving, workspace
from tf_reid.config import ConfigError
from tf_reid.evaluation import scoring


def export_run(
    run: str | Path,
    to: str | Path,
    *,
    name: str | None = None,
    representation: str | None = None,
    gallery: str | Path | None = None,
    top: int = 20,
    images: bool = False,
    quantise: str | None = None,
) -> dict[str, Path]:
    """Export a run's encoders as SavedModels: `to`/NAME/1, then 2, ... A version that fails its proof is not kept.

    Args:
        run: the folder of a finished run.
        to: the folder that models are served from. The files that deploy them are written into `to`/serving.
        name: the model's; by default that of the run's folder. Where there are several encoders: NAME_ROLE.
        representation: one of metrics.json, such as "raw"; by default the method's own encoders.
        gallery: a gallery's folder. The model gets an endpoint `search`, which compares with it; NAME_int8 gets none,
            since its embeddings do not compare with the gallery's.
        top: how many matches that endpoint answers.
        images: also export NAME_images, which makes images as the method does.
        quantise: "int8" also exports NAME_int8 (or NAME_int8_ROLE), whose convolutions are int8. Both are scored on the
            run's own protocol first.

    Returns:
        model's name -> the folder of its new version.

    Raises:
        ConfigError: the run is not finished, an option does not fit it, this TensorFlow cannot compute int8
            convolutions, int8 loses more than half a point of rank-1, or a model fails its proof.
    """
    folder, to = Path(run), Path(to)
    name, source = (name, "--name") if name is not None else (folder.resolve().name, "the name of the run's folder")
    names.check_model_name(name, source)
    names.check_folder(to, "--to")
    if quantise not in (None, "int8"):
        raise ConfigError(f"--quantise {quantise}: it must be int8.")
    if top < 1:
        raise ConfigError(f"--top {top}: search answers one match or more.")
    deployment.read_models_config(to / names.SERVING / "models.config")  # its error now, not after the work
    trained = scoring.open_trained(folder)
    saving.check_finished(trained, folder)
    chosen = saving.chosen(trained, representation, folder)
    if gallery is not None:
        saving.add_search(chosen, Path(gallery), top)

    sets = [chosen]
    if quantise is not None:
        sets.append(quantisation.quantised(chosen, trained))
        quantisation.check_loss(*sets, trained)

    # Model's name -> what saves it into a folder, and what proves it there.
    jobs = {}
    for one in sets:
        for role, model in saving.names_of(one, name).items():
            jobs[model] = partial(saving.write, role=role, chosen=one), partial(proof.prove, role=role, chosen=one)
    if images:
        maker = saving.maker_of_images(trained)
        save, prove = partial(saving.write_images, servable=maker), partial(proof.prove_images, servable=maker)
        jobs[f"{name}_images"] = save, prove
    for model in jobs:
        names.check_model_name(model, "--name")

    # Every model is saved and proved beside its place before one of them gets its version's number.
    with workspace.opened(to) as place:
        unproved = {model: place / model / "saved" for model in jobs}
        for model, (save, prove) in jobs.items():
            save(unproved[model], run=trained, run_folder=folder)
            prove(unproved[model], run=trained)
        return workspace.give_versions(to, unproved)
