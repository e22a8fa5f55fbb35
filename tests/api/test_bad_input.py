"""What cannot be accepted gets one clear sentence with the field and how to fix it, and never a 500."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session, sessionmaker

from tests.support.finished_job import FakeWorker, submit

JOBS = "/api/v1/jobs"
JSON = {"Content-Type": "application/json"}
GOOD: dict[str, Any] = {"train": {"dataset": "digits"}}

BODIES: dict[bytes, str] = {
    b"": "body: is empty",
    b"null": "body: is null",
    b"[]": "body: is an array",
    b'"x"': "body: is a string",
    b"7": "body: is a number",
    b'{"train":': "is not JSON",
    b'{"train":{"dataset":"digits"}} x': "is not JSON",
    b'{"train":{"dataset":"\xff"}}': "is not valid UTF-8",
    b'{"train":{"dataset":"digits"},"prority":"low"}': "prority: no such field; did you mean priority?",
    b'{"train":{"dataset":"digits"},"name":"\\ud800"}': "name: holds the character U+D800",
    b'{"train":{"dataset":"digits"},"name":"a\\u0000b"}': "name: holds the character U+0000",
    b'{"train":{"dataset":"digits","validation":NaN}}': "NaN is not a JSON number",
    b'{"train":{"dataset":"digits","validation":-Infinity}}': "-Infinity is not a JSON number",
    b'{"train":{"dataset":"digits","validation":1e999}}': "is not finite",
    b'{"train":{"dataset":"digits","seed":9223372036854775808}}': "does not fit in 64 bits",
    b'{"train":{"dataset":"digits","seed":1' + b"0" * 400 + b"}}": "does not fit in 64 bits",
    b'{"train":{"dataset":"digits","seed":' + b"7" * 5000 + b"}}": "does not fit in 64 bits",
    b'{"train":{"dataset":"digits","epochs":true}}': "train.epochs: true is not accepted",
    b'{"train":{"dataset":"digits","epochs":"7"}}': "train.epochs: '7' is not accepted",
    b'{"train":{"dataset":"digits","epochs":1e3}}': "train.epochs: 1000.0 is not accepted",
    b'{"train":{"dataset":"digits","epochs":-1}}': "train.epochs: -1",
    b'{"train":{"dataset":"digits","epochs":0}}': "train.epochs: 0",
    b'{"train":{"dataset":"digits","epochs":1000000000}}': "train.epochs: 1000000000",
    b'{"train":{"dataset":"digits","batch_size":3.5}}': "train.batch_size: 3.5",
    b'{"train":{"dataset":"digits","batch_size":0}}': "train.batch_size: 0",
    b'{"train":{"dataset":"digits","optimizer":{"lr":0}}}': "train.optimizer.lr: 0",
    b'{"train":{"dataset":"digits","optimizer":{"lr":1e-400}}}': "train.optimizer.lr: 0.0",
    b'{"train":{"dataset":"digits","epochs":2,"epochs":3}}': "epochs: is given twice",
    b'{"train":{"dataset":"digits","model":"tutorial-cn"}}': "nearest: tutorial-cnn",
    b'{"train":{"dataset":"digit"}}': "nearest: digits",
    b'{"train":{"dataset":"../../etc/passwd"}}': "is not a name",
    b'{"train":{"dataset":"digits"},"name":""}': "has 0 characters",
    b'{"train":{"dataset":"digits"},"name":"   "}': "not only blanks",
    b'{"train":{"dataset":"digits"},"name":"' + b"x" * 256 + b'"}': "has 256 characters",
    b'{"train":{"dataset":"digits"},"name":"a\\u001b[31m"}': "unprintable character U+001B",
    b'{"train":{"dataset":"digits"},"name":"a\\r\\nb"}': "unprintable character U+000D",
    b'{"train":{"dataset":"digits"},"name":"a\\u202eb"}': "unprintable character U+202E",
    b'{"train":{"dataset":"digits"},"tags":["\\udb40\\udc41"]}': "unprintable character U+E0041",
    b'{"train":{"dataset":"digits"},"__proto__":{}}': "__proto__: no such field",
    b'{"train":{"dataset":"digits"},"constructor":1}': "constructor: no such field",
    b'{"train":{"dataset":"digits"},"tags":' + json.dumps([f"t{n}" for n in range(10_000)]).encode() + b"}": "tags",
    b'{"train":{"dataset":"digits"},"tags":["' + b"x" * 900_000 + b'"]}': "has 900000 characters",
    b"[" * 100_000: "nested",
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000: "nested more than 32 levels deep",
    b'{"train":{"dataset":"digits"},"resources":{"device":"cuda:9"}}': "resources.device",
    b'{"train":{"dataset":"digits"},"resources":{"gpus":-1}}': "resources.gpus",
    b'{"train":{"dataset":"digits"},"resources":{"cpus":0}}': "resources.cpus",
    b'{"train":{"dataset":"digits"},"resources":{"memory":"10XB"}}': "memory",
    b'{"train":{"dataset":"digits"},"time_limit":0}': "duration",
    b'{"train":{"dataset":"digits"},"time_limit":1000000000}': "duration",
    b'{"train":{"dataset":"digits"},"kind":"mine"}': "kind",
    b'{"train":{"dataset":"digits"},"version":2}': "version",
    b'{"train":{"dataset":"digits"},"state":"succeeded"}': "state: no such field",
    b'{"train":{"dataset":"digits"},"after":[0]}': "after",
}


def test_bodies_that_cannot_be_accepted(client: TestClient) -> None:
    for body, sentence in BODIES.items():
        answer = client.post(JOBS, content=body, headers=JSON)
        problem = answer.json()
        assert answer.status_code == 422, (body[:80], problem)
        assert answer.headers["content-type"] == "application/problem+json"
        assert sentence in problem["detail"], (body[:80], problem["detail"][:300])
        assert len(problem["detail"]) < 1000, body[:80]
        assert {"field", "problem", "fix"} == set(problem["errors"][0])
    assert client.get(JOBS).json()["items"] == []


ODD = "a\\b\n'\"ü"


@pytest.mark.parametrize(
    "document",
    [
        {"train": {"dataset": ODD}},
        {"train": {"dataset": "digits", "model": ODD}},
        {"train": {"dataset": "digits"}, "time_limit": ODD},
        {"train": {"dataset": "digits"}, "priority": ODD},
        {"train": {"dataset": "digits"}, "notify": [ODD]},
        {"script": {"code": ODD, "command": ["a"]}},
        {"script": {"code": f"sha256:{'0' * 64}", "command": ["a"]}, "secrets": [ODD]},
        {"script": {"code": f"sha256:{'0' * 64}", "command": ["a"]}, "environment": {"variables": {ODD: "x"}}},
        {"notebook": {"code": f"sha256:{'0' * 64}", "path": ODD}},
        {"notebook": {"code": f"sha256:{'0' * 64}", "path": "a.ipynb", "parameters": {ODD: 1}}},
    ],
)
def test_what_is_odd_in_a_value_is_spelled_out_once(client: TestClient, document: dict[str, Any]) -> None:
    detail = client.post(JOBS, json=document).json()["detail"]
    assert r"""'a\b\u000a'"ü'""" in detail


