"""The methods, by the name that a configuration gives."""

from tf_reid.methods.base import ReIDModel
from tf_reid.methods.cmgan import CmGAN
from tf_reid.methods.cogan import CoGAN
from tf_reid.methods.crossgan import CrossGAN
from tf_reid.methods.dgnet import DGNet
from tf_reid.methods.identity import Identity
from tf_reid.methods.simpgan import SimPGAN
from tf_reid.methods.strong import Strong
from tf_reid.methods.view_adaptation import ViewAdaptation

METHODS: dict[str, type[ReIDModel]] = {
    "identity": Identity,
    "simpgan": SimPGAN,
    "cmgan": CmGAN,
    "dgnet": DGNet,
    "crossgan": CrossGAN,
    "view_adaptation": ViewAdaptation,
    "cogan": CoGAN,
    "strong": Strong,
}
