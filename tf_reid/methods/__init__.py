"""The methods, by the name that a configuration gives."""

from tf_reid.methods.identity import Identity
from tf_reid.methods.simpgan import SimPGAN

METHODS = {"identity": Identity, "simpgan": SimPGAN}
