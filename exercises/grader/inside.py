"""Inside the sandbox: run a student's cells and check them, in processes that a check can trust.  `sandbox.py` starts this file; nothing imports it.

    supervisor        imports torch and the package, runs the locked cells, notes what everything looks like; then only watches the clock, and ends what is left
      └ session       forks before every cell of the student.  The child runs the cell and is the session from then on; where it dies or takes too long,
          │           its parent goes on as if the cell had raised: an endless loop costs one cell
          └ check     forks before every check.  The child has none of the student's threads, puts everything back, and makes the check's names from the
                      locked cells and the answers it asks for, and from nothing else

In Python everything can be reached, so four rules keep student and check apart:

* **The main thread is the grader's, all others are the student's.**  An audit hook, which cannot be removed, refuses the others files, processes, the network,
  tracing, foreign frames and the collector's lists.  (Signals come to the main thread only, so the student cannot catch one either.)
* **The grader uses names and builtins of its own.**  What was done to `builtins` or to a module meets nobody.  And it destroys nothing that a student put
  somewhere: `__del__` would run in the main thread.
* **A check is watched.**  Whenever a function of the student's returns to it, all that looks at numbers must be what it was, the answer's type an honest one.
* **Canaries**, statements that must fail, stand between the statements of every check, in random places.
"""

import _thread
import ast
import builtins
import copy
import ctypes
import gc
import inspect
import io
import marshal
import operator
import os
import random
import resource
import select
import signal
import sys
import time
import types
import warnings

__builtins__ = dict(vars(builtins))                             # of this file's functions alone: what a student does to builtins meets none of them

OUT_OF_TIME, ENDED = "it ran too long and was stopped: is there an endless loop?", "it ended the program (exit(), or no memory left?)"
MOST_PRINTED, MOST_PROCESSES = 4000, 100
GONE_BACK = 75
DIE_WITH_PARENT, ADOPT_ORPHANS = 1, 36                          # prctl

# What a notebook has that a file has not.  Magics and shell lines do nothing.
NOTEBOOK = """
class Shell:
    def __getattr__(self, name): return lambda *given, **more: None

shell = Shell()
def get_ipython(): return shell
def display(*things, **more): print(*things)
"""
# The lowest frames of the student's thread, in a module of their own: who climbs down to them finds nothing of this file.
BOTTOM = """
def run(code, names, said, done):
    try: exec(code, names)
    except BaseException as error: said.append(error)
    done()

def check(watched, steps, names, scene, said, passing, done):
    try:
        watched(True)
        for canary, code in steps:
            if canary:
                try: exec(code, scene)
                except failure: continue
                passing.append(canary)
            else:
                exec(code, names)
    except BaseException as error: said.append(error)
    watched(False)
    done()
"""
CANARIES = """
assert False
assert 1 == 2
assert "a" in []
assert isinstance(0, str)
assert all([True, False]) or any([])
assert len([1, 2]) == 3
assert set("ab") == set("ac")
assert abs(-1.5) < 1 or max(1.0, 2.0) < 2
assert round(0.6) == 0 or sum([1, 2]) == 4
assert math.isclose(A, B)
assert torch.allclose(a, b)
assert torch.equal(a, b)
assert torch.isclose(a, b).all()
assert (a == b).any()
assert (a - b).abs().max() < 1e-6
assert a.tolist() == b.tolist()
assert float(a[0]) == float(b[0])
assert a.shape == (4,) or a.dtype == torch.float32
assert a.isnan().any() or not a.isfinite().all()
assert numpy.allclose(a, b)
numpy.testing.assert_allclose(a, b)
assert close(a, b)
assert close([A, B], [A, A])
"""

REFUSED = tuple("""socket. subprocess. os.system os.exec os.fork os.posix_spawn os.spawn os.startfile os.kill os.chdir os.fchdir os.chroot pty. syslog.
    signal.pthread_kill sys.settrace sys.setprofile sys.addaudithook sys.monitoring sys.remote_exec sys._current gc.get_ cpython.PyInterpreterState_New
    cpython.run_ code.__new__ ctypes.addressof ctypes.string_at ctypes.wstring_at ctypes.cdata ctypes.call_function ctypes.dlsym ctypes.PyObj
    resource. sqlite3. webbrowser.""".split())
READING = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.listxattr")
WRITING = tuple("""os.remove os.rename os.mkdir os.rmdir os.chmod os.chown os.link os.symlink os.truncate os.utime os.setxattr os.mkfifo os.mknod
    shutil.""".split())
