"""Makes bytecode of the modules of one wheel: reads a job from standard input, and writes a line for each module.

The files are the same on every host. Modules come in one order, in a process that has compiled nothing before, with one hash
seed: which objects of a module marshal writes once depends on what else the process holds, and up to Python 3.10 the order of a
frozenset on the seed; that of one with None in it then is on the address of None, so that such a module, which behaves the same, can come
out in another order. No path of this host is in them. A wheel's code is compiled here and never run.
"""

import sys

sys.path[:] = [p for p in sys.path if p]  # nothing is imported from the working directory

import importlib.util
import json
import marshal
import os
import resource
import warnings

UNCHECKED = 0b01  # PEP 552: made from a hash, which is not compared when it is loaded


def compile_module(root, name, out):
    with open(os.path.join(root, name), "rb") as f:
        source = f.read()
    # Python puts in place of the name the path that it loads the module from.
    code = compile(source, name, "exec", dont_inherit=True)
    data = b"".join(
        [importlib.util.MAGIC_NUMBER, UNCHECKED.to_bytes(4, "little"), importlib.util.source_hash(source), marshal.dumps(code)]
    )
    path = importlib.util.cache_from_source(os.path.join(out, name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = os.path.join(out, "part")  # what is left of it when this process is killed is not looked at
    with open(part, "wb") as f:
        f.write(data)
    os.rename(part, path)


def main():
    os.umask(0o022)
    os.nice(19)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    warnings.simplefilter("ignore")
    job = json.load(sys.stdin)
    for name in job["modules"]:
        try:
            compile_module(job["root"], name, job["out"])
        except OSError:
            raise
        except Exception:  # what makes a compiler give up is not only a SyntaxError
            os.write(1, b"skipped\n")
        else:
            os.write(1, b"made\n")


main()
