"""The package as Pulumi's own CLI finds it, installs it and reads its schema.

No program of examples/ runs: a preview of one asks the Sparks.
"""

import json
import os
import shutil
import subprocess
import sysconfig

import pytest

from components import package
from ops import pulumi
from tests.program.record import ROOT

pytestmark = pytest.mark.skipif(
    "pulumi" not in pulumi.available() or os.environ.get("SPARK_ENGINE") == "hermetic",
    reason="needs Pulumi's CLI, which is not here, or was not asked for (SPARK_ENGINE=hermetic)",
)


@pytest.fixture
def clone(tmp_path):
    """A folder like this project's, with an environment of its own: the CLI has pip change the one that it finds."""
    for folder in ("package", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    (tmp_path / "components").symlink_to(ROOT / "components")
    base = str(tmp_path / ".venv")
    packages = tmp_path / sysconfig.get_path("purelib", "posix_prefix", vars={"base": base})
    packages.mkdir(parents=True)
    # What is installed here counts as installed there, and of an index nothing is asked.
    (packages / "here.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    for name in ("setuptools", "wheel"):
        about = packages / f"{name}-999.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 999\n")
    return tmp_path


@pytest.mark.parametrize(("folder", "name"), [(".", "./package"), ("examples/yaml", "dgx-spark")])
def test_the_cli_reads_the_schema_by_path_and_by_the_name_in_an_example(folder, name, clone):
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {"PIP_NO_INDEX": "1", "PULUMI_SKIP_UPDATE_CHECK": "true"}
    done = subprocess.run(
        [*pulumi.available()["pulumi"].argv, "package", "get-schema", name],
        cwd=clone / folder,
        env=pulumi.with_plugins(env),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    made = package.schema()
    assert read["resources"][package.TOKEN]["inputProperties"] == made["resources"][package.TOKEN]["inputProperties"]
    assert read["types"].keys() == made["types"].keys()
    # By the environment that was made for it, as a newcomer's is.
    assert (clone / ".venv" / "pyvenv.cfg").exists()
