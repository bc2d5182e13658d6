"""Our Dockerfile, as far as it can be checked without a GPU: its stages, its pins, what each cache buster fetches."""

import re
from pathlib import Path

TEXT = (Path(__file__).parent.parent.parent / "components/images/vllm.Dockerfile").read_text()


def stages():
    """Stage → (what it is built from, its lines)."""
    found = {}
    for part in re.split(r"^FROM ", TEXT.replace("\\\n", " "), flags=re.M)[1:]:
        first, *lines = part.splitlines()
        base, name = re.fullmatch(r"(\S+) AS (\S+)", first).groups()
        found[name] = (base, lines)
    return found


def arguments():
    return dict(re.findall(r"^ARG ([A-Z_]+)=(\S+)$", TEXT, re.M))


def test_what_is_served_holds_no_build_tools():
    made = stages()
    assert {name: base for name, (base, _) in made.items()} == {
        "base": "${CUDA_IMAGE}",
        "dependencies": "base",
        "build": "dependencies",
        "serve": "dependencies",
    }
    assert list(made)[-1] == "serve"
    assert not any("build-essential" in line for name in ("base", "dependencies", "serve") for line in made[name][1])


def test_everything_is_pinned_and_made_for_gb10():
    known = arguments()
    assert known["TORCH_CUDA_ARCH_LIST"] == "12.1a"
    for name in ("CUDA_IMAGE", "VLLM_REF", "TORCH_VERSION", "TORCHVISION_VERSION", "FLASHINFER_VERSION", "RAY_VERSION"):
        assert re.search(r"\d+\.\d+", known[name]), name
    # Every package from an index names its version.
    installs = re.findall(r"pip install ([^&\n]*)", TEXT.replace("\\\n", " "))
    assert all("==" in words or "-r " in words or ".whl" in words for words in installs)


def position(stage, words):
    return next(number for number, line in enumerate(stages()[stage][1]) if words in line)


def test_a_new_cachebust_deps_fetches_debians_packages_too():
    assert position("base", "ARG CACHEBUST_DEPS") < position("base", "CACHEBUST_DEPS}") <= position("base", "apt-get")


def test_a_new_cachebust_vllm_fetches_the_source_alone():
    assert position("build", "apt-get") < position("build", "CACHEBUST_VLLM}") <= position("build", "git clone")
    assert "CACHEBUST_VLLM" not in "".join(stages()["dependencies"][1])
