"""What a job has reported, as a client reads it."""

import io
import json
import os
import struct
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.numpy import load
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs.attempts import Ending
from stoker.jobs.failures import Failure
from stoker.jobs.lifecycle import Outcome
from stoker.settings import Settings
from tests.support.finished_job import (
    ACCURACY,
    CLASSES,
    HEIGHT,
    ROWS,
    TILE,
    WIDTH,
    FakeWorker,
    checkpoint_file,
    finished,
    submit,
    tile_bytes,
)

Get = Callable[[str], object]


@pytest.fixture
def worker(factory: sessionmaker[Session]) -> FakeWorker:
    return FakeWorker.start(factory)


@pytest.fixture
def job(client: TestClient, factory: sessionmaker[Session], worker: FakeWorker) -> str:
    """The address of a job that succeeded."""
    return f"/api/v1/jobs/{finished(factory, worker)}"


def test_metrics_and_logs(client: TestClient, job: str) -> None:
    loss = {"steps": [1, 2], "values": [2.5, 1.5], "downsampled": False}
    assert client.get(f"{job}/metrics").json() == {"metrics": {"loss": loss}}
    assert client.get(f"{job}/metrics?key=loss&key=none").json() == {"metrics": {"loss": loss}}
    assert client.get(f"{job}/metrics?key=none").json() == {"metrics": {}}
    pieces = client.get(f"{job}/logs").json()
    assert [(piece["attempt"], piece["text"]) for piece in pieces["items"]] == [(1, "epoch 1\nepoch 2\n")]
    assert client.get(f"{job}/logs?after={pieces['items'][0]['id']}").json() == {"items": [], "next": None}
    assert client.get(f"{job}/logs?tail=1").json()["items"][0]["text"] == "epoch 2\n"


def test_a_log_pages_by_after(client: TestClient, factory: sessionmaker[Session], worker: FakeWorker) -> None:
    number = submit(factory)
    claimed = worker.claim()
    for line in "abcde":
        worker.batch(claimed, log=line)
    seen = ""
    after: str | None = "0"
    while after is not None:
        page = client.get(f"/api/v1/jobs/{number}/logs?limit=2&after={after}").json()
        seen += "".join(piece["text"] for piece in page["items"])
        after = page["next"]
    assert seen == "abcde"


def test_result(client: TestClient, job: str) -> None:
    result = client.get(f"{job}/result").json()
    checkpoint = client.get(f"{job}/checkpoints").json()["items"][0]
    assert (result["accuracy"], result["classes"], result["checkpoint"]) == (ACCURACY, list(CLASSES), checkpoint["id"])
    assert (checkpoint["step"], checkpoint["latest"], checkpoint["best"], checkpoint["damaged"]) == (
        10,
        True,
        True,
        False,
    )


def test_a_failed_job_has_no_result_and_says_why(
    client: TestClient, factory: sessionmaker[Session], worker: FakeWorker
) -> None:
    path = f"/api/v1/jobs/{submit(factory)}"
    worker.finish(worker.claim(), Ending(Outcome.FAILED, failure=Failure("nan_loss", "the loss was NaN at step 7")))
    answer = client.get(f"{path}/result")
    assert (answer.status_code, answer.json()["detail"]) == (404, "no result of job 1; it is failed")
    failure = client.get(path).json()["failure"]
    assert (failure["class"], failure["evidence"]) == ("nan_loss", "the loss was NaN at step 7")
    assert failure["fix"]


def test_a_count_over_the_predictions_is_the_accuracy(client: TestClient, job: str) -> None:
    page = client.get(f"{job}/predictions").json()
    assert page["count"] == page["matching"] == len(page["items"]) == len(ROWS)
    assert page["accuracy"] == ACCURACY == sum(item["correct"] for item in page["items"]) / len(ROWS)
    assert page["classes"] == list(CLASSES)
    assert page["items"][1] == {"index": 1, "label": "cat", "predicted": "dog", "probability": 0.5, "correct": False}


def test_predictions_are_filtered_and_paged(client: TestClient, job: str) -> None:
    def indices(query: str) -> list[int]:
        return [item["index"] for item in client.get(f"{job}/predictions?{query}").json()["items"]]

    assert indices("wrong=true") == [1, 4]
    assert indices("wrong=false") == [0, 2, 3, 5]
    assert indices("label=dog") == [2, 5]
    assert indices("predicted=cat") == [0, 4]
    assert indices("label=cat&wrong=true&predicted=dog") == [1]
    first = client.get(f"{job}/predictions?wrong=false&limit=3").json()
    assert (first["matching"], first["accuracy"]) == (4, ACCURACY)
    assert indices(f"wrong=false&limit=3&cursor={first['next']}") == [5]
    wrong = client.get(f"{job}/predictions?label=catt")
    assert (wrong.status_code, wrong.json()["detail"]) == (
        422,
        "label: 'catt' is not a class of this job; nearest: cat",
    )