def test_several_faults_are_told_at_once(client: TestClient) -> None:
    body = {"train": {"dataset": "digits", "epochs": 0, "batchsize": 4}, "prio": 1}
    errors = client.post(JOBS, json=body).json()["errors"]
    assert {error["field"] for error in errors} == {"train.epochs", "train.batchsize", "prio"}


def test_a_parent_that_does_not_exist(client: TestClient) -> None:
    answer = client.post(JOBS, json=GOOD | {"after": [99]})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_what_no_worker_could_run_is_refused(client: TestClient, factory: sessionmaker[Session]) -> None:
    FakeWorker.start(factory)
    answer = client.post(JOBS, json=GOOD | {"resources": {"cpus": 64}})
    assert (answer.status_code, answer.json()["code"]) == (422, "unrunnable")
    assert answer.json()["errors"][0]["field"] == "resources.cpus"


def test_bodies_too_large_or_of_another_kind(client: TestClient) -> None:
    large = client.post(JOBS, content=b" " * 1_000_001, headers=JSON)
    assert (large.status_code, large.json()["code"]) == (413, "too_large")
    good = json.dumps(GOOD)
    packed = client.post(JOBS, content=good, headers=JSON | {"Content-Encoding": "gzip"})
    assert packed.status_code == 415
    for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/xml"):
        assert client.post(JOBS, content=good, headers={"Content-Type": kind}).status_code == 415, kind
    assert (
        client.post(JOBS, content=good, headers={"Content-Type": "Application/JSON; charset=utf-8"}).status_code == 201
    )


