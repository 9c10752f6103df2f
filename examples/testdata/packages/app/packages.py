"""What packages do: each is used as a service would, beyond its import, and says what came out."""

import asyncio
import concurrent.futures
import hashlib
import importlib
import json
import os
import sys
import tempfile

ALL = ["numpy", "pandas", "sklearn", "grpc", "sqlalchemy", "pydantic", "duckdb", "pyarrow", "django", "fastapi", "celery", "dagster"]
MORE = ["sklearn.ensemble", "sklearn.cluster", "sqlalchemy.orm", "pyarrow.parquet", "pyarrow.compute", "django.template", "django.db", "django.http", "celery.app"]
THERE = []
for _name in ALL:
    try:
        importlib.import_module(_name)
        THERE.append(_name)
    except ModuleNotFoundError as _err:
        if _err.name != _name:
            raise
for _name in MORE:
    if _name.split(".")[0] in THERE:
        importlib.import_module(_name)


def numpy():
    import numpy as np

    rng = np.random.default_rng(7)
    a = rng.normal(size=(300, 300))
    np.random.seed(3)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        products = list(pool.map(lambda n: float(np.round(np.trace(a[:, :n] @ a[:n, :]), 6)), [50, 100, 200, 300]))
    return [products, float(np.round(np.linalg.det(a / 20), 9)), np.random.randint(0, 1000, 5).tolist(), np.round(np.abs(np.fft.fft(a[0]))[:3], 9).tolist(),
            np.geterr(), np.get_printoptions()["precision"], str(np.array([1.5, None]).dtype)]


def pandas():
    import pandas as pd

    frame = pd.DataFrame({"who": ["a", "b", "a", "c"], "n": [1, 2, 3, 4], "at": pd.date_range("2026-01-01", periods=4, freq="h", tz="Europe/Berlin")})
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "f.csv")
        frame.to_csv(path, index=False)
        again = pd.read_csv(path, parse_dates=["at"])
    return [frame.groupby("who").n.agg(["sum", "mean"]).to_dict(), frame.merge(frame, on="who").shape, again.dtypes.astype(str).to_dict(),
            frame.pivot_table(index="who", values="n").to_json(), pd.get_option("display.max_rows"), frame.sample(2, random_state=1).n.tolist()]


def sklearn():
    from sklearn import get_config
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    x, y = load_iris(return_X_y=True)
    forest = RandomForestClassifier(20, random_state=0, n_jobs=2).fit(x, y)
    scores = cross_val_score(LogisticRegression(max_iter=500), x, y, cv=3, n_jobs=2)  # in processes
    clusters = KMeans(3, random_state=0, n_init=3).fit(x)  # OpenMP
    return [float(forest.score(x, y)), [round(float(s), 6) for s in scores], round(float(clusters.inertia_), 6), get_config()]


def grpc():
    import grpc

    class Echo(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request[::-1]) if details.method == "/echo/Echo" else None

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel("127.0.0.1:%d" % port) as channel:
        said = channel.unary_unary("/echo/Echo")(b"abc", timeout=60).decode()
        try:
            channel.unary_unary("/echo/None")(b"", timeout=60)
        except grpc.RpcError as err:
            said += " " + str(err.code())
    server.stop(None).wait()
    return [said, asyncio.run(grpc_asyncio())]


async def grpc_asyncio():
    import grpc.aio

    class Echo(grpc.GenericRpcHandler):
        def service(self, details):
            async def answer(request, context):
                return request * 2

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel("127.0.0.1:%d" % port) as channel:
        said = await channel.unary_unary("/echo/Echo")(b"ab", timeout=60)
    await server.stop(None)
    return said.decode()


def sqlalchemy():
    import sqlalchemy as sa
    from sqlalchemy import orm

    class Base(orm.DeclarativeBase):
        pass

    class Order(Base):
        __tablename__ = "orders"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        item: orm.Mapped[str]

    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with orm.Session(engine) as session:
        session.add_all([Order(item=i) for i in ("tea", "milk")])
        session.commit()
        return [session.scalars(sa.select(Order.item).order_by(Order.item)).all(), str(sa.select(Order).where(Order.id > 1)), type(engine.pool).__name__]


