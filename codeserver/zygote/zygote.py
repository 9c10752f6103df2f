"""Starts versions: by itself (run), or forked from a process that has imported what start-ups import (serve).

Both ways set a process up by the same code, so that a version that was forked behaves as one that was not, but for what
docs/codeserver.md lists. It runs on Python 3.8 and later, and imports nothing that is not in every Python.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
import warnings

CONTROL = 3  # the socket that requests come from, in the zygote


class Recorder:
    """A meta path finder that finds nothing and writes down what is looked for, until its file is removed."""

    LIMIT = 1 << 20  # bytes

    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self.owner = os.getpid()
        self.written = 0

    def find_spec(self, name, path=None, target=None):
        try:
            if os.getpid() == self.owner and os.fstat(self.fd).st_nlink and self.written < self.LIMIT:
                self.written += os.write(self.fd, name.encode() + b"\n")
                return None
        except OSError:
            pass
        # The descriptor stays open: another thread may be about to write to it.
        try:
            sys.meta_path.remove(self)
        except ValueError:
            pass
        return None


def record(path):
    """Has the names of modules that are looked for from now on written to a file, if it is there."""
    try:
        sys.meta_path.insert(0, Recorder(path))
    except OSError:
        pass


class LeftOut(BaseException):
    """Is raised by an import of what is left out. No module can go on without it, as if it were merely not installed."""


class Guard:
    """A meta path finder that keeps packages, and what imports them, from being imported."""

    def __init__(self, names):
        self.names = frozenset(names)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise LeftOut(name)
        return None


def set_path(args, added):
    """Puts before the environment's own directories what the interpreter would put there."""
    first = os.getcwd() if args[0] == "-m" else os.path.dirname(os.path.realpath(args[0]))
    sys.path[:] = [first] + added + sys.path[1:]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = [sys.executable] + args


CHANGED = {}  # variables that modules set or removed (None) when they were imported, with what they were before


def set_environment(env):
    """Sets the version's variables, and what modules have made of them. What is the version's own no module has seen."""
    os.environ.clear()
    os.environ.update(env)
    for name, (before, after) in CHANGED.items():
        if env.get(name) == before:
            if after is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = after
    time.tzset()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=bool(env.get("PYTHONUNBUFFERED")))


def run(args):
    """Runs `-m MODULE ARGS` or `SCRIPT ARGS` as the interpreter does."""
    main = type(sys)("__main__")
    main.__builtins__ = sys.modules["builtins"]
    sys.modules["__main__"] = main
    if args[0] == "-m":
        sys.argv[:] = ["-m"] + args[2:]
        runpy._run_module_as_main(args[1])
        return
    sys.argv[:] = args
    main.__file__ = args[0]
    main.__cached__ = None
    loader = importlib.machinery.SourceFileLoader("__main__", args[0])
    main.__loader__ = loader
    with open(args[0], "rb") as f:
        code = compile(f.read(), args[0], "exec", dont_inherit=True)
    exec(code, main.__dict__)


def preload(modules, leave_out):
    """Imports modules in the order in which a start-up did. What cannot be imported here is the version's own."""
    failed = []
    before = dict(os.environ)
    guard = Guard(leave_out)
    sys.meta_path.insert(0, guard)
    with Generators(modules):
        for name in modules:
            if name in sys.modules:
                continue
            try:
                importlib.import_module(name)
            except BaseException as err:  # some modules raise what is no Exception
                failed.append([name, "%s: %s" % (type(err).__name__, err)])
    sys.meta_path.remove(guard)
    for name in before.keys() | os.environ.keys():
        if before.get(name) != os.environ.get(name):
            CHANGED[name] = before.get(name), os.environ.get(name)
    return failed


def set_title(args):
    """Has ps show what runs. A zygote's last argument is made of blanks, to leave room for it."""
    import ctypes

    with open("/proc/self/stat", "rb") as f:
        start, end = [int(n) for n in f.read().rpartition(b")")[2].split()[45:47]]
    title = b"\0".join(a.encode() for a in [sys.executable] + args) + b"\0"
    ctypes.memmove(start, title[: end - start - 1].ljust(end - start, b"\0"), end - start)


GENERATORS = []  # that modules have made for themselves, seeded by the system


