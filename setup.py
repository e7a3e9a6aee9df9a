"""The packages; all else is in setup.cfg, which cannot add one to those that it finds."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tf_reid*", "tfds_builders*", "export*"]), "tf_reid.configs"],
    package_dir={"tf_reid.configs": "configs"},
)
