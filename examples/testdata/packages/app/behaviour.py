"""What a process can do."""

import asyncio
import concurrent.futures
import importlib
import importlib.resources
import inspect
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback

from app import version


def square(n):
    return n * n


def who(_):
    main = sys.modules["__main__"]
    return [multiprocessing.current_process().name.split("-")[0], getattr(main, "__file__", None) and os.path.basename(main.__file__), sys.argv, os.getcwd() == sys.path[0],
            signal.getsignal(signal.SIGINT) is signal.default_int_handler, threading.active_count(), sorted(m for m in sys.modules if m.startswith("app"))]


def start_method(method):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        found = [pool.map(square, [1, 2, 3]), pool.map(who, [0])[0]]
        pool.close()
        pool.join()  # else they get a SIGTERM, whose handler raises wherever they are, such as in what runs after a fork
    q = context.Queue()
    p = context.Process(target=q.put, args=("said",))
    p.start()
    found.append(q.get(timeout=60))
    p.join(60)
    found.append(p.exitcode)
    with context.Manager() as manager:
        d = manager.dict()
        d["a"] = 1
        found.append(dict(d))
    if method == "forkserver":
        from multiprocessing import forkserver

        forkserver._forkserver._stop()
    return found


def signals():
    got = []
    for s in (signal.SIGUSR1, signal.SIGALRM, signal.SIGCHLD, signal.SIGHUP):
        old = signal.signal(s, lambda n, f: got.append(n))
        os.kill(os.getpid(), s)
        time.sleep(0.01)
        signal.signal(s, old)
    try:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.01)
    except KeyboardInterrupt:
        got.append("KeyboardInterrupt")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)  # others do not block it
    got.append(signal.sigwait([signal.SIGUSR2]))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    r, w = os.pipe()
    os.close(r)
    try:
        os.write(w, b"x")
    except BrokenPipeError:
        got.append("BrokenPipeError")
    os.close(w)
    return got


async def loop():
    got = []
    running = asyncio.get_running_loop()
    done = asyncio.Event()
    running.add_signal_handler(signal.SIGUSR1, done.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.wait_for(done.wait(), 60)
    running.remove_signal_handler(signal.SIGUSR1)
    p = await asyncio.create_subprocess_exec("/bin/echo", "said", stdout=asyncio.subprocess.PIPE)
    got.append((await p.communicate())[0].decode())
    got.append(await running.run_in_executor(None, square, 4))
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    r, w = await asyncio.open_connection(*server.sockets[0].getsockname())
    got.append((await r.read()).decode())
    w.close()
    server.close()
    got.append(type(running).__name__)
    return got


def child_process():
    code = """import os, signal, sys
print([l for l in open("/proc/self/status") if l.startswith(("SigBlk", "SigIgn", "Umask"))], sorted(os.listdir("/proc/self/fd")),
      sorted(os.environ), os.getcwd() == %r, signal.getsignal(signal.SIGINT))"""
    return subprocess.run([sys.executable, "-c", code % os.getcwd()], capture_output=True, text=True, close_fds=False).stdout.replace(str(os.environ["PORT"]), "PORT")


def forked():
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(w, b"%d" % threading.active_count())
        os._exit(7)
    os.close(w)
    said = os.read(r, 10).decode()
    os.close(r)
    return [said, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]


def raises():
    try:
        square(None)
    except TypeError:
        return traceback.format_exc().split("\n")[-6:]


def threads():
    local = threading.local()
    local.value = 1
    seen = []

    def run():
        seen.append([getattr(local, "value", None), threading.current_thread().name, threading.main_thread() is threading.current_thread()])

    t = threading.Thread(target=run, name="one")
    t.start()
    t.join()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        seen.append(list(pool.map(square, range(5))))
    return seen


def report():
    before = version.VERSION
    return {
        **{m: start_method(m) for m in ("fork", "spawn", "forkserver")}, "signals": signals(), "asyncio": asyncio.run(loop()), "threads": threads(),
        "child": child_process(), "forked": forked(), "pickle": pickle.loads(pickle.dumps(square))(3), "source": inspect.getsource(square),
        "traceback": raises(), "resource": importlib.resources.files("app").joinpath("__init__.py").read_text(), "reload": importlib.reload(version).VERSION == before,
        "children": len(multiprocessing.active_children()),
    }
