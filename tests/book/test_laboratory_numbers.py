"""The laboratory's JavaScript computes the Python's numbers: every line of the subject, whole walks, the network, all run in Node."""

import json
import re
import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

LAB = Path(__file__).parents[2] / "book" / "lab"
HERE = Path(__file__).parent
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="there is no Node here; install it (apt-get install nodejs) to compare the laboratory with the Python")

# What is compared, and how closely.  In float64 both sides do the same sums, so what is left is rounding: of the sums themselves, and of pow, cos and log,
# which differ in their last digit from one machine to the next.  A walk makes its first errors 1/√ᾱ_T times as large.  The network computes in float32.
TOLERANCES = {"schedules": 1e-12, "times": 0, "steps": 1e-9, "exact": 1e-9, "walks on the ring": 1e-9, "network": 1e-4, "network: guided walk": 1e-3}


def tolerance(comparison: str) -> float:
    return TOLERANCES[max((key for key in TOLERANCES if comparison.startswith(key)), key=len)]


@pytest.fixture(scope="module")
def fixtures():
    """book/lab/fixtures.py, the one command that writes what the page and this test get from the Python."""
    spec = spec_from_file_location("fixtures", LAB / "fixtures.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def numbers(fixtures, tmp_path_factory):
    """The Python's numbers, written now: stored ones would grow old."""
    path = tmp_path_factory.mktemp("laboratory") / "numbers.json"
    fixtures.main(str(path))
    return path


def compared(lab: Path, numbers: Path) -> dict[str, float]:
    """For each comparison the largest |JavaScript - Python| / max(1, |Python|), as Node finds it."""
    done = subprocess.run([NODE, HERE / "laboratory.js", lab, numbers], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def differences(numbers):
    return compared(LAB, numbers)


@needs_node
@pytest.mark.parametrize("room", ["schedules", "times", "steps", "exact", "walks on the ring", "network"])
def test_javascript_and_python_are_one_mathematics(differences, room):
    """The page says "the same numbers as the package"; here is by how much they differ, room by room."""
    found = {what: off for what, off in differences.items() if what.startswith(room)}
    assert len(found) >= {"schedules": 15, "times": 2, "steps": 15, "exact": 4, "walks on the ring": 6, "network": 5}[room]
    too_far = {what: off for what, off in found.items() if off is None or off > tolerance(what)}       # JSON has no infinity: it comes as null
    assert not too_far, f"{too_far} where at most {[tolerance(what) for what in too_far]} is allowed"


@needs_node
def test_a_wrong_sign_would_be_noticed(numbers, tmp_path):
    """The comparison can fail: with one sign changed in DDIM's step, that step is off, and so are the walks that use it; what does not use it is not."""
    for file in LAB.glob("*.js"):
        shutil.copy(file, tmp_path)
    text = (tmp_path / "samplers.js").read_text(encoding="utf-8")
    assert text.count("kept * eps[i] + sigma") == 1
    (tmp_path / "samplers.js").write_text(text.replace("kept * eps[i] + sigma", "kept * eps[i] - sigma"), encoding="utf-8")
    off = compared(tmp_path, numbers)
    assert off["steps: ddim_step 0.3"] > 1e-3 and off["walks on the ring: ddim 0.5"] > 1e-3
    assert off["steps: ddim_step 0"] <= 1e-9 and off["walks on the ring: 2m"] <= 1e-9


@needs_node
def test_every_bug_of_the_clinic_fails_its_invariant_and_the_healthy_part_holds_it():
    """A clinic whose invariant failed for the healthy, or held for the sick, would teach the opposite.  Its names are the exercise's, word for word."""
    rooms = "".join(f"require({json.dumps(str(LAB / f'{name}.js'))});" for name in
                    ("room", "schedules", "forward", "samplers", "guidance", "exact", "clinic"))
    script = rooms + "console.log(JSON.stringify(lab.PATIENTS.map(p => ({name: p.name, test: p.test, found: lab.invariant(p)}))))"
    patients = json.loads(subprocess.run([NODE, "-e", script], capture_output=True, text=True, timeout=60, check=True).stdout)
    exercise = json.loads((LAB.parents[1] / "exercises/source/07_bug_clinic/07_bug_clinic.ipynb").read_text(encoding="utf-8"))
    register = next(source for cell in exercise["cells"] if "REGISTER = {" in (source := "".join(cell["source"]))).replace("-", "−")
    assert len(patients) == 13
    for patient in patients:
        healthy, sick = patient["found"]
        assert healthy["holds"] and not sick["holds"], patient
        assert f'"{patient["name"]}"'.replace("-", "−") in register and patient["test"] in register, f"{patient['name']} is not as in the exercise's register"


def test_what_the_page_carries_is_what_the_package_ships(fixtures):
    """The weights and the digits of the page were written by fixtures.py from the package; after a new training, run it again."""
    for name, write in fixtures.FILES.items():
        assert (LAB / name).read_text(encoding="utf-8") == write(), f"{name} is out of date: run  python book/lab/fixtures.py"


def test_the_laboratory_is_small_and_asks_for_nothing_from_outside():
    """At most 3 MB, so that it opens on a phone; no address but those of papers in comments, no cookie, no storage, no request."""
    files = [file for file in LAB.iterdir() if file.suffix in (".html", ".css", ".js")]
    assert sum(file.stat().st_size for file in files) <= 3e6
    for file in files:
        text = file.read_text(encoding="utf-8")
        for forbidden in (r"https?://", r"\bfetch\(", r"XMLHttpRequest", r"WebSocket", r"sendBeacon", r"document\.cookie", r"localStorage", r"sessionStorage",
                          r"indexedDB", r"@import"):
            assert not re.search(forbidden, text), f"{file.name}: {forbidden}"
    page = (LAB / "index.html").read_text(encoding="utf-8")
    for address in re.findall(r'(?:src|href)="([^"#][^"]*)"', page):
        assert address.startswith("data:") or (LAB / address).is_file(), address
    for notebook in re.findall(r'data-notebook="([^"]+)"', page):
        assert (LAB.parents[1] / "notebooks" / f"{notebook}.ipynb").is_file(), notebook
