"""What is known of GPUs without having one: sizes, speeds, and how many blocks run together."""

from __future__ import annotations

from ..record import record

KIB = 1024
MIB = 1024 * KIB


@record
class Limits:
    """What a GPU holds and how fast it is. Memory is in bytes, times are clocks or seconds.

    A block has of its shared memory what a kernel names, `shared_block` at most, and what the
    driver keeps for itself, `shared_reserved`.
    """

    name: str
    architecture: str  # "sm_90"
    multiprocessors: int
    clock: float  # Hz, boosted
    threads_block: int  # at most, as all that follow
    threads_multiprocessor: int
    blocks_multiprocessor: int
    registers_multiprocessor: int  # of 32 bits
    registers_thread: int
    register_granularity: int  # registers are given to a warp by so many
    shared_block: int  # where a kernel opts in
    shared_multiprocessor: int
    shared_reserved: int  # of every block
    shared_granularity: int
    memory_rate: float  # bytes a second of device memory
    l2: int
    fma_clock: int  # float32 multiply-adds a clock and multiprocessor
    tensor_clock: int  # flops a clock and multiprocessor: dense, 16 bit, float32 sums
    warp: int = 32
    partitions: int = 4  # of a multiprocessor: each has a part of the registers


def _gpu(
    name: str,
    architecture: str,
    chip: tuple[int, float],
    resident: tuple[int, int, int],
    speed: tuple[float, int, int, int],
) -> Limits:
    """A GPU from what differs: (multiprocessors, Hz), a multiprocessor's (threads, blocks, shared
    KiB), and (bytes a second, L2, FMA and tensor flops a clock and multiprocessor)."""
    turing = architecture == "sm_75"
    threads, blocks, shared = resident[0], resident[1], resident[2] * KIB
    reserved, granularity = (0, 256) if turing else (KIB, 128)
    rate, l2, fma, tensor = speed
    return Limits(
        name, architecture, chip[0], chip[1], 1024, threads, blocks, 64 * KIB, 255, 256,
        shared - reserved, shared, reserved, granularity, rate, l2, fma, tensor,
    )  # fmt: skip


# Threads, blocks and shared memory: CUDA C++ Programming Guide 13, "Technical Specifications per
# Compute Capability"; what is reserved and by how much memory is given: cuda_occupancy.h. They
# hold for every GPU of the architecture. The rest is of the product that is named, from its data
# sheet or its architecture's white paper; the tensor rates times clock and multiprocessors are
# the sheets' TFLOPS.
PRESETS: dict[str, Limits] = {
    g.name: g
    for g in (
        # T4 data sheet: 1590 MHz, 320 GB/s, 65 TFLOPS; Turing white paper: 64 FMA, 4 MiB of L2
        _gpu("t4", "sm_75", (40, 1.59e9), (1024, 16, 64), (320e9, 4 * MIB, 64, 1024)),
        # A100 SXM4 80 GB: 1410 MHz, 2039 GB/s, 312 TFLOPS, 40 MiB
        _gpu("a100", "sm_80", (108, 1.41e9), (2048, 32, 164), (2039e9, 40 * MIB, 64, 2048)),
        # GA102 white paper: 1695 MHz, 936 GB/s, 71 TFLOPS (142 with float16 sums), 6 MiB
        _gpu("rtx3090", "sm_86", (82, 1.695e9), (1536, 16, 100), (936e9, 6 * MIB, 128, 512)),
        # Ada white paper: 2520 MHz, 1008 GB/s, 165 TFLOPS, 72 MiB
        _gpu("rtx4090", "sm_89", (128, 2.52e9), (1536, 24, 100), (1008e9, 72 * MIB, 128, 512)),
        # Hopper white paper, SXM5: 1830 MHz where tensor cores work (else 1980), 3.35 TB/s,
        # 989 TFLOPS, 50 MiB
        _gpu("h100", "sm_90", (132, 1.83e9), (2048, 32, 228), (3350e9, 50 * MIB, 128, 4096)),
        # HGX B200 sheet, by GPU: 2.25 PFLOPS and 7.7 TB/s; 148 multiprocessors and 126 MiB as
        # the driver reports them; the clock follows from the PFLOPS at 8192 a clock
        _gpu("b200", "sm_100", (148, 1.85e9), (2048, 32, 228), (7700e9, 126 * MIB, 128, 8192)),
        # RTX Blackwell white paper: 2407 MHz, 1792 GB/s, 210 TFLOPS, 96 MiB
        _gpu("rtx5090", "sm_120", (170, 2.407e9), (1536, 24, 100), (1792e9, 96 * MIB, 128, 512)),
        # Hopper's rules, so small that small shapes already fill it: not a GPU. Speeds are those
        # of so many of an H100's multiprocessors.
        Limits(
            "emulated", "sm_90", 4, 1.83e9, 64, 256, 4, 64 * KIB, 255, 256,
            48 * KIB, 100 * KIB, KIB, 128, 100e9, MIB, 128, 4096,
        ),
    )
}  # fmt: skip


def of(name: str) -> Limits:
    """The GPU of a name ("h100") or the first of an architecture ("sm_90"). Raises ValueError."""
    wanted = name.lower()
    if wanted in PRESETS:
        return PRESETS[wanted]
    for found in PRESETS.values():
        if found.architecture == wanted:
            return found
    names = ", ".join(f"{g.name} ({g.architecture})" for g in PRESETS.values())
    raise ValueError(f"no GPU {name!r} is described; there are: {names}")


def without(precision: str, limits: Limits) -> str:
    """Why a GPU has no products of this precision, or nothing."""
    if precision in ("bf16", "tf32") and limits.architecture == "sm_75":
        return f"{precision!r} needs sm_80, and {limits.name} is an sm_75"
    return ""


def occupancy(limits: Limits, threads: int, registers: int, shared: int) -> int:
    """How many blocks a multiprocessor runs together; 0 where not even one.

    A block has so many threads, `registers` a thread, and `shared` bytes of shared memory, static
    and dynamic ones. The arithmetic is that of NVIDIA's cuda_occupancy.h. Raises ValueError for
    less than one thread.
    """
    if threads < 1:
        raise ValueError(f"a block has at least one thread, not {threads}")
    warps = -(-threads // limits.warp)
    a_warp = _up(registers * limits.warp, limits.register_granularity)
    memory = _up(shared + limits.shared_reserved, limits.shared_granularity)
    if (
        threads > limits.threads_block
        or registers > limits.registers_thread
        # a launch is refused as if the warps of all partitions had been rounded up
        or a_warp * _up(warps, limits.partitions) > limits.registers_multiprocessor
        or memory > limits.shared_block + limits.shared_reserved
    ):
        return 0
    blocks = [
        limits.blocks_multiprocessor,
        limits.threads_multiprocessor // limits.warp // warps,
    ]
    if a_warp:
        in_partition = limits.registers_multiprocessor // limits.partitions // a_warp
        blocks.append(in_partition * limits.partitions // warps)
    if memory:
        blocks.append(limits.shared_multiprocessor // memory)
    return min(blocks)


def memory_text(size: int) -> str:
    """A size in bytes, as people write it: "36 KiB"."""
    for name, unit in (("MiB", MIB), ("KiB", KIB)):
        if size >= unit:
            return (
                f"{size / unit:.{1 if size < 100 * unit else 0}f}".removesuffix(".0") + f" {name}"
            )
    return f"{size} byte" + "s" * (size != 1)


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
