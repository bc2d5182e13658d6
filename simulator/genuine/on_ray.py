"""The same image for a server on Ray, which PyPI's build for processors refuses: its platform names nothing that Ray
could count ("current platform cpu does not support ray", 0.32).

One line more in vLLM gives it the name that GPUs have. Ray itself is not in it: the program adds that, as to any image
that lacks it.
"""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from simulator import cache, images
from simulator.genuine.image import IMAGE as PLAIN
from simulator.shell import SimulatorError

IMAGE = f"{PLAIN}-ray"
PLATFORM = f"{images.PYTHON_PACKAGES}/vllm/platforms/cpu.py"
CLASS = "class CpuPlatform(Platform):\n"
LINE = '    ray_device_key = "GPU"\n'


def added(built: images.Built) -> images.Built:
    """To images of which the genuine one is one."""
    genuine = built.layers["genuine"]
    key = hashlib.sha256(genuine.name.encode() + Path(__file__).read_bytes()).hexdigest()[:12]
    layer = cache.kept(f"layer-on-ray-{key}.tar", partial(images.write_layer, partial(_platform, genuine)))
    image = images.Image(IMAGE, ("base", "genuine", "on-ray"))
    return replace(built, layers={**built.layers, "on-ray": layer}, images=(*built.images, image))


def _platform(genuine: Path, root: Path) -> None:
    with tarfile.open(genuine) as tar:
        member = tar.extractfile(f"./{PLATFORM}")
        assert member is not None
        text = member.read().decode()
    if text.count(CLASS) != 1:
        raise SimulatorError(f"vLLM has no {CLASS.strip()} any more: {PLATFORM}")
    target = root / PLATFORM
    target.parent.mkdir(parents=True)
    target.write_text(text.replace(CLASS, CLASS + LINE))
