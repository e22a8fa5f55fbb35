"""Devices go by UUID, whatever numbers others give them."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stoker.errors import SettingInvalid
from stoker.workers import host
from stoker.workers.devices import Fake, Nothing, Nvml, cuda_environment, in_bus_order, inventory

# NVML lists the second slot first here; CUDA, by default, would begin with the faster one.
LISTED = [
    {"uuid": "GPU-bbbb", "model": "NVIDIA A10", "memory_bytes": 24 * 10**9, "bus": "00000000:B1:00.0"},
    {"uuid": "GPU-aaaa", "model": "NVIDIA H100", "memory_bytes": 80 * 10**9, "bus": "00000000:3B:00.0"},
]


def test_positions_follow_the_bus_not_the_listing() -> None:
    assert [(device.uuid, device.position) for device in in_bus_order(LISTED)] == [("GPU-aaaa", 0), ("GPU-bbbb", 1)]


def test_a_trainer_is_told_its_devices_by_uuid_in_bus_order() -> None:
    assert cuda_environment(["GPU-bbbb", "GPU-aaaa"]) == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "GPU-bbbb,GPU-aaaa",
    }


def test_a_trainer_without_devices_sees_none() -> None:
    assert cuda_environment([])["CUDA_VISIBLE_DEVICES"] == ""


def test_mig_instances_are_devices_of_their_own() -> None:
    one, two = ({**LISTED[1], "uuid": f"MIG-{name}", "memory_bytes": 10**10} for name in ("1111", "2222"))
    assert [device.uuid for device in in_bus_order([two, one])] == ["MIG-1111", "MIG-2222"]


@pytest.mark.parametrize("uuid", ["0", "all", "GPU-", "GPU-a,GPU-b", "GPU-a b", "MIG-\n"])
def test_what_is_no_uuid_is_refused(uuid: str) -> None:
    with pytest.raises(ValueError, match="is not the UUID"):
        in_bus_order([{**LISTED[0], "uuid": uuid}])


def test_the_setting_chooses_the_inventory(tmp_path: Path) -> None:
    path = tmp_path / "gpus.json"
    path.write_text(json.dumps(LISTED))
    assert inventory("auto") == Nvml()
    assert inventory("none") == Nothing()
    assert inventory(f"fake:{path}") == Fake(path)
    assert [device.model for device in inventory(f"fake:{path}").devices()] == ["NVIDIA H100", "NVIDIA A10"]


@pytest.mark.parametrize("setting", ["cuda", "", "fake:/no/such/file.json"])
def test_a_setting_that_is_wrong_is_refused(setting: str) -> None:
    with pytest.raises(SettingInvalid, match="STOKER_WORKER_DEVICES"):
        inventory(setting).devices()


def test_nvml_is_asked_in_another_process_and_a_machine_without_a_driver_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert Nvml().devices() == ()


def test_the_kind_of_machine_names_all_models_once() -> None:
    found = in_bus_order([*LISTED, {**LISTED[0], "uuid": "GPU-cccc"}])
    assert host.machine("gpu", found, "EPYC (avx2)") == "NVIDIA A10 + NVIDIA H100 + EPYC (avx2)"
    assert host.machine("cpu", found, "EPYC (avx2)") == "EPYC (avx2)"


def test_no_more_processors_or_memory_are_offered_than_there_are() -> None:
    assert host.offered_cpus_milli(0) == round(1000 * host.cpus())
    with pytest.raises(SettingInvalid, match="STOKER_WORKER_CPUS"):
        host.offered_cpus_milli(host.cpus() + 1)
    with pytest.raises(SettingInvalid, match="STOKER_WORKER_MEMORY_BYTES"):
        host.offered_memory_bytes(host.memory_bytes() + 1)


def test_a_holder_is_known_to_be_dead_only_where_its_pid_means_what_it_means_here() -> None:
    me = host.identity()
    assert not host.is_dead(me)
    for gone in ({"process_started": me.process_started - 60}, {"pid": 2**22 + 1}):
        assert host.is_dead(replace(me, **gone))
    for place in ("another boot/1", me.boot_id + "1", me.boot_id.partition("/")[0], ""):
        assert not host.is_dead(replace(me, boot_id=place, pid=2**22 + 1))  # though it has our host name


def test_who_is_on_a_device_is_asked_by_its_uuid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gpus.json"
    path.write_text(json.dumps([LISTED[0] | {"processes": [7, 8]}, LISTED[1]]))
    assert Fake(path).processes("GPU-bbbb") == {7, 8}
    assert Fake(path).processes("GPU-aaaa") == Nothing().processes("GPU-aaaa") == frozenset()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert Nvml().processes("GPU-aaaa") == frozenset()
