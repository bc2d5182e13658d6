"""The engine's image: looked at, completed, built and copied, by a Docker that is as strict as BuildKit's."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.unit.home import Home, record

DOCKER = '''#!{python}
"""Docker's command line over a folder of images, each a JSON file: {{"name": [names], "layers": [...], "has": [...]}}.

As BuildKit does it: FROM is looked up by name alone, and an id is taken for a repository at a registry. The image store
is `overlay2` or `containerd`: the same content has another id in each.
"""
import hashlib, json, os, re, sys, tempfile
from pathlib import Path
here = Path("{home}/docker")
store = (here / "store").read_text()
words = sys.argv[1:]
with (here / "calls").open("a") as calls:
    print(*words, file=calls)

def images():
    return {{path.name: json.loads(path.read_text()) for path in (here / "images").iterdir()}}

def save(image):
    shared = json.dumps([image["layers"], image["has"]])
    hex = hashlib.sha256((store + shared).encode()).hexdigest()
    known = images().get(hex, {{"names": []}})
    image = {{**image, "names": sorted({{*known["names"], *image["names"]}})}}
    for other, about in images().items():
        about["names"] = [name for name in about["names"] if name not in image["names"]]
        (here / "images" / other).write_text(json.dumps(about))
    (here / "images" / hex).write_text(json.dumps(image))
    return hex

def find(name):
    for hex, image in images().items():
        if name.removeprefix("sha256:") == hex or name in image["names"]:
            return hex, image
    sys.exit(f"Error response from daemon: No such image: {{name}}")

if words[0] == "tag":
    hex, image = find(words[1])
    save({{**image, "names": [*image["names"], words[2]]}})
elif words[0] == "info":
    print("[[driver-type io.containerd.snapshotter.v1]]" if store == "containerd" else "[[Backing Filesystem extfs]]")
elif words[:2] == ["image", "ls"]:
    print(*(f"sha256:{{hex}}" for hex in images()))
elif words[:2] == ["image", "inspect"]:
    hex, image = find(words[-1])
    digests = [f"{{name.split(':')[0]}}@sha256:{{hex}}" for name in image["names"]] if store == "containerd" else []
    about = {{"Id": f"sha256:{{hex}}", "RepoTags": image["names"], "RepoDigests": digests, "Architecture": "arm64",
              "RootFS": {{"Layers": image["layers"]}},
              "Config": {{"Env": ["A=b"], "Cmd": None if store == "overlay2" else [], "Labels": {{}}}}}}
    print(about["Id"] if "--format={{{{.Id}}}}" in words else json.dumps([about]))
elif words[:2] == ["image", "rm"]:
    hex, image = find(words[2])
    image["names"].remove(words[2])
    file = here / "images" / hex
    file.write_text(json.dumps(image)) if image["names"] else file.unlink()
elif words[0] == "run":
    hex, image = find(words[4])
    thing = "ray" if "import ray" in words[-1] else "sshd"
    found = [has for has in image["has"] if has.startswith(thing)]
    print(found[0].partition("=")[2] if found else "")
    sys.exit(0 if found else 1)
elif words[0] == "build":
    if os.environ.get("BUILDX_BUILDER", "default") != "default":
        sys.exit("ERROR: this builder has a container of its own, and sees no image of this Docker")
    settings = Path(os.environ.get("BUILDX_CONFIG") or Path.home() / ".docker/buildx")
    settings.mkdir(parents=True, exist_ok=True)
    (settings / ".buildNodeID").write_text("")
    # Where buildx puts the Dockerfile that came on stdin, and leaves it.
    tempfile.mkdtemp(prefix="dockerfile")
    assert words[-1] == "-" and "--pull" not in words
    given = [word.partition("=")[2].partition("=") for word in words if word.startswith("--build-arg=")]
    # One without a value has that of the environment. Source: docker build --help.
    (here / "arguments").write_text(json.dumps({{n: v if eq else os.environ.get(n) for n, eq, v in given}}))
    text = sys.stdin.read()
    base = re.search(r"^FROM (\\S+)", text, re.M)[1]
    if not any(base in image["names"] for image in images().values()):
        sys.exit(f"ERROR: failed to solve: {{base}}: failed to resolve source metadata for docker.io/library/{{base}}: "
                 "pull access denied, repository does not exist or may require authorization")
    if "RUN false" in text:
        sys.exit('ERROR: failed to solve: process "/bin/sh -c false" did not complete successfully: exit code: 1')
    _, image = find(base)
    has = [*image["has"], *(f"ray={{v}}" for v in re.findall(r"ray\\[default\\]==([\\d.]+)", text)),
           *(["sshd="] if "openssh-server" in text else [])]
    tag = words[words.index("--tag") + 1]
    save({{"names": [tag], "layers": [*image["layers"], hashlib.sha256(text.encode()).hexdigest()], "has": has}})
elif words[0] == "save":
    print(json.dumps(find(words[1])[1]))
elif words[0] == "load":
    if (here / "full").exists():
        sys.exit("write /var/lib/docker: no space left on device")
    print("Loaded image ID: sha256:" + save({{**json.load(sys.stdin), "names": []}}))
else:
    sys.exit(f"docker: '{{words[0]}}' is not known here")
'''

VLLM = "nvcr.io/nvidia/vllm:26.10-py3"


class Spark(Home):
    """A login user's home, and a Docker with one image, which has neither Ray nor sshd."""

    def __init__(self, path, store="overlay2", has=()):
        super().__init__(path)
        (path / "docker/images").mkdir(parents=True)
        (path / "docker/store").write_text(store)
        (path / "bin").mkdir()
        program = path / "bin/docker"
        program.write_text(DOCKER.format(python=sys.executable, home=path))
        program.chmod(0o755)
        self.base = "0" * 64
        (path / "docker/images" / self.base).write_text(json.dumps({"names": [], "layers": ["l1"], "has": list(has)}))
        self.docker("tag", self.base, VLLM)
        (path / "docker/images" / self.base).unlink()
        (self.base,) = [f"sha256:{name}" for name in self.images()]

    def docker(self, *words):
        assert os.spawnv(os.P_WAIT, self.path / "bin/docker", ["docker", *words]) == 0

    def images(self):
        folder = self.path / "docker/images"
        return {path.name: json.loads(path.read_text())["names"] for path in folder.iterdir()}

    def calls(self):
        return (self.path / "docker/calls").read_text().splitlines()

    def run(self, script, verb, **given):
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{self.path}/bin:{before}"
        try:
            return super().run(script, verb, **given)
        finally:
            os.environ["PATH"] = before

    def look(self, **add):
        return self.run("image.py", "apply", image=self.base, name=VLLM, add=add, record=record("image"))


