"""Make what students are given, from source/ by nbgrader.

    python exercises/release.py                                  all of release/ anew, for authors
    python exercises/release.py 01_noise_schedules               only this one
    python exercises/release.py --seed 42 --zip class.zip        a zip for one class: its constants follow from the seed; release/ stays as it is
"""

import argparse
import os
import re
import shutil
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from grader.seals import resealed

try:
    from nbgrader.apps.api import NbGraderAPI
    from traitlets.config import PyFileConfigLoader
except ModuleNotFoundError:
    sys.exit('nbgrader is not installed; it comes with the teacher\'s extra:  pip install -e ".[teach]"')

os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])       # nbgrader calls `alembic` by its bare name
HERE = Path(__file__).parent
NAMES = sorted(path.name for path in (HERE / "source").glob("[0-9]*"))


def source(name: str, seed: int = 0) -> nbformat.NotebookNode:
    """The source notebook of a class: only the first line of its parameters cell differs, and the seals of the answers."""
    notebook = nbformat.read(HERE / "source" / name / f"{name}.ipynb", as_version=4)
    cell = next(c for c in notebook.cells if c.id == "parameters")
    cell.source, found = re.subn(r"\ACLASS_SEED = 0$", f"CLASS_SEED = {seed}", cell.source, flags=re.MULTILINE)
    if not found:
        raise ValueError(f"{name}: the parameters cell does not begin with the line  CLASS_SEED = 0")
    for cell, text in zip(notebook.cells, resealed([cell.source for cell in notebook.cells], seed)):
        cell.source = text
    return notebook


@contextmanager
def course(names: list[str], seed: int = 0, keep: Path | None = None) -> Iterator[tuple[NbGraderAPI, Path]]:
    """A course of these exercises, with release/ generated and a gradebook that knows their cells: in a temporary folder, or in one that is kept."""
    with TemporaryDirectory(prefix="exercises-") as folder:
        root = (keep or Path(folder)).resolve()
        config = PyFileConfigLoader("nbgrader_config.py", path=str(HERE)).load_config()
        config.CourseDirectory.root, config.NbGraderAPI.log_level = str(root), "WARN"
        api = NbGraderAPI(config=config)
        for name in names:
            path = root / "source" / name / f"{name}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(source(name, seed), path)
            result = api.generate_assignment(name, force=True)
            if not result["success"]:
                raise RuntimeError(f"{name}: nbgrader made no release of it\n{result.get('log', '')}{result.get('error', '')}")
        if keep:                                                # so that  nbgrader formgrader  runs there
            settings = f"import sys\n\nsys.path.insert(0, {str(HERE)!r})\nload_subconfig({str(HERE / 'nbgrader_config.py')!r})\n"
            (root / "nbgrader_config.py").write_text(settings, encoding="utf-8")
        yield api, root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[], metavar="exercise", help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="the class; needs --zip (default 0, the public one)")
    parser.add_argument("--zip", type=Path, help="write the release into this file, and not to release/")
    arguments = parser.parse_args()
    if strange := sorted(set(arguments.names) - set(NAMES)):
        parser.error(f"unknown exercise {', '.join(strange)}; there are {', '.join(NAMES)}")
    if arguments.seed < 0 or (arguments.seed and not arguments.zip):
        parser.error("a seed is 0 or more, and another one than 0 needs --zip: the release/ of this repository is the public one")
    names = arguments.names or NAMES
    with course(names, arguments.seed) as (_, root):
        if arguments.zip:
            with zipfile.ZipFile(arguments.zip, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in names:
                    archive.write(root / "release" / name / f"{name}.ipynb", f"release/{name}/{name}.ipynb")
        else:
            for name in names:
                (HERE / "release" / name).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / "release" / name / f"{name}.ipynb", HERE / "release" / name / f"{name}.ipynb")
    print(f"{len(names)} exercise{'s' * (len(names) > 1)} → {arguments.zip or HERE / 'release'}")


if __name__ == "__main__":
    main()
