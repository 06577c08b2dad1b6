# CPU:   docker build -t vgid .
# CUDA:  docker build --build-arg TORCH=cuda -t vgid .     then: docker run --gpus all …
# Extras of pyproject.toml: --build-arg EXTRAS=tune,sign
#
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" vgid unlearn --model llava --forget forget.jsonl …
# With your own user id, what vgid writes (readable by its owner only) belongs to you.

FROM python:3.12-slim-bookworm AS build
ARG TORCH=cpu
ARG EXTRAS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/vgid
ENV PATH=/opt/vgid/bin:$PATH
WORKDIR /source
COPY constraints.txt ./
# PyTorch's own index has the CPU build; the default index has the CUDA build, with gigabytes of GPU libraries.
RUN case "$TORCH" in \
      cpu) pip install --no-deps --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)" ;; \
      cuda) pip install -c constraints.txt torch ;; \
      *) echo "TORCH must be cpu or cuda, not '$TORCH'" >&2; exit 1 ;; \
    esac
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install -c constraints.txt ".${EXTRAS:+[$EXTRAS]}"

FROM python:3.12-slim-bookworm
RUN useradd --uid 10001 --create-home vgid && install -d -o vgid -g vgid /data
COPY --from=build /opt/vgid /opt/vgid
# The caches of models and fonts go where any user id given to `docker run --user` may write.
ENV PATH=/opt/vgid/bin:$PATH HF_HOME=/tmp/huggingface MPLCONFIGDIR=/tmp/matplotlib XDG_CACHE_HOME=/tmp/cache
WORKDIR /data
USER 10001
ENTRYPOINT ["vgid"]
CMD ["--help"]
