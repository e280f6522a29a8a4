"""What llama.cpp can compute on beside the processor, and how much of a model fits there.

The list is llama.cpp's own; the rest is pure. Must not know models.
Source: ggml-backend.h, `ggml_backend_dev_*`. Rule: engine/README.md.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import llama_cpp._ggml as ggml

# What a driver and llama.cpp's own buffers take of a device beside the model, at least.
RESERVE_BYTES = 512 * 2**20


class DeviceKind(IntEnum):
    """ggml's own numbers."""

    CPU = 0
    GPU = 1
    INTEGRATED_GPU = 2
    ACCELERATOR = 3


@dataclass(frozen=True, slots=True)
class Device:
    """One device and its memory; `kind` is a DeviceKind, or a number that this does not know."""

    name: str
    kind: int
    free_bytes: int
    total_bytes: int


def list_devices() -> list[Device]:
    """The devices of this build on this machine. `start_backend` comes first."""
    count = _function("ggml_backend_dev_count", ctypes.c_size_t)
    get = _function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    name = _function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
    kind = _function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    pointer = ctypes.POINTER(ctypes.c_size_t)
    memory = _function("ggml_backend_dev_memory", None, ctypes.c_void_p, pointer, pointer)
    found = []
    for index in range(count()):
        device = get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        text = (name(device) or b"").decode("utf-8", "replace")
        found.append(Device(text, kind(device), free.value, total.value))
    return found


def layers_that_fit(
    devices: Sequence[Device], *, layers: int, layer_bytes: int, step_bytes: int
) -> int:
    """How many of a model's `layers`, and of its output as one more, go to GPUs.

    0 to `layers` + 1. Integrated ones count only where there is no other, as in llama.cpp. Each
    GPU keeps room for a step and a reserve; a layer lies on one device as a whole.
    """
    gpus = [device for device in devices if device.kind == DeviceKind.GPU]
    gpus = gpus or [device for device in devices if device.kind == DeviceKind.INTEGRATED_GPU]
    fitting = 0
    for device in gpus:
        room = device.free_bytes - RESERVE_BYTES - step_bytes
        fitting += max(0, room) // max(1, layer_bytes)
    return min(layers + 1, fitting)


def _function(name: str, result: object, *arguments: object) -> Any:
    function = ggml.libggml[name]
    function.restype, function.argtypes = result, arguments
    return function
