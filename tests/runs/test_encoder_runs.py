"""Features of a run on other data are those of other people."""

import pytest
import yaml
from conftest import make_records, stage_configs

from tf_reid.config import ConfigError
from tf_reid.methods import METHODS
from tf_reid.runs import encoder_runs, run_folder
from tf_reid.settings import Config, Data, Run


def test_a_run_that_was_trained_with_labels_of_the_people_here_is_refused(tmp_path, monkeypatch):
    theirs = Config(
        data=Data(source=["synthetic_pedestrians/night", "viper"]),
        method={"name": "identity"},
        stages=stage_configs(METHODS["identity"]),
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(theirs.model_dump()))
    assert len(encoder_runs.populations(run_folder.load_run(tmp_path))) == 2
    to_viper = theirs.model_copy(update={"data": Data(source="synthetic_pedestrians/night", target="viper")})
    assert "viper" not in encoder_runs.populations(to_viper)
    by_its_labels = to_viper.model_copy(update={"run": Run(keep="best", validate_every=1)})
    assert "viper" in encoder_runs.populations(by_its_labels)

    def ours(encoder):
        return theirs.model_copy(update={"method": {"name": "crossgan", "encoder": encoder}})

    others = make_records([1, 2], [1, 2], name="grid", population="grid")
    same = make_records([1, 2], [1, 2], name="viper:1.0.0", population="viper")
    encoder_runs.check(ours(str(tmp_path)), {"data.source": others})
    for encoder in ("pixels", "small", None):
        encoder_runs.check(ours(encoder), {"data.source": same})
    with pytest.raises(ConfigError, match=r"labels of people whom viper:1\.0\.0 \(data\.target\) shows; name a run of"):
        encoder_runs.check(ours(str(tmp_path)), {"data.source": others, "data.target": same})
