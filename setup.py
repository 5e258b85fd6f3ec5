"""Only what setup.cfg cannot say: two packages live outside the folder of their parent.

`services/` and `migrations/` stand at the top of the tree because people read and edit them there, but they
are installed inside `broker`, so that a wheel carries the demo plugins and can upgrade its database. The
`find:` of setup.cfg does not see a package that `package_dir` moves, hence the explicit list.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["broker", "broker.*", "plugin_sdk", "plugin_sdk.*"]),
        "broker.services",
        "broker.migrations",
    ],
    package_dir={"broker.services": "services", "broker.migrations": "migrations"},
)
