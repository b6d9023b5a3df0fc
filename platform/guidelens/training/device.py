"""Where a worker's steps run. Knows nothing of Ray beyond being told whether it gave this worker a GPU."""

import ctypes
import sys

import torch
import torch.distributed
import torch.utils.deterministic

from guidelens.config import TrainConfig
from guidelens.errors import ConfigError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt."""


def keep_freed_memory() -> None:
    """What a step frees stays with this process for the next step. By default glibc gives large tensors back to the kernel, which fills each of
    their pages again before the next step may write to them. Has no effect where malloc is not glibc's."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def compute_repeatably(num_threads: int) -> None:
    """Bit for bit the same results of the same steps; memory that is about to be written is not filled first, which torch would do then."""
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # torch declares it by a class


def worker_device(config: TrainConfig) -> torch.device:
    """The CUDA device of this worker (Ray Train makes just its own visible), or the CPU.

    Raises:
        ConfigError: a GPU is wanted and this worker's torch reaches none.
    """
    if not (config.use_gpu and config.device == "auto"):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            "train.use_gpu is set, and torch reaches no CUDA device on this worker; install a CUDA build of torch there, "
            "or set train.device=cpu to run on the CPU of GPU nodes, or train.use_gpu=false"
        )
    return torch.device("cuda", torch.cuda.current_device())


def backend(config: TrainConfig) -> str:
    """How the workers talk: NCCL between GPUs, gloo between CPUs.

    Raises:
        ConfigError: GPUs are wanted and this build of torch, which the workers have too, cannot use any.
    """
    if not (config.use_gpu and config.device == "auto"):
        return "gloo"
    if not torch.distributed.is_nccl_available():
        raise ConfigError(
            f"train.use_gpu needs a torch with CUDA and NCCL, got {torch.__version__}; install a CUDA build, "
            "or set train.device=cpu to run on the CPU of GPU nodes, or train.use_gpu=false"
        )
    return "nccl"
