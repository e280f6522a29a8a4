"""How many layers go to which devices; the list itself is the machine's."""

import os

import pytest

from engine.devices import RESERVE_BYTES, Device, DeviceKind, layers_that_fit, list_devices
from engine.native import has_gpu_offload, start_backend

GIB = 2**30


def gpu(free_bytes: int, kind: int = DeviceKind.GPU) -> Device:
    return Device("gpu", kind, free_bytes, 2 * free_bytes)


CPU = Device("CPU", DeviceKind.CPU, 64 * GIB, 64 * GIB)


def fit(*devices: Device, layers: int = 32, layer_bytes: int = GIB, step_bytes: int = 0) -> int:
    return layers_that_fit(devices, layers=layers, layer_bytes=layer_bytes, step_bytes=step_bytes)


def test_without_a_gpu_nothing_goes_there():
    assert fit() == fit(CPU) == 0
    assert fit(CPU, gpu(64 * GIB, DeviceKind.ACCELERATOR), gpu(64 * GIB, 99)) == 0


def test_all_layers_and_the_output_where_there_is_room():
    assert fit(CPU, gpu(40 * GIB)) == 33


def test_as_many_as_fit_beside_the_reserve_and_a_step():
    assert fit(gpu(8 * GIB)) == 7
    assert fit(gpu(8 * GIB + RESERVE_BYTES)) == 8
    assert fit(gpu(8 * GIB + RESERVE_BYTES), step_bytes=1) == 7
    assert fit(gpu(RESERVE_BYTES)) == fit(gpu(0)) == 0


def test_a_layer_lies_on_one_device_as_a_whole():
    half = RESERVE_BYTES + GIB // 2
    assert fit(gpu(half), gpu(half)) == 0
    assert fit(gpu(5 * GIB), gpu(4 * GIB)) == 4 + 3


def test_an_integrated_one_counts_only_where_there_is_no_other():
    integrated = gpu(9 * GIB, DeviceKind.INTEGRATED_GPU)
    assert fit(CPU, integrated) == 8
    assert fit(integrated, gpu(4 * GIB)) == 3


def test_a_layer_of_no_size_divides_nothing():
    assert fit(gpu(GIB), layer_bytes=0) == 33


def test_the_list_of_this_machine_has_its_processor_and_its_memory():
    start_backend()
    devices = list_devices()
    (processor,) = [device for device in devices if device.kind == DeviceKind.CPU]
    assert processor.name == "CPU"
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert processor.total_bytes == pytest.approx(memory_bytes, rel=0.01)
    if not has_gpu_offload():
        assert fit(*devices) == 0
