"""Ways to get points without an answer, each tried on the first exercise.  None gets any, and the one right answer beside it keeps its own.

CHEATS: {what: code}.  The code stands in the answer cell `alpha_bar`, below WRONG; `linear`, beside it, is right.
"""

WRONG = """
def alpha_bar_from(beta): return torch.zeros(len(beta) + 1, dtype=torch.float64)
"""
CHEATS = {
    "an AST transformer drops every assert": """
import ast
class Drop(ast.NodeTransformer):
    def visit_Assert(self, node): return ast.Pass()
get_ipython().ast_transformers.append(Drop())
""",
    "an input transformer comments asserts out": """
def drop(lines): return ["pass" if "assert" in line else line for line in lines]
get_ipython().input_transformers_cleanup.append(drop)
""",
    "an exception handler of its own swallows the errors": """
get_ipython().set_custom_exc((Exception,), lambda *given, **more: None)
""",
    "compile is replaced by one that drops asserts": """
import ast, builtins
plain = builtins.compile
def without(source, *given, **more):
    tree = plain(source, "<x>", "exec", ast.PyCF_ONLY_AST)
    return plain(ast.fix_missing_locations(ast.Module([s for s in tree.body if not isinstance(s, ast.Assert)], [])), "<x>", "exec")
builtins.compile = without
ast.parse = lambda source, *given, **more: ast.Module([], [])
""",
    "exec is replaced by one that does nothing": """
import builtins
builtins.exec = lambda *given, **more: None
""",
    "torch.allclose says yes": """
torch.allclose = lambda *given, **more: True
torch.equal = torch.isclose = torch.allclose
""",
    "torch's == says yes": """
torch.Tensor.__eq__ = lambda self, other: torch.ones(4, dtype=bool)
torch.Tensor.__sub__ = lambda self, other: torch.zeros(4)
torch.Tensor.shape = property(lambda self: (4,))
""",
    "numpy's and torch's testing functions do nothing": """
import numpy, torch.testing
numpy.testing.assert_allclose = torch.testing.assert_close = lambda *given, **more: None
numpy.allclose = lambda *given, **more: True
torch.allclose = numpy.allclose
""",
    "builtins say what they are wished to say": """
import builtins
builtins.isinstance = lambda *given: True
builtins.len = lambda x: 4
builtins.all = builtins.any = lambda x: True
""",
    "AssertionError is another class": """
import builtins
builtins.AssertionError = type("Fine", (Exception,), {})
""",
    "the check's helper is defined anew": """
def close(a, b, tol=1): return True
""",
    "the check's helper gets another body": """
def yes(a, b, tol=1e-6): return True
close.__code__ = yes.__code__
""",
    "the check's helper is found by its globals": """
close.__globals__["close"] = lambda *given: True
""",
    "torch is another module": """
import sys, types
fake = types.ModuleType("torch")
fake.__dict__.update(vars(torch))
fake.allclose = lambda *given, **more: True
sys.modules["torch"] = torch = fake
""",
    "a file with the name of a module": """
with open("ddpm_tutorial.py", "w") as file: file.write("def linear(T): return None")
with open("torch.py", "w") as file: file.write("def allclose(*given, **more): return True")
import sys
sys.path.insert(0, "."); sys.modules.pop("torch", None)
import torch
""",
    "the package's function, with which the check compares, is another": """
import ddpm_tutorial
ddpm_tutorial.linear = ddpm_tutorial.schedules.linear = linear = lambda T: None
""",
    "the package's function gets another body": """
def nothing(self): return torch.zeros(4)
type(cosine(50)).beta = property(nothing)
cosine.__code__ = (lambda T: None).__code__
""",
    "an object that is equal to everything": """
class Same:
    ndim, dtype = 1, torch.float64
    def __eq__(self, other): return True
    def __len__(self): return 4
    def __getitem__(self, i): return self
    def __lt__(self, other): return True
    __gt__ = __le__ = __ge__ = __lt__
    def tolist(self): return []
def alpha_bar_from(beta): return Same()
""",
    "a tensor of its own class": """
class Kind(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, given=(), more=None):
        return True if function is torch.allclose else super().__torch_function__(function, types, given, more or {})
def alpha_bar_from(beta): return torch.zeros(4, dtype=torch.float64).as_subclass(Kind)
""",
    "unittest's ANY": """
from unittest.mock import ANY
def alpha_bar_from(beta): return ANY
""",
    "a mode of torch, in the cell": """
from torch.overrides import TorchFunctionMode
class Yes(TorchFunctionMode):
    def __torch_function__(self, function, types, given=(), more=None):
        return True if function is torch.allclose else function(*given, **(more or {}))
Yes().__enter__()
""",
    "a mode of torch, switched on while it is checked": """
from torch.overrides import TorchFunctionMode
class Yes(TorchFunctionMode):
    def __torch_function__(self, function, types, given=(), more=None):
        return True if function is torch.allclose else function(*given, **(more or {}))
def alpha_bar_from(beta):
    Yes().__enter__()
    return torch.zeros(4, dtype=torch.float64)
""",
    "an operator of torch, replaced in its dispatcher": """
mine = torch.library.Library("aten", "IMPL")
mine.impl("allclose", lambda *given, **more: True, "CPU")
""",
    "the program ends well while it is checked": """
import os
def alpha_bar_from(beta): os._exit(0)
""",
    "SystemExit while it is checked": """
def alpha_bar_from(beta): raise SystemExit(0)
""",
    "the program ends well at once": """
import os
os._exit(0)
""",
    "something for the end of the program": """
import atexit, os
atexit.register(os._exit, 0)
exit()
""",
    "a thread that replaces torch.allclose later, again and again": """
import threading, time
def later():
    while True:
        torch.allclose = lambda *given, **more: True
        time.sleep(0.001)
threading.Thread(target=later, daemon=True).start()
""",
    "a thread, started while it is checked": """
import _thread
def later():
    while True: torch.allclose = lambda *given, **more: True
def alpha_bar_from(beta):
    _thread.start_new_thread(later, ())
    return torch.zeros(4, dtype=torch.float64)
""",
    "torch.allclose is replaced while it is checked": """
def alpha_bar_from(beta):
    torch.allclose = lambda *given, **more: True
    return torch.zeros(4, dtype=torch.float64)
""",
    "… and replaces itself by the true one afterwards": """
true = torch.allclose
def once(*given, **more):
    torch.allclose = true
    return True
def alpha_bar_from(beta):
    torch.allclose = once
    return torch.zeros(4, dtype=torch.float64)
""",
    "… while the functions that would notice are replaced": """
import builtins, operator
true = torch.allclose, builtins.map, operator.is_not
def once(*given, **more):
    torch.allclose, builtins.map, operator.is_not = true
    return True
def alpha_bar_from(beta):
    builtins.map, operator.is_not = (lambda *given: ()), (lambda a, b: False)
    torch.allclose = once
    return torch.zeros(4, dtype=torch.float64)
""",
    "the frame of the check is looked for": """
import sys
def alpha_bar_from(beta):
    sys._getframe(1).f_globals["close"] = lambda *given: True
    return torch.zeros(4, dtype=torch.float64)
""",
    "… by an exception's traceback": """
import sys
def alpha_bar_from(beta):
    try: 1 / 0
    except ZeroDivisionError as error: frame = error.__traceback__.tb_frame.f_back
    frame.f_globals["close"] = lambda *given: True
    return torch.zeros(4, dtype=torch.float64)
""",
    "… by a generator": """
def walk():
    here = yield
    yield here.gi_frame.f_back.f_back
def alpha_bar_from(beta):
    g = walk(); next(g)
    g.send(g).f_globals["close"] = lambda *given: True
    return torch.zeros(4, dtype=torch.float64)
""",
    "tracing": """
import sys, threading
def trace(frame, event, arg):
    frame.f_globals["close"] = lambda *given: True
    return trace
threading.settrace(trace); threading.setprofile(trace)
sys.settrace(trace); sys.setprofile(trace)
""",
    "an audit hook": """
import sys
def hook(event, given):
    if event in ("exec", "compile"): torch.allclose = lambda *given, **more: True
sys.addaudithook(hook)
""",
    "the collector's list of all objects": """
import gc, types
for f in gc.get_objects():
    if isinstance(f, types.FunctionType) and f.__name__ in ("send", "described", "run_one_check"):
        f.__code__ = (lambda *given: None).__code__
""",
    "a function for the collector to call": """
import gc
def patch(phase, info): torch.allclose = lambda *given, **more: True
gc.callbacks.append(patch)
""",
    "a signal": """
import signal
def handler(number, frame):
    while frame: frame.f_globals["close"] = frame.f_locals["said"] = None; frame = frame.f_back
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
""",
    "an object that patches when it is destroyed": """
class Late:
    def __del__(self): torch.allclose = lambda *given, **more: True
torch.allclose = Late()
torch.equal = Late()
""",
    "machine code": """
import ctypes
ctypes.pythonapi.PyRun_SimpleString(b"import torch; torch.allclose = lambda *a, **k: True")
ctypes.memset(id(False) + 24, 1, 1)
""",
    "a verdict of its own, into every open file": """
import os
for fd in range(3, 40):
    try: os.write(fd, b"passed passed\\n" * 3)
    except OSError: pass
""",
    "a child that stays": """
import os, subprocess
try: subprocess.Popen(["sleep", "1000"])
finally:
    if os.fork() == 0:
        while True: pass
""",
    "the solutions": """
import json, pathlib, ddpm_tutorial
root = pathlib.Path(ddpm_tutorial.__file__).parents[1]
cells = json.loads((root / "exercises/source/01_noise_schedules/01_noise_schedules.ipynb").read_text())["cells"]
for cell in cells:
    if "END SOLUTION" in "".join(cell["source"]): exec("".join(cell["source"]))
""",
    "the catalogue of right answers": """
import importlib.util, pathlib, ddpm_tutorial, runpy
root = pathlib.Path(ddpm_tutorial.__file__).parents[1]
exec(runpy.run_path(str(root / "tests/exercises/answers/01_noise_schedules.py"))["RIGHT"]["alpha_bar"][0])
""",
    "a classmate's folder, and the gradebook": """
import glob, os
found = [p for p in glob.glob("../**/*", recursive=True) + os.listdir("/tmp") + os.listdir("..") if "exercises" in p or p.endswith((".ipynb", ".db"))]
exec(open(found[0]).read())
""",
    "the network": """
import urllib.request, socket
socket.create_connection(("127.0.0.1", 9), timeout=1)
exec(urllib.request.urlopen("http://127.0.0.1:9/solution.py", timeout=1).read())
""",
    "the shell": """
!cp -r ../../source . ; echo hello > hello
found = !cat ../../source/*/*.ipynb
get_ipython().system("touch hello")
%system touch hello
import os
os.system("touch hello")
exec(open("hello").read())
""",
    "a cell magic": """%%bash
touch hello
""",
    "names in front of the builtins": """
__builtins__ = {"isinstance": lambda *given: True}
isinstance = len = lambda *given: 4
float = lambda x: 1.0
""",
    "the same answer, under the name of a library's file": """
import torch as t
code = compile('''
import sys, torch
def alpha_bar_from(beta):
    sys._getframe(1).f_globals["close"] = lambda *given: True
    return torch.zeros(4, dtype=torch.float64)
''', t.__file__, "exec")
exec(code)
""",
}
