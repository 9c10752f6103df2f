"""What a process is."""

import asyncio
import atexit
import builtins
import ctypes
import decimal
import faulthandler
import gc
import importlib.metadata
import locale
import logging
import multiprocessing
import os
import re
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings


def name(x):
    return getattr(x, "__qualname__", None) or (x if isinstance(x, (int, str, type(None))) else str(x))


def kinds(directory):
    found = []
    for fd in os.listdir(directory):
        try:
            target = re.sub(r"[0-9]{3,}", "N", os.readlink(os.path.join(directory, fd)))
        except OSError:
            continue  # that of the directory itself
        if "/learn-" not in target:  # what codeserver reads for a minute of what is imported
            found.append(target)
    return sorted(found)


def status():
    wanted = ("Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs",
              "Seccomp", "Cpus_allowed", "THP_enabled", "CoreDumping")
    with open("/proc/self/status") as f:
        pairs = [line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line]
    return {k: v for k, v in pairs if k in wanted}


def read(path):
    with open(path) as f:
        return f.read()


def prctl(option):
    value = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(option, ctypes.byref(value), 0, 0, 0)
    return value.value


def loggers():
    found = {}
    for key, log in list(logging.root.manager.loggerDict.items()) + [("root", logging.root)]:
        if isinstance(log, logging.Logger) and (log.level or log.handlers or log.filters or log.disabled or not log.propagate):
            found[key] = [log.level, [type(h).__name__ for h in log.handlers], len(log.filters), log.disabled, log.propagate]
    return found


def report():
    main = sys.modules["__main__"]
    libc = ctypes.CDLL(None)
    all = {
        "argv": sys.argv, "orig_argv": sys.orig_argv[1:], "path": sys.path, "flags": str(sys.flags), "xoptions": sys._xoptions,
        "executable": sys.executable, "prefix": [sys.prefix, sys.base_prefix, sys.exec_prefix], "warnoptions": sys.warnoptions,
        "bytecode": [sys.dont_write_bytecode, sys.pycache_prefix], "recursion": sys.getrecursionlimit(), "switch": sys.getswitchinterval(),
        "hooks": [name(h) for h in (sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook, sys.breakpointhook)],
        "trace": [sys.gettrace(), sys.getprofile()], "meta_path": [type(f).__name__ if not isinstance(f, type) else f.__name__ for f in sys.meta_path if type(f).__name__ != "Recorder"],
        "path_hooks": [name(h) for h in sys.path_hooks], "intern": sys.getdefaultencoding(), "fs": [sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()],
        "streams": [[s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty(), s.name] for s in (sys.stdin, sys.stdout, sys.stderr)],
        "main": [main.__name__, main.__file__, main.__spec__ and main.__spec__.name, main.__package__, type(main.__loader__).__name__, sorted(vars(main))],
        "builtins": sorted(vars(builtins)), "cwd": os.getcwd(), "env": dict(os.environ),
        "umask_limits": {n: resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT_")},
        "status": status(), "fds": kinds("/proc/self/fd"), "inheritable": [fd for fd in range(3, 200) if is_inheritable(fd)],
        "timerslack": read("/proc/self/timerslack_ns"), "oom": read("/proc/self/oom_score_adj"), "personality": read("/proc/self/personality"),
        "priority": os.getpriority(os.PRIO_PROCESS, 0), "affinity": sorted(os.sched_getaffinity(0)), "scheduler": os.sched_getscheduler(0),
        "coredump": read("/proc/self/coredump_filter"), "subreaper": prctl(37), "pdeathsig": prctl(2), "dumpable": libc.prctl(3, 0, 0, 0, 0),
        "group": os.getpgrp() == os.getpid(), "session": os.getsid(0) == os.getsid(os.getppid()), "timers": [signal.getitimer(t) for t in range(3)],
        "signals": {int(s): name(signal.getsignal(s)) for s in signal.valid_signals()}, "wakeup": signal.set_wakeup_fd(-1),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "children": children(),
        "threads": sorted(re.sub("[0-9]+", "N", t.name) for t in threading.enumerate() if "process_request" not in t.name),
        "stack": threading.stack_size(), "gc": [gc.isenabled(), gc.get_threshold(), gc.get_debug(), len(gc.callbacks)],
        "locale": [locale.setlocale(locale.LC_ALL), locale.getpreferredencoding(False), time.tzname, time.timezone],
        "decimal": str(decimal.getcontext()), "warnings": [[f[0], getattr(f[1], "pattern", f[1]), f[2].__name__, getattr(f[3], "pattern", f[3]), f[4]] for f in warnings.filters],
        "showwarning": [warnings.showwarning.__module__, name(warnings.showwarning), name(warnings.formatwarning)],
        "logging": loggers(), "logging_class": name(logging.getLoggerClass()), "logging_disabled": logging.root.manager.disable,
        "asyncio": type(asyncio.get_event_loop_policy()).__name__, "atexit": atexit._ncallbacks(), "faulthandler": faulthandler.is_enabled(),
        "multiprocessing": [multiprocessing.get_start_method(allow_none=True), multiprocessing.current_process().name,
                            multiprocessing.parent_process() is None],
        "tempdir": tempfile.gettempdir(), "timeout": socket.getdefaulttimeout(), "own": sorted(m for m in sys.modules if m.split(".")[0] == "app"),
        "distributions": sorted(d.metadata["Name"] + " " + d.version for d in importlib.metadata.distributions()),
        "entry_points": len(importlib.metadata.entry_points()),
    }
    return all


def is_inheritable(fd):
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def children():
    with open("/proc/self/task/%d/children" % os.getpid()) as f:
        return len(f.read().split())