NO_NUMBERS = [
    "0", "-1", "01", "0x10", "1_000", "1.0", "1e3", "٣", "１", "+1", "%201", "1%20", "abc", "{1}", "9" * 19, "9" * 5000,
    "%00", "%2e%2e%2f", "%252e", "%c0%ae", "1;--", "null",
]  # fmt: skip


def test_no_number_is_no_job(client: TestClient, factory: sessionmaker[Session]) -> None:
    assert submit(factory) == 1
    for text in NO_NUMBERS:
        for path in (f"{JOBS}/{text}", f"{JOBS}/{text}/metrics", f"{JOBS}/1/predictions/{text}/image"):
            answer = client.get(path)
            assert answer.status_code == 404, path
            assert len(answer.text) < 1000
            assert answer.headers["content-type"] == "application/problem+json"
        assert client.post(f"{JOBS}/{text}/cancel").status_code == 404, text
        assert client.get(f"/api/v1/checkpoints/{text}/content").status_code == 404, text


QUERIES = [
    "limit=-1", "limit=0", "limit=1000000000000", "limit=501", "limit=1_0", "limit=1.0", "limit=٣", "limit=",
    "limit=+1", "limit=1&limit=2", "lmit=5", "offset=3", "order=asc;--", "sort=password", "cursor=x", "cursor=job-x",
    "cursor=worker-1",
    "cursor=job-99999999999999999999", "state=runing", "state=queued,running", "name=%00", "tag=a%00b", "token=x",
]  # fmt: skip


def test_queries_that_cannot_be_accepted(client: TestClient) -> None:
    for query in QUERIES:
        answer = client.get(f"{JOBS}?{query}")
        assert answer.status_code == 422, query
        assert answer.json()["errors"][0]["field"] in query, answer.json()
    assert "did you mean limit?" in client.get(f"{JOBS}?lmit=5").json()["detail"]


@pytest.mark.parametrize("text", ["%25", "_", "%5C", "(a%2B)%2B$", "%27%20OR%201=1", "%ff"])
def test_texts_are_compared_literally(client: TestClient, factory: sessionmaker[Session], text: str) -> None:
    submit(factory)
    for name in ("name", "tag", "owner", "team"):
        assert client.get(f"{JOBS}?{name}={text}").json()["items"] == []


def test_other_parameters(client: TestClient, factory: sessionmaker[Session]) -> None:
    number = submit(factory)
    for query in ("after=-1", "after=x", "tail=0", "tail=1_0", "tail=5&after=1", "limit=0"):
        assert client.get(f"{JOBS}/{number}/logs?{query}").status_code == 422, query
    for query in ("wrong=1", "wrong=yes", "wrong=True", "wrong="):
        assert client.get(f"{JOBS}/{number}/predictions?{query}").status_code == 422, query
    answer = client.get(f"{JOBS}/{number}/stream", headers={"Last-Event-ID": "1;2"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Last-Event-ID")


def test_wrong_methods_and_addresses(client: TestClient) -> None:
    for method, path, allowed in (
        ("PUT", JOBS, {"GET", "POST"}),
        ("HEAD", JOBS, {"GET", "POST"}),
        ("OPTIONS", JOBS, {"GET", "POST"}),
        ("DELETE", f"{JOBS}/1", {"GET", "PATCH"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
    ):
        answer = client.request(method, path)
        assert answer.status_code == 405, (method, path)
        assert set(answer.headers["allow"].replace(" ", "").split(",")) == allowed
    for path in (
        "/",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v1/jobs/",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/api/v2/jobs",
        "//",
    ):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["digits", "1h", "4GB", "fast"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = [
    "version",
    "name",
    "kind",
    "train",
    "resources",
    "priority",
    "max_retries",
    "time_limit",
    "checkpoint",
    "tags",
    "after",
]
TRAIN = [
    "dataset",
    "model",
    "epochs",
    "batch_size",
    "optimizer",
    "schedule",
    "augment",
    "precision",
    "validation",
    "seed",
]


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(
    top=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3),
    train=st.dictionaries(st.sampled_from(TRAIN), VALUES, max_size=3),
)
def test_no_body_breaks_the_server(client: TestClient, top: dict[str, Any], train: dict[str, Any]) -> None:
    document = {"train": {"dataset": "digits"} | train} | top
    answer = client.post(JOBS, content=json.dumps(document).encode("utf-8", "surrogatepass"), headers=JSON)
    assert answer.status_code in {201, 404, 422}, answer.text


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=200))
def test_no_bytes_break_the_server(client: TestClient, body: bytes) -> None:
    assert client.post(JOBS, content=body, headers=JSON).status_code == 422
