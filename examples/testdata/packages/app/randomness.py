"""Numbers that no two processes may share."""

import hashlib
import multiprocessing
import os
import random
import secrets
import ssl
import sys
import tempfile
import uuid


def digest(x):
    return hashlib.sha256(repr(x).encode()).hexdigest()[:16]


def report():
    found = {
        "random": random.random(), "shuffle": random.sample(range(10**9), 3), "system": random.SystemRandom().random(), "secrets": secrets.token_hex(),
        "urandom": os.urandom(8).hex(), "ssl": ssl.RAND_bytes(8).hex(), "uuid4": str(uuid.uuid4()), "uuid1": str(uuid.uuid1()),
        "tempfile": os.path.basename(tempfile.mktemp()), "fresh": random.Random().random(),
        "authkey": digest(bytes(multiprocessing.current_process().authkey)),
    }
    numpy = sys.modules.get("numpy")
    if numpy:
        found["numpy"] = float(numpy.random.rand())
        found["numpy.default_rng"] = float(numpy.random.default_rng().random())
        found["numpy.RandomState"] = float(numpy.random.RandomState().rand())
    if "pandas" in sys.modules:
        found["pandas"] = sys.modules["pandas"].Series(range(10**6)).sample(3).tolist()
    if "sklearn" in sys.modules:
        from sklearn.utils import shuffle

        found["sklearn"] = [int(i) for i in shuffle(list(range(10**6)))[:3]]
    if "duckdb" in sys.modules:
        found["duckdb"] = sys.modules["duckdb"].connect().execute("select random(), uuid()").fetchone()
    if "pyarrow" in sys.modules:
        import pyarrow.compute

        found["pyarrow"] = pyarrow.compute.random(1).to_pylist()
    if "celery" in sys.modules:
        import celery.utils

        found["celery"] = celery.utils.uuid()
    if "dagster" in sys.modules:
        from dagster._core.utils import make_new_run_id

        found["dagster"] = make_new_run_id()
    # Generators that packages made for themselves when they were imported, and left to the system to seed.
    for module, names in list(sys.modules.items()):
        for name, value in list(vars(names).items()) if hasattr(names, "__dict__") else ():
            if type(value) is random.Random and value is not random._inst:
                found["%s.%s" % (module, name)] = digest(value.getstate())
    return found
