"""Training on a GPU: how fast, how much memory, how near to the floor, and whether it is right.

    python benchmarks/gpu.py                        # on a CUDA device
    python benchmarks/gpu.py --device cpu --tiny    # a trial of the program itself

The DAFT arm on random data, both encoders, both resolutions. An epoch is timed as the difference
between a training of several epochs and one of a single epoch, so that what is done once (upload,
checks) does not count. Images lie on the device (``resident``) or are sent batch by batch
(``streamed``); the share of a streamed epoch spent waiting for data is what it takes longer.

The floor of a batch is the larger of two times: floating point operations (convolutions and matrix
products, forward and backward, as torch counts them) at the peak rate, and bytes at the peak
bandwidth. Bytes: each module's output written and read once forward, its gradient once backward, and
the image read as float16, written and read as float32.

Then: logits on CPU and GPU after the same training of three epochs (float32), and whether two
trainings on the device give the same bytes. Prints a CSV table.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rlvo_lib import training
from rlvo_lib.config import Settings, load_settings
from rlvo_lib.fusion import build_model
from rlvo_lib.training import Cases, batches, devices

COLUMNS = (
    "encoder", "grid", "channels", "batch", "images", "s_an_epoch", "patients_a_s", "peak_gib",
    "waiting_share", "gflop_a_patient", "gb_a_patient", "floor_ms_a_batch", "measured_ms_a_batch",
    "times_floor",
)  # fmt: skip


def random_cases(patients: int, channels: int, shape: tuple[int, ...]) -> Cases:
    """Random patients; images are one random volume, rolled (random numbers by the billion are slow)."""
    rng = np.random.default_rng(0)
    volume = rng.random((channels, *shape), dtype=np.float32).astype(np.float16)
    image = np.stack([np.roll(volume, n, axis=1) for n in range(patients)])
    tabular = rng.normal(size=(patients, 30)).astype(np.float32)
    return Cases(image, tabular, np.tile([0.0, 1.0], patients // 2))


def network(cases: Cases, settings: Settings) -> nn.Module:
    training.seed_everything(0)
    model = build_model(
        fusion="daft",
        encoder=settings.encoder,
        in_channels=cases.image.shape[1],
        n_tabular=cases.tabular.shape[1],
        base_filters=settings.base_filters,
    )
    model.encoder.set_scale(*training.image_scale(cases.image[:4]))
    return model


def seconds_an_epoch(cases: Cases, settings: Settings, epochs: int) -> float:
    """By the difference between 1 + epochs and one; `settings` otherwise."""
    inner, seconds = cases.take(np.arange(2)), []
    for count in (1, 1, 1 + epochs):  # the first warms up
        model = network(cases, settings)
        own = _with(settings, epochs_max=count, patience_epochs=count)
        begun = time.perf_counter()
        training.fit(model, cases, inner, own, seed=0)
        seconds.append(time.perf_counter() - begun)
    return (seconds[2] - seconds[1]) / epochs


def _with(settings: Settings, **fields) -> Settings:
    return dataclasses.replace(settings, **fields)


def work_a_batch(cases: Cases, settings: Settings, device: torch.device) -> tuple[float, float]:
    """Floating point operations, and bytes that must move, of a step on one batch."""
    model = devices.placed(network(cases, settings), device, settings).train()
    batch = next(batches.Batches(cases, device).of([np.arange(settings.batch_size)]))
    moved = batch.image.numel() * (2 + 4 + 4)

    def count(_module, _inputs, output) -> None:
        nonlocal moved
        moved += 4 * output.numel() * output.element_size()

    hooks = [m.register_forward_hook(count) for m in model.modules() if not list(m.children())]
    with FlopCounterMode(display=False) as counter:
        with devices.autocast(device, settings):
            output = model(devices.laid_out(batch.image, settings), batch.tabular)
        output.float().sum().backward()
    for hook in hooks:
        hook.remove()
    return float(counter.get_total_flops()), float(moved)


def rows(cases: Cases, settings: Settings, device: torch.device, given: argparse.Namespace):
    """A row of the table for images on the device and one for images that are sent."""
    flops, moved = work_a_batch(cases, settings, device)
    floor = max(flops / given.flops, moved / given.bandwidth)
    steps = len(batches.split_rows(np.arange(len(cases)), settings.batch_size))
    on_gpu, resident = device.type == "cuda", None
    for name, share in (("resident", 1.0), ("streamed", 0.0)) if on_gpu else (("cpu", 0.0),):
        batches.RESIDENT_SHARE = share
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        seconds = seconds_an_epoch(cases, settings, given.epochs)
        resident = resident or seconds
        step = seconds / steps
        yield (
            settings.encoder, "x".join(map(str, cases.image.shape[2:])), cases.image.shape[1],
            settings.batch_size, name, f"{seconds:.3f}", f"{len(cases) / seconds:.1f}",
            f"{torch.cuda.max_memory_allocated() / 2**30:.2f}" if on_gpu else "",
            f"{max(0.0, 1 - resident / seconds):.2f}", f"{flops / settings.batch_size / 1e9:.2f}",
            f"{moved / settings.batch_size / 1e9:.4f}", f"{1e3 * floor:.3f}", f"{1e3 * step:.3f}",
            f"{step / floor:.1f}",
        )  # fmt: skip


def agreement(settings: Settings, device: torch.device) -> None:
    """Print how far the device's logits are from the CPU's, and from its own of a second training."""
    cases = random_cases(32, 3, (16, 20, 16))
    rng = np.random.default_rng(1)
    cases.image = (cases.image + rng.normal(0, 0.2, cases.image.shape)).astype(np.float16)
    own = _with(settings, epochs_max=3, patience_epochs=3, batch_size=8, learning_rate=1e-2)

    def trained(where: str, **fields) -> np.ndarray:
        changed = _with(own, device=where, **fields)
        model = network(cases, changed)
        training.fit(model, cases, cases.take(np.arange(16)), changed, seed=0)
        return training.predict_logit(model, cases, changed)

    for precision in ("float32", "bfloat16"):
        for encoder in ("light", "daft-resnet"):
            cpu = trained("cpu", precision="float32", encoder=encoder)
            once, again = (trained(device.type, precision=precision, encoder=encoder) for _ in "ab")
            print(
                f"agreement,{encoder},{precision},largest difference from the CPU in float32,"
                f"{np.abs(cpu - once).max():.2e},SD of the logits,{cpu.std():.2e},"
                f"same bytes when repeated,{(once == again).all()}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--tiny", action="store_true", help="few patients on small grids")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--patients", type=int, default=32, help="at full resolution")
    parser.add_argument("--batch", type=int, default=8, help="at full resolution")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--rotation", type=float, default=5.0, help="degrees of augmentation")
    parser.add_argument("--bandwidth", type=float, default=3.0e12, help="bytes a second at most")
    parser.add_argument("--flops", type=float, default=800e12, help="bf16 operations a second")
    given = parser.parse_args()
    device = training.pick_device(given.device)
    sizes = [(384, 7, (32, 40, 32), 16), (given.patients, 4, (128, 160, 128), given.batch)]
    if given.tiny:
        sizes = [(16, 2, (16, 20, 16), 8), (8, 2, (32, 40, 32), 4)]
    settings = load_settings(
        "demo",
        device=given.device,
        precision=given.precision,
        channels_last=given.channels_last,
        augment_rotation_deg=given.rotation,
        workers=1,
    )
    print(torch.__version__, torch.cuda.get_device_name() if given.device == "cuda" else "cpu")
    print(*COLUMNS, sep=",")
    for patients, channels, shape, batch in sizes:
        cases = random_cases(patients, channels, shape)
        for encoder in ("light", "daft-resnet"):
            own = _with(settings, encoder=encoder, batch_size=batch, grid_shape=shape)
            for row in rows(cases, own, device, given):
                print(*row, sep=",", flush=True)
    agreement(settings, device)


if __name__ == "__main__":
    main()
