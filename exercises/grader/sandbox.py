"""Run a student's cells where nothing is in reach, and check them there.

    outcomes, remarks = run(cells, Limits())

`inside.py` is what runs there, in a temporary folder of its own; with bubblewrap, where it works, there is no network, and of the disk Python and the package.
Linux only: elsewhere, grade in the container (`Dockerfile`).
"""

import contextlib
import importlib.util
import marshal
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import symtable
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from IPython.core.inputtransformer2 import TransformerManager

INSIDE = Path(__file__).with_name("inside.py")
GIB = 2**30


class Limits(NamedTuple):
    cell: float = 60                                            # seconds
    notebook: float = 180                                       # seconds, from the first cell of the student's on
    memory: int = 2 * GIB                                       # bytes of address space, beyond what torch has taken when the first cell runs
    file: int = GIB // 16                                       # bytes
    processes: int = 64                                         # beyond those that the user has


class Cell(NamedTuple):
    name: str
    kind: str                                                   # "locked", "student", "check", or "tier": a check that reads what the one before has measured
    source: str
    mine: tuple[str, ...] = ()                                  # of a check: functions of the package that are for the student to write
    tiers: tuple["Cell", ...] = ()                              # of a check: those that read its numbers; they are checked with it


class Outcome(NamedTuple):
    failed: str                                                 # a sentence, or ""
    printed: str = ""


def plain_python(source: str) -> str:
    """A cell without IPython: magics and shell lines, in every form, become calls of a shell that does nothing; of %%time and its kin the cell is left."""
    source = re.sub(r"\A\s*%%(time|timeit|capture|prun)\b.*\n?", "", source)
    source = re.sub(r"(?m)^([ \t]*)%(?:time|timeit)[ \t]+(?!-)", r"\1", source)
    return TransformerManager().transform_cell(source)


