# One image for CPU and GPU, in which nothing is left to chance: the base is named by its digest, every package by the
# hashes in reproduce/lock, and nothing is taken from the distribution's archive.
#
#   docker build --build-arg COMMIT=$(git rev-parse HEAD) -t mixcl .
#   docker run -v results:/results mixcl                                the main job on phantoms, then its verification
#   docker run --gpus all -v data:/data -v results:/results mixcl --profile paper
#   docker run -p 127.0.0.1:8888:8888 mixcl lab                         JupyterLab, for this machine alone; prints its token
#   docker run mixcl mixcl --help                                       any other command
#
# Collections of scans are looked for below /data, and results go to /results.  A folder of the host mounted there must
# be writable for user 1000; or add --user $(id -u).  Loading patches in processes of their own needs --shm-size 2g.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84
FROM ${BASE_IMAGE}

RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /mixcl

# torch's CUDA build runs on a CPU as well, so the default serves both.  TORCH=cpu makes a much smaller image for the CPU
# alone; pip must then be told of a place that has torch's CPU build.  Whatever pip has to be told, passwords too, is a
# secret of the build, which no layer and no history of the image keeps:
#
#   docker build --secret id=pip,src=$HOME/.config/pip/pip.conf --build-arg TORCH=cpu -t mixcl .
ARG TORCH=cuda

# Every package is in the lock (but for dev.txt, with which mixcl is tested, not run), so pip needs neither to resolve nor to fetch anything to build with.  The few without a
# wheel are pure Python: no compiler is needed, and none is ever inside.
COPY reproduce/lock/*.txt reproduce/lock/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --require-hashes --no-deps --no-build-isolation --use-pep517 -r reproduce/lock/build.txt \
 && pip install --require-hashes --no-deps --no-build-isolation --use-pep517 -r reproduce/lock/base.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --require-hashes --no-deps --no-build-isolation --use-pep517 -r reproduce/lock/torch-${TORCH}.txt \
 && pip check

# mixcl itself has no hash: it is what lies here, and --no-index keeps pip from looking elsewhere.
COPY . .
RUN pip install --no-index --no-deps --no-build-isolation --editable . \
 && pip check

# The code belongs to root, and so do the notebooks, which a run executes: `lab` works on copies in the home folder.
# Results and the home folder can be written by anyone, so that --user works.  results/ in the repository, where everything goes by default, is /results.
RUN useradd --uid 1000 --create-home mixcl \
 && mkdir /data /results \
 && ln -s /results results \
 && chmod 1777 /results /data /home/mixcl
VOLUME /results

# What decides the bits of a run on a CPU, beside the packages, stands in reproduce/bits.sh: the entry point sources it
# before whatever is run, so that it is written down once.  The last setting asks the driver for CUDA and nvidia-smi.
ARG COMMIT=unknown
ENV MIXCL_CONTAINER=1 MIXCL_COMMIT=${COMMIT} HOME=/home/mixcl USER=mixcl LANG=C.UTF-8 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER mixcl
EXPOSE 8888
ENTRYPOINT ["bash", "/mixcl/reproduce/docker/entrypoint.sh"]