class Generators:
    """While modules are imported, notes which generators of random numbers they leave to the system to seed."""

    def __init__(self, modules):
        self.random = None
        if "random" in modules:
            try:
                self.random = importlib.import_module("random")
            except BaseException:  # it is left out, or what it imports: preload tells why
                pass

    def __enter__(self):
        if self.random is None:
            return
        self.seed = seed = self.random.Random.seed

        def noting(generator, a=None, version=2):
            GENERATORS[:] = [g for g in GENERATORS if g is not generator] + ([generator] if a is None else [])
            return seed(generator, a, version)

        self.random.Random.seed = noting

    def __exit__(self, *args):
        if self.random is not None:
            self.random.Random.seed = self.seed


def reseed():
    """Gives the child random numbers of its own. The functions of module random have them by themselves."""
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
    for generator in GENERATORS:
        generator.seed()
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.current_process().authkey = os.urandom(32)


def fork(request_fd, lifeline, status, out):
    """Forks a version; its shim is its parent. Returns the shim's pid, in the zygote, or the request, in the version.

    The shim is the child of this process that has forked the version and then executes the codeserver's binary: so the
    version's parent is a process that owns it, as when it is started without a zygote.
    """
    pid = os.fork()
    if pid:
        return pid, None
    try:
        with open(request_fd, "rb") as f:
            request = json.load(f)
        os.setpgid(0, 0)
        shim = os.getpid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # kept when it executes the codeserver's binary
        go, going = os.pipe()
        version = os.fork()
        if version:
            os.close(go)
            # They came after the request's own descriptor, so none of them is among those that are overwritten.
            for fd, to in ((lifeline, 3), (status, 4), (out, 1), (out, 2)):
                os.dup2(fd, to, inheritable=True)
            os.execve(request["shim"], [request["shim"], request["shim_argument"], str(version), str(request["grace"])],
                      dict(v.split("=", 1) for v in request["shim_env"]))
        os.close(going)
        become_version(out)
        confine(**request["confine"])
        os.read(go, 1)  # ends when the shim executes the codeserver's binary, or has died
        os.close(go)
        if os.getppid() != shim:
            os._exit(125)
        return 0, request
    except BaseException as err:
        os.write(out, ("codeserver: the zygote cannot fork: %s\n" % err).encode())
        os._exit(125)


def fork_sandboxed(request_fd, admission, link, out):
    """Forks a version into a sandbox. Returns as fork does; the version's parent is its keeper. See package sandbox."""
    pid = os.fork()
    if pid:
        return pid, None
    try:
        os.setpgid(0, 0)
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        keeper = os.getpid()
        version = os.fork()
        if version:
            keep(version, link)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        become_version(out)
        enter_sandbox(admission)
        become_version(out)  # the kernel forgets whose end is the version's when the user changes
        if os.getppid() != keeper:
            os._exit(125)
        with open(request_fd, "rb") as f:  # as the version's user: nobody else has what is in it in his memory
            request = json.load(f)
        confine(None, request["open_files"])  # the codeserver has seen to the cgroup
        return 0, request
    except BaseException as err:
        os.write(out, ("codeserver: the zygote cannot fork: %s\n" % err).encode())
        os._exit(125)


def keep(version, link):
    """Waits for the version and for what it leaves behind, and says how it ended, until nobody listens any more."""
    set_title(["pexpress-worker-forked"])
    os.closerange(0, link)
    os.closerange(link + 1, 1 << 16)
    listener = socket.socket(fileno=link)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(wake, select.POLLIN)
    reap = True  # what has ended before there was a handler
    while True:
        while reap:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == version:
                listener.send(json.dumps({"Status": status}).encode())
        ready = [fd for fd, _ in poll.poll()]
        if link in ready:
            os._exit(0)  # the version ends with this process
        reap = os.read(wake, 4096)