CODE = ("__code__", "__defaults__", "__kwdefaults__")
INNER = ("__globals__", "__closure__", "tb_frame", "gi_frame", "cr_frame", "ag_frame")
OPERATORS = frozenset("""__eq__ __ne__ __lt__ __le__ __gt__ __ge__ __bool__ __len__ __iter__ __getitem__ __contains__ __float__ __int__ __index__ __array__
    __sub__ __rsub__ __abs__ __getattribute__ __torch_function__ __torch_dispatch__ __array_function__ __array_ufunc__ __array_interface__ __instancecheck__
    __subclasscheck__ __class__ all any shape dtype tolist item double float""".split())
PLAIN = frozenset("builtins torch numpy ddpm_tutorial collections _collections_abc fractions decimal numbers types functools itertools enum typing abc".split())


def prctl(option, value): ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def family(name): return str(name).partition(".")[0]


def copy_of(value, once):
    """The student's own: whoever writes into a tensor or trains a network of the locked cells meets no check.  Functions and classes are not copied."""
    try:
        return copy.deepcopy(value, once)
    except Exception:                                           # a module, an open figure, …
        return value


def classes_of(ours):
    """Those that the locked cells define."""
    return [c for c in ours.values() if isinstance(c, type) and c.__module__ == ours["__name__"]]


def hooks_of():
    """torch's tables of what is called with every module."""
    import torch.nn.modules.module as of_all
    return [table for name, table in vars(of_all).items() if name.startswith("_global_") and isinstance(table, dict)]


def foreign(frame):
    """The code of the nearest frame that is not a library's (libraries are files, cells are not)."""
    while frame is not None and frame.f_code.co_filename[:1] == "/":
        frame = frame.f_back
    return frame.f_code.co_filename if frame else ""


def memory_of(ours):
    """→ restore(): put back whatever a check relies on, and say what was not as it is now; the classes whose operators can be trusted;
    and the functions whose code a check relies on, by their ids."""
    modules = {name: module for name, module in sys.modules.items() if isinstance(module, types.ModuleType) and name != "__main__"}
    def fixed(table): return {k: v for k, v in table.items() if callable(v) or isinstance(v, types.ModuleType)}

    tables = [(name, vars(module), fixed(vars(module))) for name, module in modules.items()]
    every = {id(c): c for _, _, table in tables for c in table.values() if isinstance(c, type)}
    trusted = {i for i, c in every.items() if family(c.__module__) in PLAIN} | {id(c) for c in vars(types).values() if isinstance(c, type)}
    ours_too = ("torch", "numpy", "ddpm_tutorial", "unittest")
    heap, immutable = 1 << 9, 1 << 8
    open_classes = [c for c in every.values() if family(c.__module__) in ours_too and c.__flags__ & heap and not c.__flags__ & immutable]
    open_classes += classes_of(ours)
    classes = [(c, {k: v for k, v in vars(c).items() if callable(v) or isinstance(v, (property, classmethod, staticmethod))}) for c in open_classes]
    near = ("ddpm_tutorial", "torch.testing", "torch.functional", "torch.nn.functional", "numpy.testing")
    inner = [v for name, _, table in tables if name.startswith(near) for v in table.values()] + list(ours.values())
    inner += [v for c, table in classes if str(c.__module__).startswith(near) for v in table.values()]
    inner += [getattr(v, "__func__", getattr(v, "fget", v)) for c in classes_of(ours) for v in vars(c).values()]
    inner = {id(f): f for f in (inspect.unwrap(v) for v in inner if isinstance(v, types.FunctionType))}.values()
    functions = [(f, f.__code__, f.__defaults__, f.__kwdefaults__, f.__name__) for f in inner]
    hooks = hooks_of()
    lists = [(a, list(a)) for a in (sys.meta_path, sys.path, sys.path_hooks, gc.callbacks)]
    loaded, originals, built_in, originals_of_builtins, names_of_ours = sys.modules, dict(sys.modules), vars(builtins), dict(vars(builtins)), dict(ours)
    grave, missing, as_dict, put, remove, has, can = [], object(), dict, type.__setattr__, type.__delattr__, hasattr, callable

    def restore():
        found, was = [], as_dict(built_in)
        grave.append(was)
        built_in.clear()
        built_in.update(originals_of_builtins)
        for name, value in originals_of_builtins.items():
            if was.get(name, missing) is not value and name != "_":
                found.append("builtins." + name)
        for here, there in lists:
            if here != there:
                grave.append(here[:])
                here[:] = there
        for name, module in originals.items():
            if loaded.get(name) is not module:
                grave.append(loaded.get(name))
                loaded[name] = module
                found.append(f"sys.modules[{name!r}]")
        for name, table, there in tables:
            for key, value in there.items():
                if table.get(key, missing) is not value:
                    grave.append(table.get(key))
                    table[key] = value
                    if name.partition(".")[0] in PLAIN or name in ("math", "operator"):
                        found.append(f"{name}.{key}")
        for c, there in classes:
            here = as_dict(vars(c))
            for key, value in there.items():
                if here.get(key, missing) is not value:
                    grave.append(here.get(key))
                    put(c, key, value)
                    found.append(f"{c.__name__}.{key}")
            for key in here:
                if key not in there and key in OPERATORS and has(c.__mro__[1], key) and can(here[key]):
                    grave.append(here[key])
                    remove(c, key)
                    found.append(f"{c.__name__}.{key}")
        for f, code, defaults, keywords, name in functions:
            if f.__code__ is not code or f.__defaults__ is not defaults or f.__kwdefaults__ is not keywords or f.__name__ is not name:
                grave.append((f.__code__, f.__defaults__, f.__kwdefaults__))
                f.__code__, f.__defaults__, f.__kwdefaults__, f.__name__ = code, defaults, keywords, name
                found.append(f"the code of {name}")
        for table in hooks:
            if table:
                grave.append(as_dict(table))
                table.clear()
                found.append("torch's hooks on modules")
        grave.append(as_dict(ours))
        ours.clear()
        ours.update(names_of_ours)
        return found

    return restore, trusted, frozenset(id(f) for f, *_ in functions)


