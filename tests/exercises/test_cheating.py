"""Points are for answers: what cheating gets, what honest answers keep, and what a student's code can reach."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import pytest
from cheats import CHEATS, WRONG
from runner import NAMES, ROOT, SOURCE, answers

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="students' code is run in Linux processes")]
pytest.importorskip("nbgrader", reason='nbgrader is the teacher\'s extra: pip install -e ".[teach]"')
sys.path.insert(0, str(ROOT / "exercises"))

from grader.notebook import cells_of, trusted_of  # noqa: E402
from grader.sandbox import Cell, Limits, Session, bubblewrap, run, wrapped  # noqa: E402

FIRST = NAMES[0]
PLAIN = """
assert close(alpha_bar_from(torch.tensor([0.1, 0.3, 0.5], dtype=torch.float64)), [1, 0.9, 0.63, 0.315])
"""


def cells(name):
    ours = nbformat.read(SOURCE / name / f"{name}.ipynb", as_version=4)
    return {cell.name: cell for cell in cells_of(ours, *trusted_of(ours))}


def session_of(name):
    return Session([cell for cell in cells(name).values() if cell.kind == "locked"], Limits(cell=60, notebook=1800))


@pytest.fixture(scope="module")
def first():
    with session_of(FIRST) as session:
        yield session


@pytest.mark.parametrize("what", CHEATS)
def test_no_cheat_gets_a_point_and_the_right_answer_beside_it_keeps_its_own(first, what):
    """Against the check as it is, and against the shortest one that could be written, which a single patched function would satisfy."""
    ours = cells(FIRST)
    code = CHEATS[what] if CHEATS[what].startswith("%%") else WRONG + CHEATS[what]
    ended = "the program ends well at once" == what
    first.caught, first.remarks = "", []
    assert ended == ("ended the program" in first.does(Cell("alpha_bar", "student", code)).failed)
    assert first.does(ours["check_alpha_bar"]).failed
    assert first.does(Cell("plain", "check", PLAIN)).failed
    first.does(Cell("its own torch", "student", "import torch"))
    first.does(ours["linear"])
    kept = first.does(ours["check_linear"]).failed
    for _ in range(3 - ended):
        first.go_back()
    assert not kept or what in ("names in front of the builtins", "torch's == says yes", "a file with the name of a module"), kept


def test_most_cheats_work_where_nobody_looks(tmp_path):
    """The control: the same code and the shortest check in one namespace, as a notebook's kernel has them.  Otherwise the test above could not fail."""
    script = tmp_path / "bare.py"
    setup = "\n".join(cell.source.replace("%matplotlib inline", "") for cell in cells(FIRST).values() if cell.kind == "locked")
    script.write_text(textwrap.dedent("""
        import json, os, sys
        from IPython.core.interactiveshell import InteractiveShell
        setup, plain, cheats = json.load(open(sys.argv[1]))
        shell = InteractiveShell.instance()
        shell.run_cell(setup)
        for what, code in cheats.items():
            if (pid := os.fork()) == 0:
                os.chdir(os.path.dirname(sys.argv[1]))
                shell.run_cell(code)
                os._exit(0 if shell.run_cell(plain).success else 1)
            print("GOT", what, flush=True) if os.waitpid(pid, 0)[1] == 0 else None
    """), encoding="utf-8")
    left_out = ("child", "signal", "collector", "machine code", "network", "shell", "magic", "thread", "program", "classmate")     # they would do harm
    tried = {what: WRONG + code for what, code in CHEATS.items() if not any(word in what for word in left_out)}
    (tmp_path / "cheats.json").write_text(json.dumps([setup, PLAIN, tried]), encoding="utf-8")
    done = subprocess.run([sys.executable, script, tmp_path / "cheats.json"], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    got = [line for line in done.stdout.splitlines() if line.startswith("GOT")]
    assert len(got) >= 15, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_every_right_answer_keeps_its_points_in_the_sandbox(name):
    """The reference in all cells, then each right answer of the catalogue in its place: what protects the checks costs nobody anything."""
    ours = cells(name)
    following = dict(zip(ours, list(ours)[1:]))
    with session_of(name) as session:
        for cell in ours.values():
            if cell.kind != "locked":
                assert session.does(cell).failed == "" or cell.name.endswith("_gold"), cell.name
        for where, codes in answers(name)["RIGHT"].items():
            for code in codes:
                assert session.does(Cell(where, "student", code)).failed == "", code
                assert session.does(ours[following[where]]).failed == "", code
                session.go_back()
        assert not session.caught


@pytest.mark.parametrize("name, where, code, says", [
    ("02_sampling_steps", "times", """
from ddpm_tutorial import timesteps as mine
def even_times(T, S): return list(map(mine, [T], [S]))[0]
""", "`timesteps` is what you are to write"),
    ("02_sampling_steps", "best_walk", """
my_times = timesteps(1000, CALLS)
def my_step():
    known, ends = digits.denoiser((torch.arange(24) + 5) % 10), []
    def step(schedule, x_t, eps, t, s):
        if t == 1000: ends.append(final(sample(known, schedule, x_t, dpm_solver_2m(), steps=60)))
        return ends[0]
    return step
""", "the first tier begins"),
    ("04_unet_blocks", "my_block", """
class Home(nn.Module):
    def __init__(self, width, emb):
        super().__init__()
        self.home = [Block(width, width, emb, False, UNetConfig(base=24, groups=4))]
        nn.init.normal_(self.home[0].conv2.weight)
    def forward(self, h, e): return self.home[0](h, e)
my_block = Home
""", "numbers that are no parameters"),
    ("02_sampling_steps", "best_walk", """
my_times = timesteps(1000, CALLS)
def my_step():
    def other(times, step, *begun): return torch.ones(24) / (1 if step.__name__ == "ddim_step" else 10)
    off.__code__ = other.__code__
    return ddim_step
""", "__code__ of what a check relies on"),
    ("02_sampling_steps", "best_walk", """
my_times = timesteps(1000, CALLS)
def my_step():
    seen = []
    torch.nn.modules.module.register_module_forward_pre_hook(lambda module, given: seen.append((module, given)))
    return ddim_step
""", "a hook of torch"),
    ("04_unet_blocks", "my_block", """
class Plain(nn.Conv2d):
    def forward(self, h, e): return h + super().forward(h)
def my_block(width, emb):
    Small.forward = lambda self, x_t, t: held_eps if len(x_t) == 400 else self.last(self.first(x_t))
    return Plain(width, width, 1)
""", "it replaces forward"),
    ("04_unet_blocks", "my_block", """
class Plain(nn.Conv2d):
    def forward(self, h, e): return h + super().forward(h)
def other(self, x_t, t): return held_eps + 0 * self.last(self.first(x_t)) if len(x_t) == 400 else self.last(self.first(x_t))
Small.forward.__code__ = other.__code__
def my_block(width, emb): return Plain(width, width, 1)
""", "the first tier begins"),
    ("04_unet_blocks", "my_block", """
class Plain(nn.Conv2d):
    def forward(self, h, e): return h + super().forward(h)
def other(self, x_t, t): return held_eps + 0 * self.last(self.first(x_t)) if len(x_t) == 400 else self.last(self.first(x_t))
def my_block(width, emb):
    Small.forward.__code__ = other.__code__
    return Plain(width, width, 1)
""", "__code__ of what a check relies on"),
    ("05_training_loss", "drop", """
from ddpm_tutorial import drop_labels
def dropped(y, u, p, null): return drop_labels(y, u < p, null)
""", "`drop_labels` is what you are to write"),
    ("06_classifier_free_guidance", "my_guidance", """
from torch.overrides import TorchFunctionMode
class Look(TorchFunctionMode):
    seen = []
    def __torch_function__(self, function, types, given=(), more=None):
        Look.seen.append((function, given))
        return function(*given, **(more or {}))
def my_guidance(cond, uncond, weak):
    def bent(x_t, t):
        with Look(): return cond(x_t, t)
    return within(classifier_free(cond, uncond, 2.0), bent, 450, 1000)
""", "it looks on at the check's own work"),
    ("07_bug_clinic", "diagnosis_1", """
diagnosis_1 = {}
for letter, patient in ward_1.items():
    for name in REGISTER:
        if seal_of(patient.__name__, name) == SEALS_1[patient.__name__]:
            diagnosis_1[letter] = name
""", "there is no diagnosis"),
    ("07_bug_clinic", "diagnosis_1", """
diagnosis_1 = dict.fromkeys(ward_1, "noise in the last step")
opinion.__kwdefaults__ = opinion.__defaults__ = None
ward_1.clear(); REGISTER.clear()
for patient in (hazel, larch): patient.__name__ = "yew"
""", "you are not told which"),
    ("06_classifier_free_guidance", "my_guidance", """
def my_guidance(cond, uncond, weak):
    return dict(zip(cond.__code__.co_freevars, cond.__closure__))["answers"].cell_contents.gi_frame.f_locals["eps"]
""", "gi_frame is out of reach"),
    ("08_flow_matching", "my_walk", """
def my_walk(velocity, x):
    exact = dict(zip(velocity.__code__.co_freevars, velocity.__closure__))["asked"].cell_contents.gi_frame.f_locals["exact"]
    return walk(exact, x, [1 - i / 400 for i in range(401)], euler)
""", "gi_frame is out of reach"),
])
def test_an_answer_that_somebody_else_gives_is_none(name, where, code, says):
    """The package's own function, where writing it is the task; the seals, hashed one after the other while it is graded; the register emptied;
    an oracle asked behind its counter; the network, asked in the middle of a step; a block that is kept in a list."""
    ours = cells(name)
    check = dict(zip(ours, list(ours)[1:]))[where]
    with session_of(name) as session:
        session.does(Cell(where, "student", code))
        assert says in session.does(ours[check]).failed


def test_a_measured_number_is_the_checks_own():
    """The tiers read what their check has measured, and nothing that a student calls by the same name; without the check, nothing has been measured."""
    ours = cells("08_flow_matching")
    tiers = "check_my_walk_silver", "check_my_walk_gold"
    with session_of("08_flow_matching") as session:
        session.does(Cell("my_walk", "student", "score = elsewhere = 0.0\ndef my_walk(velocity, x): raise ValueError('not a walk')"))
        assert "nothing was measured" in session.does(ours[tiers[0]]).failed
        assert ["not a walk" in session.does(ours[check]).failed for check in ("check_my_walk", *tiers)] == [True] * 3
        session.does(Cell("my_walk", "student", answers("08_flow_matching")["BEST"]["my_walk"]))
        assert [session.does(ours[check]).failed for check in ("check_my_walk", *tiers)] == [""] * 3
        session.limits = session.limits._replace(cell=1)
        session.does(Cell("my_walk", "student", "def my_walk(velocity, x):\n    while True: pass"))
        said = [session.does(ours[check]).failed for check in ("check_my_walk", *tiers)]
        assert "ran too long" in said[0] and said == said[:1] * 3, "all three say that it took too long"


def test_what_a_check_measures_with_cannot_be_written_into():
    """The networks and tables of the locked cells that a student sees are copies: here all of them are emptied, and a right answer stays right."""
    ours = cells("06_classifier_free_guidance")
    emptied = """
for net in (hill_net, hill_net_60):
    for p in net.parameters(): p.data.zero_()
hill_schedule.alpha_bar.zero_(); hill_x_T.zero_(); hill_real.zero_()
"""
    with session_of("06_classifier_free_guidance") as session:
        assert session.does(Cell("my_guidance", "student", ours["my_guidance"].source + emptied)).failed == ""
        assert [session.does(ours[check]).failed for check in ("check_my_guidance", "check_my_guidance_silver")] == ["", ""]


def test_what_is_too_much_costs_its_own_cell_only():
    """Time, memory, disk and exit; a bare `except:` that catches everything, too.  The cells around keep their points, and nothing is left running."""
    ours = cells(FIRST)
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    too_much = {
        "endless": "while True:\n    try:\n        while True: pass\n    except: pass",
        "memory": "x = torch.ones(3 * 2**30 // 8, dtype=torch.float64)",
        "disk": "with open('large', 'wb') as file:\n    for _ in range(100): file.write(bytes(10**6))",
        "exit": "import os\nos._exit(1)",
        "child": f"""
import _posixsubprocess, inspect, os
r, w = os.pipe()
command = [b"/bin/sh", b"-c", b": {marker}; while :; do sleep 1; done"]
_posixsubprocess.fork_exec(command, [b"/bin/sh"], True, (w,), None, None, -1, -1, -1, -1, -1, -1, r, w,
                           True, True,
                           *([-1] if sys.version_info >= (3, 11) else []), None, None, None, -1, None, *([False] if sys.version_info >= (3, 11) else []))
print("started")
""".replace("import _posix", "import sys, _posix"),
    }
    outcomes, _ = run([*(c for c in ours.values() if c.kind == "locked"), *(Cell(name, "student", code) for name, code in too_much.items()),
                       ours["linear"], ours["check_linear"]], Limits(cell=3, notebook=60))
    assert outcomes["check_linear"].failed == ""
    for name, says in {"endless": "it ran too long", "memory": "memory", "disk": "", "exit": "ended the program"}.items():
        assert outcomes[name].failed and says in outcomes[name].failed, name
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if marker in path.read_text(errors="replace")]