def answer(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("store", ["overlay2", "containerd"])
def test_what_an_image_lacks_is_added_to_it_and_leaves_no_second_name_on_it(tmp_path, store):
    spark = Spark(tmp_path, store)
    made = answer(spark.look(ray="2.55.1", sshd="openssh-server"))
    assert made["ray"] == "2.55.1"
    assert made["image"] != made["base"] == spark.base
    names = {tuple(names) for names in spark.images().values()}
    short = spark.base[7:19]
    assert names == {(VLLM,), (f"dgx-spark/with-ray-sshd:{short}-2.55.1-openssh-server",)}
    # Again, as after a repair: the same image.
    assert answer(spark.look(ray="2.55.1", sshd="openssh-server")) == made


def test_what_an_image_has_is_not_added(tmp_path):
    spark = Spark(tmp_path, has=["ray=2.49.0"])
    made = answer(spark.look(ray="2.55.1"))
    assert (made["image"], made["ray"]) == (spark.base, "2.49.0")
    assert not [call for call in spark.calls() if call.startswith(("build", "tag dgx"))]


def test_an_image_that_has_no_other_name_keeps_the_one_that_it_was_given(tmp_path):
    spark = Spark(tmp_path)
    hex = spark.base[7:]
    file = tmp_path / "docker/images" / hex
    file.write_text(json.dumps({**json.loads(file.read_text()), "names": []}))
    answer(spark.look(ray="2.55.1"))
    assert spark.images()[hex] == [f"dgx-spark/base:{hex[:12]}"]


def test_a_build_that_fails_says_why_and_takes_the_name_back(tmp_path):
    spark = Spark(tmp_path)
    done = spark.look(ray="1.0; exit 1'\nRUN false")
    assert "did not complete successfully" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(spark.images().values()) == [[VLLM]]


def build(spark, dockerfile, **args):
    given = {"dockerfile": dockerfile, "args": args or {"B": "2", "A": "1"}, "tag": "dgx-spark/vllm:abc", "limit": 20}
    return spark.run("image_build.py", "apply", **given, record=record("image-build"))


def test_an_image_is_built_without_a_trace_in_the_users_settings(tmp_path, monkeypatch):
    spark = Spark(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("BUILDX_BUILDER", "cross")
    done = build(spark, f"FROM {VLLM}\nRUN make\n")
    assert done.returncode == 0, done.stderr
    (call,) = [call for call in spark.calls() if call.startswith("build")]
    assert call == "build --network=host --tag dgx-spark/vllm:abc --build-arg=A --build-arg=B -"
    assert json.loads((tmp_path / "docker/arguments").read_text()) == {"A": "1", "B": "2"}
    assert spark.images()[done.stdout.strip().removeprefix("sha256:")] == ["dgx-spark/vllm:abc"]
    assert not (tmp_path / ".docker").exists()
    assert list(scratch.iterdir()) == []
    failed = build(spark, f"FROM {VLLM}\nRUN false\n")
    assert "did not complete successfully" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_an_image_is_built_by_the_sparks_own_proxy(tmp_path, monkeypatch):
    spark = Spark(tmp_path)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:password@proxy:3128")
    done = build(spark, f"FROM {VLLM}\n")
    assert done.returncode == 0, done.stderr
    arguments = json.loads((tmp_path / "docker/arguments").read_text())
    assert arguments == {"A": "1", "B": "2", "HTTPS_PROXY": "http://user:password@proxy:3128"}
    assert "password" not in "".join(spark.calls())


def test_what_an_image_is_built_with_shows_in_no_command_line_and_means_nothing_to_docker_itself(tmp_path):
    spark = Spark(tmp_path)
    args = {"PIP_INDEX_URL": "https://me:p=w $(id) 'x'\n@mirror", "PATH": "/nowhere", "DOCKER_HOST": "tcp://nowhere"}
    done = build(spark, f"FROM {VLLM}\n", **args)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "docker/arguments").read_text()) == args
    assert "mirror" not in "".join(spark.calls())


