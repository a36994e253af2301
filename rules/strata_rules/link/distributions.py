"""Which distributions are known to bring which shared libraries, so that a warning can name them. Pure.

A fact counts for a warning's hint alone: nothing is linked or required because of it. Where a fact is from:

* *seen*: the file lists of the wheels on PyPI, looked at in 2026: of `nvidia-cuda-runtime`, `-nvrtc`, `-cupti`,
  `-nvjitlink`, `-curand`, `-cufile`, `-nvtx` (those for CUDA 11 and 12 with a suffix, for 13 without), `tbb`,
  `intel-openmp`;
* *torch*: PyTorch's `_preload_cuda_deps` (which distribution's folder holds which library) together with its wheel
  build scripts (which SONAME belongs to CUDA 12 and 13), for those too large to look at: cuBLAS, cuDNN, cuFFT,
  cuSOLVER, cuSPARSE, cuSPARSELt, NCCL, NVSHMEM.
"""

from __future__ import annotations

_SEEN = {
    "libcudart.so.11.0": ("nvidia-cuda-runtime-cu11",),
    "libcudart.so.12": ("nvidia-cuda-runtime-cu12",),
    "libcudart.so.13": ("nvidia-cuda-runtime",),
    "libnvrtc.so.12": ("nvidia-cuda-nvrtc-cu12",),
    "libnvrtc.so.13": ("nvidia-cuda-nvrtc",),
    "libcupti.so.12": ("nvidia-cuda-cupti-cu12",),
    "libnvJitLink.so.12": ("nvidia-nvjitlink-cu12",),
    "libnvJitLink.so.13": ("nvidia-nvjitlink",),
    "libcurand.so.10": ("nvidia-curand-cu12", "nvidia-curand"),
    "libcufile.so.0": ("nvidia-cufile-cu12", "nvidia-cufile"),
    "libcufile_rdma.so.1": ("nvidia-cufile-cu12", "nvidia-cufile"),
    "libnvToolsExt.so.1": ("nvidia-nvtx-cu12",),
    "libnvtx3interop.so.1": ("nvidia-nvtx-cu12", "nvidia-nvtx"),
    "libtbb.so.12": ("tbb",),
    "libtbbmalloc.so.2": ("tbb",),
    "libiomp5.so": ("intel-openmp",),
}

_TORCH = {
    "libcupti.so.13": ("nvidia-cuda-cupti",),
    "libcublas.so.12": ("nvidia-cublas-cu12",),
    "libcublasLt.so.12": ("nvidia-cublas-cu12",),
    "libcublas.so.13": ("nvidia-cublas",),
    "libcublasLt.so.13": ("nvidia-cublas",),
    "libcufft.so.11": ("nvidia-cufft-cu12",),
    "libcufft.so.12": ("nvidia-cufft",),
    "libcusolver.so.11": ("nvidia-cusolver-cu12",),
    "libcusolver.so.12": ("nvidia-cusolver",),
    "libcusparse.so.12": ("nvidia-cusparse-cu12", "nvidia-cusparse"),
    "libcusparseLt.so.0": ("nvidia-cusparselt-cu12", "nvidia-cusparselt-cu13"),
    "libcudnn.so.9": ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
    "libnccl.so.2": ("nvidia-nccl-cu12", "nvidia-nccl-cu13"),
    "libnvshmem_host.so.3": ("nvidia-nvshmem-cu12", "nvidia-nvshmem-cu13"),
}

_BRING = {**_SEEN, **_TORCH}


def that_bring(name: str) -> tuple[str, ...]:
    """Name the distributions that are known to bring the library with this SONAME: any one of them does."""
    return _BRING.get(name, ())
