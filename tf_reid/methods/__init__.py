"""The methods, by the name that a configuration gives."""

from tf_reid.methods.cmgan import CmGAN
from tf_reid.methods.identity import Identity
from tf_reid.methods.simpgan import SimPGAN
from tf_reid.methods.view_adaptation import ViewAdaptation

METHODS = {"identity": Identity, "simpgan": SimPGAN, "cmgan": CmGAN, "view_adaptation": ViewAdaptation}