def pydantic():
    import pydantic

    class Item(pydantic.BaseModel):
        name: str
        price: float = pydantic.Field(gt=0)
        tags: list[str] = []

    try:
        Item(name="a", price=-1)
    except pydantic.ValidationError as err:
        wrong = [e["type"] for e in err.errors()]
    return [Item.model_validate_json('{"name": "a", "price": "2.5"}').model_dump(), Item.model_json_schema(), wrong]


def duckdb():
    import duckdb

    c = duckdb.connect()
    c.execute("set threads = 2")
    return [c.execute("select sum(i), count(distinct i % 97) from range(1000000) t(i)").fetchall(), c.execute("select current_setting('TimeZone')").fetchall(),
            c.execute("select i % 3 as k, avg(i) from range(1000) t(i) group by k order by k").fetchall()]


def pyarrow():
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pa.table({"k": [i % 7 for i in range(100000)], "v": list(range(100000))})
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "t.parquet")
        pq.write_table(table, path)
        again = pq.read_table(path, use_threads=True)
    grouped = again.group_by("k", use_threads=True).aggregate([("v", "sum")]).sort_by("k")
    return [again.equals(table), grouped.to_pydict(), pc.sum(again["v"]).as_py(), pa.cpu_count(), pa.default_memory_pool().backend_name]


def django():
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(DEBUG=False, SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], USE_TZ=True, TIME_ZONE="UTC",
                           DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
                           INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
                           TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}])
        django.setup()
    from django.contrib.auth.models import Group
    from django.core.management import call_command
    from django.db import connection
    from django.template import engines
    from django.test import Client

    call_command("migrate", verbosity=0)
    Group.objects.get_or_create(name="staff")
    with connection.cursor() as cursor:
        cursor.execute("select name from auth_group")
        rows = cursor.fetchall()
    answer = Client().get("/hello/")
    return [engines["django"].from_string("{{ n|add:1 }}").render({"n": 1}), rows, answer.status_code, answer.content.decode()]


def urlpatterns():
    from django.http import HttpResponse
    from django.urls import path

    return [path("hello/", lambda request: HttpResponse("hello"))]


if "django" in THERE:
    urlpatterns = urlpatterns()


def fastapi():
    import fastapi

    app = fastapi.FastAPI(title="t")

    @app.get("/items/{n}")
    def item(n: int) -> dict[str, int]:  # in a thread
        return {"n": n}

    sent = []

    async def call():
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        await app({"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": "/items/7", "raw_path": b"/items/7",
                   "query_string": b"", "headers": [], "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "root_path": ""}, receive, send)

    asyncio.run(call())
    return [[m.get("status") for m in sent], b"".join(m.get("body", b"") for m in sent).decode(), sorted(app.openapi()["paths"])]


def celery():
    import celery
    from celery.contrib.testing.worker import start_worker

    app = celery.Celery("t", broker="memory://", backend="cache+memory://")

    @app.task
    def double(n):
        return 2 * n

    app.conf.task_always_eager = True
    eager = double.delay(4).get()
    app.conf.task_always_eager = False
    with start_worker(app, perform_ping_check=False, pool="solo"):
        queued = double.delay(5).get(timeout=60)
    import billiard

    with billiard.Pool(2) as pool:
        absolute = pool.map(abs, [-1, -2])
        pool.close()
        pool.join()
    return [eager, queued, absolute]


def dagster():
    import dagster as dg

    @dg.asset
    def orders():
        return [1, 2, 3]

    @dg.asset
    def total(orders):
        return sum(orders)

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([orders, total], instance=instance)
        kinds = sorted({e.event_type_value for e in result.all_events})
    return [result.success, result.output_for_node("total"), kinds]


def report():
    found = {}
    for name in THERE:
        try:
            found[name] = globals()[name]()
        except Exception as err:
            found[name] = "%s: %s" % (type(err).__name__, err)
    if "sklearn" in THERE:
        import threadpoolctl

        found["threadpools"] = sorted([i["user_api"], i["num_threads"], i["version"]] for i in threadpoolctl.threadpool_info())
    return json.loads(json.dumps(found, sort_keys=True, default=repr))