def test_an_image_is_the_raw_tile(client: TestClient, job: str) -> None:
    strip = tile_bytes(len(ROWS))
    for index in (0, len(ROWS) - 1):
        answer = client.get(f"{job}/predictions/{index}/image")
        assert answer.headers["content-type"] == "image/png"
        assert "max-age" in answer.headers["cache-control"]
        image = Image.open(io.BytesIO(answer.content))
        assert (image.size, image.mode) == ((WIDTH, HEIGHT), "RGB")
        assert image.tobytes() == strip[index * TILE : (index + 1) * TILE]
    assert client.get(f"{job}/predictions/{len(ROWS)}/image").status_code == 404


def test_a_damaged_image_is_not_shown(client: TestClient, job: str, factory: sessionmaker[Session]) -> None:
    with factory() as session:
        session.execute(text("UPDATE chunks SET data = set_byte(data, 0, 255 - get_byte(data, 0))"))
        session.commit()
    answer = client.get(f"{job}/predictions/0/image")
    assert (answer.status_code, answer.json()["code"]) == (500, "data_damaged")


def test_weights_are_downloaded_without_the_rest(client: TestClient, job: str) -> None:
    address = f"/api/v1/checkpoints/{client.get(f'{job}/checkpoints').json()['items'][0]['id']}/content"
    answer = client.get(address)
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == 'attachment; filename="job-1-step-10.safetensors"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    (length,) = struct.unpack("<Q", answer.content[:8])
    assert b'"weight"' in answer.content[8 : 8 + length]
    assert b"optimizer" not in answer.content
    assert struct.unpack("<2f", answer.content[8 + length :]) == (1.5, -2.0)
    whole = client.get(f"{address}?format=checkpoint")
    assert whole.content == checkpoint_file()
    assert client.get(f"{address}?format=pickle").status_code == 422


def test_large_weights_are_sent_while_they_are_read(
    client: TestClient, factory: sessionmaker[Session], worker: FakeWorker, settings: Settings
) -> None:
    weights = {name: os.urandom(size) for name, size in (("a", 3_000_000), ("b", 5), ("c", 0), ("d", 1_500_000))}
    others = {"optimizer.a": os.urandom(2_000_000)}
    tensors = {"model.a": weights["a"], **others} | {f"model.{name}": weights[name] for name in "bcd"}
    entries, at = {}, 0
    for name, content in tensors.items():
        entries[name] = {"dtype": "U8", "shape": [len(content)], "data_offsets": [at, at + len(content)]}
        at += len(content)
    header = json.dumps(entries).encode()
    whole = struct.pack("<Q", len(header)) + header + b"".join(tensors.values())
    submit(factory)
    made = worker.checkpoint(worker.claim(), whole, 1)
    with client.stream("GET", f"/api/v1/checkpoints/{made}/content") as answer:
        assert answer.status_code == 200
        got = answer.read()
    assert int(answer.headers["content-length"]) == len(got)
    assert {name: bytes(array.tobytes()) for name, array in load(got).items()} == weights
    assert not (settings.home / "downloads").exists()


def test_weights_that_are_damaged_are_never_sent_whole(
    client: TestClient, job: str, factory: sessionmaker[Session]
) -> None:
    address = f"/api/v1/checkpoints/{client.get(f'{job}/checkpoints').json()['items'][0]['id']}/content"
    with factory() as session:
        session.execute(text("UPDATE chunks SET data = set_byte(data, 0, 255 - get_byte(data, 0))"))
        session.commit()
    assert client.get(address).json()["code"] == "data_damaged"


def test_what_is_no_checkpoint_is_named(client: TestClient, factory: sessionmaker[Session], worker: FakeWorker) -> None:
    submit(factory)
    claimed = worker.claim()
    bad = worker.checkpoint(claimed, b"not a checkpoint", 1)
    answer = client.get(f"/api/v1/checkpoints/{bad}/content")
    assert (answer.status_code, answer.json()["detail"]) == (
        500,
        f"checkpoint {bad} is damaged: its bytes do not match their SHA-256",
    )
    worker.checkpoint(claimed, checkpoint_file(), 2)
    gone = client.get(f"/api/v1/checkpoints/{bad}/content")
    assert (gone.status_code, gone.json()["detail"]) == (404, f"no checkpoint {bad}; its bytes are not kept any more")
