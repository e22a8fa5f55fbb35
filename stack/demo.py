"""``make demo``: the tutorial classifier through the whole system, on this machine, in one command.

Starts a stack of its own in ``$STOKER_HOME/demo``, submits over HTTP, follows the job, shows what came out, stops
everything. Exit code 0 only if the job succeeded, a count over the stored predictions gives its accuracy, Flower has
seen its task, and no process is left.
"""

import base64
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
import psutil
from rich.console import Console

from stoker.client.client import Client
from stoker.client.job import Job
from stoker.client.records import Prediction, Result
from stoker.client.summary import print_result
from stoker.errors import InvalidInput, StackError, StokerError
from stoker.settings import Settings, load
from stoker.stack.demo_data import DemoData, choose
from stoker.stack.demo_picture import draw, pick
from stoker.stack.demo_progress import Bar, follow
from stoker.stack.stack import Stack

PICTURE = Path("predictions.png")
FLOWER_SECONDS = 15.0  # Flower learns of a task by events
CLEAN_SECONDS = 5.0


def run(settings: Settings, console: Console) -> None:
    """Run the demo.

    Raises StokerError: something did not come out as promised.
    """
    data = choose(settings, Bar(console, "CIFAR-10"))
    console.print(f"Data: {data.why}")
    with Stack.start(settings, console.print) as stack:
        family = psutil.Process().children(recursive=True)
        with Client(stack.url, stack.token) as client:
            _train(client, stack, data, console)
        family += psutil.Process().children(recursive=True)
    _check_nothing_left(family)
    console.print("Everything is stopped, no process is left.")


def _train(client: Client, stack: Stack, data: DemoData, console: Console) -> None:
    if data.upload is not None:
        client.upload_dataset(data.name, data.upload, progress=Bar(console, "Upload"))
    began = time.monotonic()
    job = client.train(name="demo", dataset=data.name, model="tutorial-cnn", epochs=data.epochs, batch_size=4)
    console.print(
        f"Job {job.number} is {job.document['state']}: tutorial-cnn on {data.name}, {data.epochs} epochs, batches of 4"
    )
    follow(job, console, stack.tend)
    result = job.result()
    console.print(
        f"Finished Training after {time.monotonic() - began:.1f} s ({result.train_seconds:.1f} s of it training)"
    )
    print_result(result)
    predictions = list(job.predictions())
    _check_count(predictions, result)
    console.print(f"A count over the {len(predictions)} stored predictions gives the same accuracy.")
    _draw(job, stack, predictions, console)
    task = _check_flower(job, stack)
    console.print(f"Job:    {job.url}")
    console.print(f"Flower: {stack.flower_url}/task/{task}")


def _check_count(predictions: list[Prediction], result: Result) -> None:
    right = sum(prediction.label == prediction.predicted for prediction in predictions)
    if len(predictions) != result.test_images or abs(right / len(predictions) - (result.accuracy or 0)) > 1e-9:
        raise StackError(
            f"{right} of {len(predictions)} stored predictions are right, but the result says "
            f"{result.accuracy} of {result.test_images}"
        )


def _draw(job: Job, stack: Stack, predictions: list[Prediction], console: Console) -> None:
    headers = {"Authorization": f"Bearer {stack.token}"}
    with httpx.Client(base_url=f"{stack.url}/api/v1/jobs/{job.number}/", headers=headers) as http:

        def image_of(index: int) -> bytes:
            return http.get(f"predictions/{index}/image").raise_for_status().content

        draw(PICTURE, f"{job.name}, job {job.number}: green is right, red is wrong", pick(predictions), image_of)
    console.print(f"Picture of predictions: {PICTURE.absolute()}")


def _check_flower(job: Job, stack: Stack) -> str:
    """The id of the job's task, once Flower shows it as done.

    Raises StackError: it does not within 15 seconds.
    """
    task = str(list(job.attempts())[-1]["id"])
    header = {"Authorization": "Basic " + base64.b64encode(stack.flower_auth.encode()).decode()}
    deadline, seen = time.monotonic() + FLOWER_SECONDS, "nothing"
    with httpx.Client(base_url=stack.flower_url, headers=header) as http:
        while time.monotonic() < deadline:
            answer = http.get(f"/api/task/info/{task}")
            if answer.status_code == httpx.codes.OK:
                seen = str(json.loads(answer.content)["state"])
                if seen == "SUCCESS":
                    return task
            time.sleep(0.1)
    raise StackError(f"Flower should show task {task} of job {job.number} as SUCCESS, it shows {seen}")


def _check_nothing_left(family: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(set(family) | set(psutil.Process().children(recursive=True)), CLEAN_SECONDS)
    if alive:
        raise StackError("still running: " + ", ".join(f"{process.pid} {process.name()}" for process in alive))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signature of a handler
    raise KeyboardInterrupt


def demo_settings(settings: Settings) -> Settings:
    """A stack that shares nothing with one that runs already: own home, own stores, free ports."""
    return replace(
        settings,
        home=settings.home / "demo",
        database_url=None,
        broker_url=None,
        api_host="127.0.0.1",
        api_port=0,
        flower_port=0,
        flower_url=None,
        flower_basic_auth=None,
    )


def main() -> int:
    """Run the demo; the exit code."""
    console = Console(highlight=False, markup=False, soft_wrap=True, emoji=False)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        run(demo_settings(load(os.environ)), console)
    except InvalidInput as error:
        console.print(f"Error: {error}")
        return 2
    except (StokerError, httpx.HTTPError) as error:
        console.print(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; everything is stopped.")
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