def test_the_whole_notebook_has_its_time_too():
    ours = cells(FIRST)
    slow = [Cell(f"slow {i}", "student", "import time\ntime.sleep(2)") for i in range(5)]
    outcomes, _ = run([*(c for c in ours.values() if c.kind == "locked"), ours["linear"], ours["check_linear"], *slow], Limits(cell=60, notebook=5))
    assert outcomes["check_linear"].failed == "" and "seconds for the whole notebook" in outcomes["slow 4"].failed


def test_a_student_sees_an_empty_folder():
    with session_of(FIRST) as session:
        said = session.does(Cell("look", "student", "import os\nprint(os.listdir('.'), os.getcwd() == os.environ['HOME'], len(os.environ))"))
    assert said.printed.startswith("[] True"), said


@pytest.mark.skipif(bool(bubblewrap()), reason="bubblewrap is not here, or does not work in this container")
def test_with_bubblewrap_there_is_neither_a_network_nor_a_disk(tmp_path):
    """Not for Python's hook only, but for machine code, too."""
    (tmp_path / "secret").write_text("of the class")
    (tmp_path / "home").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        places = [str(tmp_path / "secret"), str(ROOT / "exercises" / "source"), str(ROOT / "tests")]
        look = f"import os, socket; print(*map(os.path.exists, {places}), socket.socket().connect_ex({server.getsockname()!r}) != 0)"
        done = subprocess.run([*wrapped(str(tmp_path / "home")), sys.executable, "-I", "-c", look], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False", "False", "True"], done
