"""docs/architecture.md: what it names is there, and its recipe for a new engine, followed on a copy of the program."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

TOY = '''"""A toy engine: one server on the head."""

from components.plan.engines import EnginePlan
from components.plan.engines.common import ContainerMaker, rank_environments
from components.plan.values import Image

IMAGE, PORT = "example/toy:1", 9999


def plan(context):
    environments = rank_environments(context)
    make = ContainerMaker(context, environments, IMAGE)
    rank = make.rank(context.settings.head.name, ("toy", "serve"), ports=(context.port,))
    return EnginePlan(image=Image(make.image), ray=None, ranks=(rank,), environment=environments)


def api_key_file(key):
    return key
'''

ASKED = """
from tests.unit.build import plan, settings, facts
made = plan(settings(1, engine="toy"), {"spark-1": facts(1)})
print(made.ranks[0].command, made.readiness.port, made.image.name)
"""


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name} no longer has {old!r}: correct the recipe"
    path.write_text(text.replace(old, new))


def test_a_new_engine_needs_what_the_recipe_says_and_no_more(tmp_path):
    for part in ("components", "tests/unit/build.py", "tests/__init__.py", "tests/unit/__init__.py"):
        target = tmp_path / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, target)
    plans = tmp_path / "components" / "plan"
    (plans / "engines" / "toy.py").write_text(TOY)
    edit(plans / "engines" / "registry.py", "import sglang, trtllm, vllm", "import sglang, toy, trtllm, vllm")
    edit(plans / "engines" / "registry.py", '"trtllm": trtllm}', '"trtllm": trtllm, "toy": toy}')
    edit(tmp_path / "components" / "settings" / "stack.py", '"sglang", "trtllm"]', '"sglang", "trtllm", "toy"]')
    catalog = tmp_path / "components" / "catalog" / "__init__.py"
    edit(catalog, "    trtllm: Served = Served()\n", "    trtllm: Served = Served()\n    toy: Served = Served()\n")
    edit(plans / "fit.py", '"trtllm": 0.9}', '"trtllm": 0.9, "toy": 0.9}')
    done = subprocess.run([sys.executable, "-c", ASKED], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "('toy', 'serve') 9999 example/toy:1\n", done.stderr


GUIDE = (ROOT / "docs" / "architecture.md").read_text().partition("### To change X, open Y")[2].partition("\n## ")[0]
RECIPES = [
    part for block in GUIDE.split("\n\n") for part in (block.splitlines() if block.startswith("| ") else [block])
]


def named(path: str) -> list[Path]:
    """What a recipe means by it, in components/ unless it says more."""
    places = [base / path.replace("NAME", "*") for base in (ROOT / "components", ROOT)]
    return [found for place in places for found in Path("/").glob(str(place).lstrip("/"))]


@pytest.mark.parametrize("recipe", [part for part in RECIPES if "`" in part])
def test_the_files_that_a_recipe_names_are_there_and_what_it_names_is_in_them(recipe):
    words = [word for word in re.findall(r"`([^`]+)`", recipe) if not word.startswith("./spark")]
    paths = {
        word for word in [*words, *re.findall(r"\b(?:tests|docs)/[\w/]+\.\w+", recipe)] if re.search(r"/|\.\w+$", word)
    }
    assert [path for path in sorted(paths) if not named(path)] == []
    files = [file for path in paths for file in named(path) if file.is_file()]
    text = "\n".join(file.read_text() for file in files)
    names = {word.partition("(")[0] for word in words if re.fullmatch(r"\w+(\(\w+\))?", word)}
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", text)] == []
