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

import _socket


def own(module):
    """Returns a module as it is now: others, such as gevent, put functions of theirs in place of what is in it."""
    copy = type(module)(module.__name__)
    copy.__dict__.update(module.__dict__)
    return copy


os, select, signal, socket = own(os), own(select), own(signal), own(socket)

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


def renew():
    """Gives the child an event loop of its own, where a module has made one: it is not forked by gevent's fork."""
    gevent = sys.modules.get("gevent")
    if gevent is not None:
        gevent.reinit()


class Pair:
    """A version and its parent, forked before it is known what they are to run: both wait for that.

    A fork copies the page tables of all that was imported. Nobody has to wait for that who is forked ahead. The version is
    a fork of a fork, so that its parent is a process that owns it, as when it is started without a zygote.

    Nor for page faults: the version has copies of its own of those spans of memory that versions write to, if nobody asked for it
    before it had made them. An older kernel (before 5.14) makes none.
    """

    def __init__(self, spans, on_child, *others):
        pair = _socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours, theirs = [socket.socket(fileno=s.detach()) for s in pair]
        self.pid = os.fork()  # 0 in the version
        if self.pid:
            theirs.close()
            return
        fds = []
        try:
            self.ours.close()
            close(*others)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setpgid(0, 0)
            LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # kept when it executes the codeserver's binary
            parent = os.getpid()
            go, going = os.pipe()
            version = os.fork()
            os.close(go if version else going)
            if version:
                end_with(version)
            else:
                die_with_parent()
                signal.signal(signal.SIGCHLD, on_child)
                copy(spans, theirs)
            kind, fds, _, _ = socket.recv_fds(theirs, 1, 8)
            if not kind:
                os._exit(0)  # the zygote is gone
            theirs.close()
            if version:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            owns, runs = {FORK: (become_shim, start), SANDBOX: (keep, start_sandboxed)}[kind]
            if version:
                owns(version, *fds)
            self.request = runs(parent, go, *fds)
            os.close(go)
        except BaseException as err:
            os.write(fds[-1] if fds else 2, ("codeserver: the zygote cannot fork: %s\n" % err).encode())
            os._exit(125)

    def tell(self, kind, fds):
        """Tells what they are to run; each of the two takes one of the messages. Returns False if they have ended."""
        with self.ours:
            try:
                for _ in range(2):
                    socket.send_fds(self.ours, [kind], fds)
            except OSError:
                return False
        return True


PIECE = 1 << 20


def copy(spans, until):
    """Makes copies of spans of memory that are this process's own, until it is told something: who waits does not wait for the rest."""
    told = select.poll()
    told.register(until, select.POLLIN)
    for at, length in spans:
        for start in range(at, at + length, PIECE):
            if told.poll(0):
                return
            LIBC.madvise(start, min(PIECE, at + length - start), MADV_POPULATE_WRITE)


FORK, SANDBOX = b"f", b"s"  # with a shim for a parent, or with a keeper and in a sandbox; see package sandbox


def read_request(fd):
    """Reads a file that others have open, too: where they are in it is the same for all."""
    request = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    os.close(fd)
    return request


def become_shim(version, request_fd, lifeline, status, out):
    """Executes the codeserver's binary, which takes the version over."""
    request = read_request(request_fd)
    # They came after the request's own descriptor, so none of them is among those that are overwritten.
    for fd, to in ((lifeline, 3), (status, 4), (out, 1), (out, 2)):
        os.dup2(fd, to, inheritable=True)
    os.execve(request["shim"], [request["shim"], request["shim_argument"], str(version), str(request["grace"])],
              dict(v.split("=", 1) for v in request["shim_env"]))


def start(shim, go, request_fd, lifeline, status, out):
    request = read_request(request_fd)
    become_version(out)
    confine(**request["confine"])
    os.read(go, 1)  # ends when the shim executes the codeserver's binary, or has died
    close(lifeline, status, out)
    if os.getppid() != shim:
        os._exit(125)
    return request


def start_sandboxed(keeper, go, request_fd, admission, link, out):
    become_version(out)
    enter_sandbox(admission)
    die_with_parent()  # the kernel forgets that when the user changes
    if os.getppid() != keeper:
        os._exit(125)
    request = read_request(request_fd)  # as the version's user: nobody else has what is in it in his memory
    close(admission, link, out)
    confine(None, request["open_files"])  # the codeserver has seen to the cgroup
    return request


def close(*fds):
    for fd in fds:
        os.close(fd)


def keep(version, request_fd, admission, link, out):
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
                try:
                    listener.send(json.dumps({"Status": status}).encode())
                except OSError:
                    os._exit(0)  # nobody listens any more
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
MADV_POPULATE_WRITE = 23
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
RLIMIT_NOFILE = 7


def end_with(version):
    """Has this process end when the version does. The zygote sees that the pair is gone, and forks another one."""
    signal.signal(signal.SIGCHLD, lambda signum, frame: os._exit(0))
    if os.waitpid(version, os.WNOHANG)[0]:  # there was no handler yet
        os._exit(0)


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def become_version(out):
    os.setpgid(0, 0)
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


AHEAD = 100  # milliseconds without a request, after which a pair is forked for the next one: a start has the processor


def serve(control):
    """Answers requests; returns in a forked version, with what it is to run."""
    pairs = set()
    ahead, imported, spans, on_child = None, False, (), signal.SIG_DFL
    requests = select.poll()
    requests.register(control, select.POLLIN)

    def collect(signum, frame):  # who started a shim learns from its status pipe that it has ended
        for pid in list(pairs):
            try:
                ended = os.waitpid(pid, os.WNOHANG)[0]
            except ChildProcessError:  # a signal came meanwhile
                ended = pid
            if ended:
                pairs.discard(pid)

    def fork(*fds):
        with warnings.catch_warnings():  # Python 3.12 and later warn of a fork where there are threads
            warnings.simplefilter("ignore", DeprecationWarning)
            pair = Pair(spans, on_child, CONTROL, *fds)
        if pair.pid:
            pairs.add(pair.pid)
            collect(None, None)
        return pair

    while True:
        if imported and ahead is None and not requests.poll(AHEAD):
            ahead = fork()
            if not ahead.pid:
                return ahead.request
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
            on_child = signal.signal(signal.SIGCHLD, collect) or signal.SIG_DFL  # what modules have set is the versions'
            imported = True
            control.send(b".")
            continue
        if kind == b"c":
            with open(fds[0], "rb") as f:
                spans = json.load(f)
            if ahead is not None:
                ahead.ours.close()  # it has not copied them
                ahead = None
            control.send(b".")
            continue
        pair, ahead = ahead, None
        if pair is None or not pair.tell(kind, fds):
            pair = fork(*fds)
            if not pair.pid:
                return pair.request
            pair.tell(kind, fds)
        close(*fds)
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
    LIBC.madvise.argtypes = ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int
    os.set_inheritable(CONTROL, False)
    os.closerange(CONTROL + 1, 1 << 16)  # what the codeserver was started with
    control = socket.socket(fileno=CONTROL)
    request = serve(control)
    control.detach()  # a pair has closed it
    set_title(request["args"])
    os.chdir(request["dir"])
    set_environment(request["env"])
    reseed()
    renew()
    set_path(request["args"], [p for p in request["env"].get("PYTHONPATH", "").split(os.pathsep) if p])
    if request["learn"]:
        record(request["learn"])
    run(request["args"])


main()
