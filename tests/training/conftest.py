"""One cache with the digits in it for all tests, and one thread, so that trainers can be forked."""

import importlib
from pathlib import Path

import pytest
import torch

from stoker.training import trainer
from stoker.training.config import TrainConfig
from tests.training.children import finish, task

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the digits are prepared."""
    trainer.warm_up()
    importlib.import_module("sklearn.datasets")  # once, and not in each process that prepares the digits
    folder = tmp_path_factory.mktemp("cache")
    messages = finish(task(TrainConfig("digits"), folder, tmp_path_factory.mktemp("prepare"), kind="prepare"))
    assert messages[-1]["type"] == "prepared"
    return folder