def test_the_same_image_holds_the_same_in_every_store_whatever_its_id(tmp_path):
    one, other = (Spark(tmp_path / store, store) for store in ("overlay2", "containerd"))
    first, second = answer(one.look()), answer(other.look())
    assert first["image"] != second["image"]
    assert first["base_content"] == second["base_content"]
    assert answer(Spark(tmp_path / "newer", has=["x"]).look())["base_content"] == first["base_content"]
    spark = Spark(tmp_path / "different")
    file = tmp_path / "different/docker/images" / spark.base[7:]
    file.write_text(file.read_text().replace("l1", "l2"))
    assert answer(spark.look())["base_content"] != first["base_content"]


class Copy:
    """Two Sparks; the other one's ssh leads to the head's `docker save`."""

    def __init__(self, path, stores):
        self.head, self.other = (Spark(path / name, store) for name, store in zip("ab", stores, strict=True))
        # An image of its own beside the head's, and not the head's.
        file = self.other.path / "docker/images" / self.other.base[7:]
        file.write_text(file.read_text().replace("l1", "old"))
        self.ssh(f"exec {self.head.path}/bin/docker save {self.head.base}")

    def ssh(self, command):
        program = self.other.path / "bin/ssh"
        program.write_text(f"#!/bin/sh\n{command}\n")
        program.chmod(0o755)

    def __call__(self):
        source = {"address": "head", "user": "u", "port": 22, "host_key": "ssh-ed25519 AAAA", "own": "o"}
        found = answer(self.head.look())
        given = {"image": self.head.base, "content": found["content"], "layers": found["layers"], "name": VLLM}
        given["source"] = source
        return self.other.run("image_copy.py", "apply", **given, record=record("image-copy"))


@pytest.mark.parametrize("stores", [("overlay2",) * 2, ("overlay2", "containerd"), ("containerd", "overlay2")])
def test_an_image_is_copied_once_and_run_by_its_id_here(tmp_path, stores):
    copy = Copy(tmp_path, stores)
    done = copy()
    assert done.returncode == 0, done.stderr
    image = done.stdout.strip()
    assert (image == copy.head.base) == (stores[0] == stores[1])
    assert copy.other.images()[image.removeprefix("sha256:")] == [VLLM]
    # It is there now, by whatever id.
    assert copy().stdout.strip() == image
    assert len([call for call in copy.other.calls() if call.startswith("load")]) == 1


def test_another_image_than_the_heads_is_not_taken(tmp_path):
    copy = Copy(tmp_path, ("overlay2",) * 2)
    copy.ssh("""echo '{"names": [], "layers": ["wrong"], "has": []}'""")
    assert "another image than" in copy().stderr


def test_a_full_disk_ends_the_copy_with_dockers_words(tmp_path):
    copy = Copy(tmp_path, ("overlay2",) * 2)
    (copy.other.path / "docker/full").touch()
    # The sender has more to say than fits a pipe.
    copy.ssh("exec yes")
    done = copy()
    assert done.returncode == 1
    assert "no space left on device" in done.stderr
