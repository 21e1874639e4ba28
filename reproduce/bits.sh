# What decides the bits of a run on a CPU, beside the packages of the lock: sourced by run_all.sh and by the image.
# One thread a job, and the instructions that every x86-64 machine since 2013 has (AVX2 and FMA), although this one may
# have more; a library that is left to choose takes the widest it finds, and another order of additions with it.
# `python -m mixcl.run.determinism` says what is in force.  Runs on a GPU are not decided by these.
# MIXCL_BITS=free leaves all but the threads to the libraries: faster where there is AVX-512, and no promise.
# shellcheck shell=bash
for name in "${!OMP_@}" "${!GOMP_@}" "${!KMP_@}" "${!MKL_@}" "${!DNNL_@}" "${!ONEDNN_@}" "${!OPENBLAS_@}" "${!NPY_@}"; do
    unset "$name" # ONEDNN_DEFAULT_FPMATH_MODE, for one, computes in bf16
done
unset name
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
if [ "${MIXCL_BITS:-pinned}" != free ]; then
    export ATEN_CPU_CAPABILITY=avx2          # torch's own kernels
    export ONEDNN_MAX_CPU_ISA=AVX2           # convolutions
    export MKL_CBWR=COMPATIBLE               # matrix products of torch, alike on every maker's processors
    export OPENBLAS_CORETYPE=Haswell         # matrix products of numpy and scipy
    export NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR"  # numpy's own loops
fi
export PYTHONHASHSEED=0