def guard_of(home, readable, pipes, kept):
    """→ hook, state.  The hook refuses the student's threads what no exercise needs; `state` says whether it is on, and whether a check runs.

    `kept`: the ids of the functions that a check relies on."""
    state = {"on": False, "check": False, "arming": False}
    main, thread_of, frame_at, decode = _thread.get_ident(), _thread.get_ident, sys._getframe, os.fsdecode
    to_write, from_importlib, busy = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC, ("<frozen importlib", "/"), set()
    single = {home, "/dev/null", "/dev/urandom", "/dev/random", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/self/status", "/proc/self/cgroup"}
    folders = tuple(f"{folder}/" for folder in (home, *readable, "/usr", "/lib", "/lib64", "/etc", "/sys"))

    def reachable(path, writing):
        if type(path) is int:
            return path not in pipes
        parts = []
        for part in (home + "/" + decode(path) if decode(path)[:1] != "/" else decode(path)).split("/"):
            if part == "..":
                parts = parts[:-1]
            elif part not in ("", "."):
                parts.append(part)
        path = "/" + "/".join(parts)
        return path == "/dev/null" or (path + "/").startswith(home + "/") if writing else path in single or (path + "/").startswith(folders)

    def hook(event, given):
        me = thread_of()
        if state["on"] and me != main and me not in busy:       # what the hook itself does raises events, too
            busy.add(me)
            try:
                look(event, given)
            finally:
                busy.discard(me)

    def look(event, given):
        if event == "open":
            path, mode, flags = given
            writing = any(c in mode for c in "wax+") if mode else (flags or 0) & to_write
            if path is not None and not reachable(path, writing):
                raise PermissionError(f"while this is graded, {path} cannot be {'written' if writing else 'read'}: only the notebook's own folder is there")
        elif event == "object.__getattr__":
            if given[1] in INNER and (state["check"] or given[1][0] == "_") and foreign(frame_at(2))[:6] == "<cell ":
                raise PermissionError(f"{given[1]} is out of reach while this is graded")
        elif event == "object.__setattr__":
            if state["check"] and given[1] in CODE and id(given[0]) in kept:
                raise PermissionError(f"{given[1]} of what a check relies on cannot be replaced while this is checked")
        elif event == "sys._getframe":
            if state["check"] and foreign(frame_at(2))[:6] == "<cell ":
                raise ValueError("frames are out of reach while this is checked")
        elif event == "_thread.start_new_thread":
            if state["check"]:
                raise RuntimeError("no thread can be started while this is checked")
        elif event == "compile":
            if given[1] is None or (type(given[1]) is str and given[1][:1] != "<" and not frame_at(2).f_code.co_filename.startswith(from_importlib)):
                raise PermissionError("while this is graded, code cannot bear the name of a file")
        elif event == "sys.setprofile" and state["arming"]:
            return
        elif event.startswith(REFUSED):
            raise PermissionError(f"{event} is not allowed while this is graded")
        elif event in READING or event.startswith(WRITING):
            if any(type(path) in (str, bytes) and not reachable(path, event not in READING) for path in given):
                raise PermissionError(f"while this is graded there is the notebook's own folder, and no other: {event} {given[0]}")

    return hook, state


def watcher_of(trusted, state, locked, classes):
    """→ watching(…): the profile function of one check, and strange(value): why a value cannot be compared with a number."""
    import torch

    import ddpm_tutorial

    ours = [name for name in sys.modules if family(name) == "ddpm_tutorial"]
    tables = [vars(sys.modules[name]) for name in
              ("builtins", "math", "operator", "torch", "torch.testing", "torch.functional", "torch.nn.functional", "numpy", "numpy.testing", *ours)]
    tables += [*map(vars, classes), vars(torch.Tensor), vars(torch.nn.Module)]
    hooks = hooks_of()
    differs, depths = operator.is_not, (torch._C._len_torch_function_stack, torch._C._len_torch_dispatch_stack)
    package = os.path.dirname(ddpm_tutorial.__file__) + "/"
    public = {name: f for name in reversed(ours) for name, f in vars(sys.modules[name]).items() if isinstance(f, types.FunctionType)}

    def strange(value, deep=0):
        kind = type(value)
        for c in (*kind.__mro__, type(kind)):
            if id(c) not in trusted and (own := sorted(OPERATORS & vars(c).keys())):
                return f"the answer is an object of a class ({kind.__name__}) that says itself what {own[0]} means"
        if isinstance(value, (list, tuple, dict)) and deep < 3:
            for item in list(value.values() if isinstance(value, dict) else value)[:100]:
                if said := strange(item, deep + 1):
                    return said
        return ""

    def watching(names, mine, found, secret):
        """`mine`: the package's functions that are for the student to write."""
        by_code = {inspect.unwrap(public[name]).__code__: name for name in mine if name in public}
        called = {code.co_name for code in by_code}
        depth, before, names_before = 0, [], {}

        def looking_on(): return any(depth_of() for depth_of in depths) or any(hooks)

        def leaving(value):
            if looking_on():
                found.append("it leaves a mode or a hook of torch switched on")
            for table, values in before:
                if len(table) != len(values) or any(map(differs, table.values(), values)):
                    there = {id(v) for v in table.values()}
                    if gone := [v for v in values if callable(v) and id(v) not in there]:
                        found.append(f"it replaces {getattr(gone[0], '__name__', gone[0])} while it is checked")
                    if table is tables[-2] and len(table) > len(values):
                        found.append("it adds to torch.Tensor while it is checked")
            if changed := [name for name in locked if names_before.get(name) is not names.get(name)]:
                found.append(f"it replaces {changed[0]} while it is checked")
            if said := strange(value):
                found.append(said)

        def watch(frame, event, value):
            nonlocal depth, before, names_before
            if event != "call" and event != "return":
                return
            code = frame.f_code
            where = code.co_filename
            if where[0] == "/":
                if event == "call" and code.co_name in called and code in by_code:
                    up = frame
                    while up is not None and up.f_code.co_filename.startswith(package):
                        up = up.f_back
                    if up is not None and up.f_code.co_filename[:6] == "<cell ":
                        found.append(f"`{by_code[code]}` is what you are to write here, and yours calls the package's")
            elif where[:8] == "<locked ":
                if event == "call" and depth and looking_on():
                    found.append("it looks on at the check's own work, by a mode (`with torch.device(…)` is one) or a hook of torch")
            elif where != secret and where[:8] not in ("<frozen ", "<bottom>"):
                if event == "call":
                    if depth == 0:
                        before, names_before = [(table, list(table.values())) for table in tables], dict(names)
                    depth += 1
                elif depth:
                    depth -= 1
                    if depth == 0:
                        leaving(value)

        def watched(on):
            state["check"] = state["arming"] = True
            sys.setprofile(watch if on else None)
            state["arming"] = False

        return watched

    return watching, strange


def main():
    commands, answers = os.dup(0), os.dup(1)
    for fd in (0, 1):
        os.dup2(os.open(os.devnull, os.O_RDWR), fd)
    read, write, load, number, fork, leave, wait, choose, clock, kill, sleep, pipe, thread, lock, status_of, death = (
        os.read, os.write, marshal.loads, int.from_bytes, os.fork, os._exit, os.waitpid, select.select, time.monotonic, os.kill, time.sleep, os.pipe,
        _thread.start_new_thread, _thread.allocate_lock, os.waitstatus_to_exitcode, ctypes.CDLL(None).prctl)
    buffer, parse, module, as_dict, kind, chance = io.StringIO, ast.parse, ast.Module, dict, type, random.Random(os.urandom(16))
    system, collect, stop_collecting = sys, gc.enable, gc.disable

    def exactly(n):
        data = b""
        while len(data) < n:
            data += (more := read(commands, n - len(data)))
            if not more:
                leave(0)
        return data

    def receive(): return load(exactly(number(exactly(8), "big")))

    def send(word, what, said=""):
        line = b"%s %s %s\n" % (word, what, said.encode("utf-8", "replace").hex().encode())
        while line:
            line = line[write(answers, line):]

    order = receive()
    sys.path.insert(0, order["root"])
    sys.dont_write_bytecode = True
    import unittest.mock  # noqa: F401

    import numpy.testing
    import torch.testing

    import ddpm_tutorial.plots  # noqa: F401
    torch.set_num_threads(1)
    for file in os.listdir(order["home"]):                      # what matplotlib has read of its fonts
        os.remove(os.path.join(order["home"], file))
    sys.path.remove(order["root"])

    # The locked cells stand before everything of the student's, whose names are a copy.  Seals are for checks only.
    stub, ours = {"__name__": "notebook", "__builtins__": builtins}, {"__name__": "__main__", "__builtins__": builtins}
    exec(compile(NOTEBOOK, "<notebook>", "exec"), stub)
    ours.update(get_ipython=stub["get_ipython"], display=stub["display"])
    sys.stdout = io.StringIO()
    for name, source in order["locked"]:
        try:
            exec(compile(source, f"<locked {name}>", "exec"), ours)
        except Exception as error:
            send(order["word"], b"broken", f"the locked cell {name} does not run: {type(error).__name__}: {error}")
            leave(1)

    def refused(*given, **more): raise PermissionError("torch's own operators cannot be replaced while this is graded")
    torch._C._dispatch_library = refused                        # only now: an optimizer in a locked cell makes torch load operators of its own

    sys.modules["__main__"] = types.ModuleType("__main__")
    theirs = vars(sys.modules["__main__"])
    once = {}                                                   # what is one object stays one
    theirs.update({k: copy_of(v, once) for k, v in ours.items() if not k.startswith("SEAL")})
    locked = frozenset(ours)

    secret = f"<check {os.urandom(8).hex()}>"
    A = 0.5 + chance.random()
    a = torch.tensor([A, A + 1, A + 2], dtype=torch.float64)
    scene = {**ours, "math": __import__("math"), "torch": torch, "numpy": numpy, "A": A, "B": A + 0.25, "a": a, "b": a + 0.25}
    canaries = [(line, compile(line, secret, "exec")) for line in CANARIES.strip().splitlines() if "close" in ours or " close(" not in line]
    bottom = {"failure": AssertionError}
    exec(compile(BOTTOM, "<bottom>", "exec"), bottom)
    run, run_check = bottom["run"], bottom["check"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                         # it touches every name that torch would rather not hear again
        restore, trusted, kept = memory_of(ours)
    hook, state = guard_of(order["home"], order["readable"], (commands, answers), kept)
    watching, strange = watcher_of(trusted, state, locked, classes_of(ours))

    def described(error):
        said = f"{kind(error).__name__}: {error}".removeprefix("AssertionError: ")
        return " ".join(said.split())[:1000]

    def thread_is_through(function, *given):
        """Run it in a thread, with the collector off whenever the main thread works: it would run a student's `__del__` there."""
        done = lock()
        done.acquire()
        state["on"] = True
        collect()
        thread(function, (*given, done.release))
        done.acquire()
        stop_collecting()

    def waited(pid, seconds, finished=None):
        """Until the child ends or writes that it has finished; what went wrong, or ""."""
        until = clock() + seconds
        while True:
            if finished is not None and choose([finished], [], [], 0.01)[0] and read(finished, 1):
                return ""
            gone, status = wait(pid, 1)                         # WNOHANG
            if gone:
                return ENDED if status or finished is not None else ""
            if clock() > until:
                kill(pid, 9)
                wait(pid, 0)
                return OUT_OF_TIME
            sleep(0.005)

    def run_cell(cell):
        printed, said = buffer(), []
        system.stdout = system.stderr = printed
        try:
            code = compile(cell["source"], f"<cell {cell['name']}>", "exec")
        except Exception as error:
            return described(error), ""
        thread_is_through(run, code, theirs, said)
        found = restore()
        system.stdout = system.stderr = buffer()
        if found:
            send(cell["word"], b"found", ", ".join(found[:3]))
        return (described(said[0]) if said else ""), printed.getvalue()[:MOST_PRINTED]

    def run_one_check(cell):
        """The check, and the tiers that read what it has measured: its names are theirs, and nothing of the student's comes between."""
        restore()
        names, passing, found = as_dict(ours), [], []
        for name in cell["asked"]:
            if name not in locked and name in theirs:
                names[name] = theirs[name]
                if what := strange(names[name]):
                    found.append(what)
        for source in cell["parts"]:
            system.stdout = system.stderr = buffer()
            said, steps = [], []
            for statement in parse(source).body:
                steps += [chance.choice(canaries) for _ in range(2)] + [("", compile(module([statement], []), secret, "exec"))]
            steps += canaries
            thread_is_through(run_check, watching(names, cell["mine"], found, secret), steps, names, scene, said, passing)
            restore()
            if passing:
                send(cell["word"], b"canary", passing[0])
            elif found:
                send(cell["word"], b"failed", found[0])
            elif said:
                send(cell["word"], b"failed", "")
                send(cell["word"], b"says", described(said[0]))
            else:
                send(cell["word"], b"passed")
            send(cell["word"], b"next")

    def session():
        while True:
            cell = receive()
            if cell["kind"] == "back":                          # the last cell was never run: its parent goes on
                leave(GONE_BACK)
            if cell["kind"] == "check":
                if (pid := fork()) == 0:
                    death(DIE_WITH_PARENT, 9, 0, 0, 0)
                    run_one_check(cell)
                    leave(0)
                if wrong := waited(pid, cell["seconds"]):
                    send(cell["word"], b"failed", wrong)
            else:
                finished, finish = pipe()
                if (pid := fork()) == 0:
                    death(DIE_WITH_PARENT, 9, 0, 0, 0)
                    error, printed = run_cell(cell)
                    write(finish, b".")
                    send(cell["word"], b"printed", printed)
                    send(cell["word"], b"says", error)
                elif wrong := waited(pid, cell["seconds"], finished):
                    send(cell["word"], b"says", wrong)
                else:
                    if status_of(wait(pid, 0)[1]) != GONE_BACK: # the child is the session now
                        leave(0)
                    continue
            send(cell["word"], b"end")

    os.dup2(0, 2)
    sys.addaudithook(hook)
    prctl(ADOPT_ORPHANS, 1)
    prctl(DIE_WITH_PARENT, signal.SIGKILL)
    started = os.fork()
    if started == 0:
        prctl(DIE_WITH_PARENT, signal.SIGKILL)
        pages = int(open("/proc/self/statm").read().split()[0])
        for what, most in ((resource.RLIMIT_AS, pages * resource.getpagesize() + order["memory"]), (resource.RLIMIT_FSIZE, order["file"]),
                           (resource.RLIMIT_NPROC, order["processes"]), (resource.RLIMIT_CORE, 0)):
            with_less = resource.getrlimit(what)[1]
            resource.setrlimit(what, (most, most) if with_less == resource.RLIM_INFINITY or most < with_less else (with_less, with_less))
        gc.disable()
        session()
    send(order["word"], b"ready")
    os.close(commands)
    os.close(answers)
    supervise(started, order["notebook_seconds"])


def supervise(session, seconds):
    """Wait for the session, or for its time to be over; then end whatever it has started, adopted orphans too."""
    def descendants():
        parents, found, new = {}, set(), {os.getpid()}
        for entry in os.listdir("/proc"):
            try:
                parents[int(entry)] = int(open(f"/proc/{entry}/stat").read().rpartition(")")[2].split()[1])
            except (ValueError, OSError):
                continue
        while new:
            new = {child for child, parent in parents.items() if parent in new} - found
            found |= new
        return found

    until = time.monotonic() + seconds
    while time.monotonic() < until and len(descendants()) < MOST_PROCESSES and os.waitpid(session, os.WNOHANG) == (0, 0):
        time.sleep(0.1)
    while left := descendants():
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


main()