def names_of(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell takes from outside, in functions that it defines, too; and those that it makes.

    By `symtable`: `ast.parse` keeps one count for all threads, and two notebooks at a time can end each other in a SystemError (Python 3.11).
    """
    whole = symtable.symtable(source, "cell", "exec")
    taken, tables = set(), [whole]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        taken |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (table is whole or s.is_global())}
    return taken, {s.get_name() for s in whole.get_symbols() if s.is_assigned() or s.is_imported()}


def asked(check: str, *tiers: str) -> list[str]:
    """The names that a check takes from outside.  What it hands on to its tiers is its own: a student's variable of that name is not asked for."""
    taken, made = names_of(check)
    by_tiers = set().union(*(names_of(tier)[0] for tier in tiers))
    return sorted((taken | by_tiers) - (made & by_tiers))


@cache
def package() -> Path:
    return Path(importlib.util.find_spec("ddpm_tutorial").submodule_search_locations[0]).resolve()


@cache
def libraries() -> tuple[str, ...]:
    """The folders that Python itself is in."""
    here = {sys.prefix, sys.base_prefix, *(p for p in sys.path if p.endswith(("site-packages", "dist-packages")))}
    here |= {os.path.realpath(folder) for folder in here}
    return tuple(sorted(here - {"/usr", "/"}))


def wrapped(home: str) -> list[str]:
    """bubblewrap's command line: a file system with Python, the package and this one folder, and no network."""
    command = [shutil.which("bwrap"), "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for folder in ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/fonts", "/sys/devices/system/cpu"):
        command += ["--ro-bind-try", folder, folder]
    for folder in (*libraries(), str(package()), str(INSIDE)):
        command += ["--ro-bind", folder, folder]
    return [*command, "--bind", home, home, "--chdir", home]


@cache
def bubblewrap() -> str:
    """"" where bubblewrap works, or why not."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (Debian, Ubuntu: apt install bubblewrap)"
    with tempfile.TemporaryDirectory(prefix="student-") as home:
        tried = subprocess.run([*wrapped(home), sys.executable, "-I", "-c", "pass"], capture_output=True, text=True)
    said = tried.stderr.strip().splitlines() or [str(tried.returncode)]
    return "" if tried.returncode == 0 else f"bubblewrap does not work here ({said[-1]})"


@cache
def fonts() -> tuple[Path, ...]:
    """What matplotlib knows of fonts.  Without it every notebook would look through the disk for seconds."""
    import matplotlib.font_manager
    return tuple(Path(matplotlib.get_cachedir()).glob("fontlist-*.json"))


def threads_of_mine() -> int:
    """How many threads this user has: the limit on processes is one on their sum."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if re.search(rf"(?m)^Uid:\s+{os.getuid()}\b", text):
            total += int(re.search(r"(?m)^Threads:\s+(\d+)", text)[1])
    return total


class Session:
    """A notebook in the sandbox, its locked cells run."""

    def __init__(self, locked: list[Cell], limits: Limits):
        self.limits, self.remarks, self.tiers, self.caught, self.rest = limits, [], dict[str, Outcome](), "", b""
        self.home = tempfile.TemporaryDirectory(prefix="student-", ignore_cleanup_errors=True)
        home = os.path.realpath(self.home.name)
        for file in fonts():
            shutil.copy(file, home)
        environment = {"HOME": home, "TMPDIR": home, "MPLBACKEND": "Agg", "MPLCONFIGDIR": home, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
                       "LANG": "C.UTF-8", "CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"}
        command = [] if bubblewrap() else wrapped(home)
        self.process = subprocess.Popen([*command, sys.executable, "-I", str(INSIDE)], cwd=home, env=environment, start_new_session=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(trouble := tempfile.TemporaryFile()))
        word = secrets.token_hex(8)
        self.send(word=word, home=home, root=str(package().parent), readable=[*libraries(), str(package())],
                  locked=[(c.name, plain_python(c.source)) for c in locked], notebook_seconds=limits.notebook,
                  memory=limits.memory, file=limits.file, processes=threads_of_mine() + limits.processes)
        said = dict(self.lines(word, "ready", 300))
        if "ready" not in said:
            trouble.seek(0)
            raise RuntimeError("the sandbox did not start: " + said.get("broken", trouble.read().decode("utf-8", "replace")[-2000:]))
        self.until = time.monotonic() + limits.notebook

    def send(self, **message) -> None:
        data = marshal.dumps({k: v.encode() if k == "word" else v for k, v in message.items()})
        try:
            self.process.stdin.write(len(data).to_bytes(8, "big") + data)
            self.process.stdin.flush()
        except BrokenPipeError:                                 # it has ended; `lines` will see it
            pass

    def lines(self, word: str, last: str, seconds: float) -> Iterator[tuple[str, str]]:
        """What is said under this word, which nobody else knows; until it is over, the time is, or the session is."""
        until = time.monotonic() + seconds
        while True:
            while b"\n" in self.rest:
                line, self.rest = self.rest.split(b"\n", 1)
                said, _, more = line.decode("ascii", "replace").partition(" ")
                if said == word:
                    kind, _, text = more.partition(" ")
                    yield kind, bytes.fromhex(text).decode("utf-8", "replace")
                    if kind == last:
                        return
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                return
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data or len(self.rest) > 10**6:
                return
            self.rest += data

    def does(self, cell: Cell) -> Outcome:
        """What becomes of a cell of the student's, or of a check.  A tier was checked with the check before it."""
        if cell.kind == "tier":
            return self.tiers.pop(cell.name, Outcome("nothing was measured: the check before it is missing"))
        sources, word = [plain_python(c.source) for c in (cell, *cell.tiers)], secrets.token_hex(16)
        self.send(word=word, kind=cell.kind, name=cell.name, source=sources[0], parts=sources, seconds=self.limits.cell, mine=list(cell.mine),
                  asked=asked(*sources) if cell.kind == "check" else [])
        heard: list[list[tuple[str, str]]] = [[]]               # of each part
        for kind, text in self.lines(word, "end", self.until + 10 - time.monotonic()):
            heard[-1].append((kind, text))
            if kind == "next":
                heard.append([])
        ended = bool(heard[-1]) and heard[-1][-1][0] == "end"
        if cell.kind == "student":
            said = dict(heard[0])
            if "found" in said:
                self.remarks.append(f"{cell.name} replaced {said['found']}; it was put back")
            return Outcome(said.get("says", ""), said.get("printed", "")) if ended else self.over()
        heard += [[]] * (len(sources) - len(heard))             # of a tier whose check ran too long nothing was heard
        first, *rest = map(self.verdict, heard)
        if not ended:
            first, rest = self.over(), [self.over()] * len(rest)
        rest = [first if first.failed and (not of or outcome.failed.startswith("NameError")) else outcome       # nothing was measured
                for of, outcome in zip(heard[1:], rest)]
        self.tiers |= {tier.name: outcome for tier, outcome in zip(cell.tiers, rest)}
        return first

    def over(self) -> Outcome:
        over = time.monotonic() >= self.until
        return Outcome(f"the {self.limits.notebook:g} seconds for the whole notebook were over" if over else "everything had been ended by an earlier cell")

    def verdict(self, heard: list[tuple[str, str]]) -> Outcome:
        said = dict(heard)
        if "canary" in said:
            self.caught = self.caught or said["canary"]
            return Outcome(f"the check was switched off: `{said['canary']}` went through")
        verdicts = [kind for kind, _ in heard if kind in ("passed", "failed")]
        return Outcome("" if verdicts == ["passed"] else said.get("failed") or said.get("says") or "it ended the program while it was checked")

    def go_back(self) -> None:
        """Forget the last cell of the student's."""
        self.send(word="", kind="back")

    def __enter__(self): return self

    def __exit__(self, *error) -> None:
        with contextlib.suppress(BrokenPipeError):              # it has ended, with something in the pipe
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process.stdout.close()
        self.home.cleanup()


def run(cells: list[Cell], limits: Limits) -> tuple[dict[str, Outcome], list[str]]:
    """What became of every cell of the student's and of every check, by name; and remarks."""
    with Session([c for c in cells if c.kind == "locked"], limits) as session:
        outcomes = {cell.name: session.does(cell) for cell in cells if cell.kind != "locked"}
    if not session.caught:
        return outcomes, session.remarks
    lost = {c.name: outcomes[c.name]._replace(failed=outcomes[c.name].failed or "other checks were switched off") for c in cells if c.kind in ("check", "tier")}
    return outcomes | lost, [f"no points, since its code switches checks off: `{session.caught}`, which must fail, went through", *session.remarks]