def enter_sandbox(admission):
    """Makes a user namespace, in which this process may do what follows, becomes the user that it is let become there, and
    puts in place what it is to see. Only the zygote's modules are there until then."""
    import ctypes

    def check(result, what):
        if result < 0:
            raise OSError(ctypes.get_errno(), "%s: %s" % (what, os.strerror(ctypes.get_errno())))

    with socket.socket(fileno=os.dup(admission)) as codeserver:
        try:
            check(LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC), "make a user namespace")
        except OSError as err:
            codeserver.send(str(err).encode())
            raise
        codeserver.send(b"ready")
        answer, mounts, _, _ = socket.recv_fds(codeserver, 1 << 16, 200)
    answer = json.loads(answer)
    for fd, at in zip(mounts, answer["at"]):
        check(LIBC.syscall(SYS_MOVE_MOUNT, fd, b"", AT_FDCWD, os.fsencode(at), MOVE_MOUNT_FLAGS), "mount " + at)
        os.close(fd)
    user = answer["user"]
    for capability in range(64):
        if LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            break
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    check(LIBC.capset(header, (ctypes.c_uint32 * 6)()), "drop capabilities")
    check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    check(LIBC.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")  # for those of this user: a debugger, core dumps


CLONE_NEWNS = 0x20000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
SYS_MOVE_MOUNT = 429  # on all architectures
AT_FDCWD = -100
MOVE_MOUNT_FLAGS = 0x44  # the mount is the descriptor itself; a link as the last part of where is followed
CAPABILITY_VERSION_3 = 0x20080522
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
RLIMIT_NOFILE = 7


def become_version(out):
    os.setpgid(0, 0)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, to in ((null, 0), (out, 1), (out, 2)):
        os.dup2(fd, to, inheritable=True)
    if null > 2:
        os.close(null)


def confine(groups, open_files):
    """Puts this process into its cgroup and sets its limits. Only the zygote's modules are there until then."""
    import ctypes

    for group in groups or ():
        fd = os.open(os.path.join(group, "cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"0")  # is the process that writes
        os.close(fd)
    if open_files:
        limit = (ctypes.c_ulong * 2)(open_files, open_files)
        if LIBC.setrlimit(RLIMIT_NOFILE, limit):
            raise OSError("limit open files to %d, which may be more than this host allows" % open_files)


def serve(control):
    """Answers requests; returns in a forked version, with what it is to run."""
    shims = set()

    def collect(signum, frame):  # who started a shim learns from its status pipe that it has ended
        for pid in list(shims):
            try:
                ended = os.waitpid(pid, os.WNOHANG)[0]
            except ChildProcessError:  # a signal came meanwhile
                ended = pid
            if ended:
                shims.discard(pid)

    while True:
        kind, fds, _, _ = socket.recv_fds(control, 1, 8)
        if not kind:
            os._exit(0)  # the codeserver is gone
        if kind == b"p":
            with open(fds[0], "rb") as f:
                request = json.load(f)
            failed = preload(request["preload"], request["leave_out"])
            answer = {"failed": failed, "modules": sorted(sys.modules)}
            gc.collect()
            gc.freeze()
            with open(fds[1], "w") as f:
                json.dump(answer, f)
            signal.signal(signal.SIGCHLD, collect)
            control.send(b".")
            continue
        with warnings.catch_warnings():  # Python 3.12 and later warn of a fork where there are threads
            warnings.simplefilter("ignore", DeprecationWarning)
            pid, request = (fork if kind == b"f" else fork_sandboxed)(*fds[:4])
        for fd in fds[1 if request else 0:]:  # the version has closed its request
            os.close(fd)
        if request:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            return request
        shims.add(pid)
        collect(None, None)
        control.send(b".")


def main():
    """`run LEARN ARGS` runs in this process, and has LEARN, if it is not empty, name what is imported; `serve` forks."""
    global LIBC
    if sys.argv[1] == "run":
        learn, args = sys.argv[2], sys.argv[3:]
        set_path(args, [])
        if learn:
            record(learn)
        run(args)
        return
    import ctypes

    LIBC = ctypes.CDLL(None, use_errno=True)
    os.set_inheritable(CONTROL, False)
    os.closerange(CONTROL + 1, 1 << 16)  # what the codeserver was started with
    request = serve(socket.socket(fileno=CONTROL))
    set_title(request["args"])
    os.chdir(request["dir"])
    set_environment(request["env"])
    reseed()
    set_path(request["args"], [p for p in request["env"].get("PYTHONPATH", "").split(os.pathsep) if p])
    if request["learn"]:
        record(request["learn"])
    run(request["args"])


main()
