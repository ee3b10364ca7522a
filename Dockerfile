# r2m with the packages of constraints.txt.
#   docker build -t r2m .                                                      for the CPU
#   docker build -t r2m --build-arg TORCH_INDEX=https://pypi.org/simple .      for CUDA
ARG BASE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE}

# git tells results/settings.md the commit.
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/r2m && useradd --create-home --uid 1000 r2m
# In a checkout its own code runs, so that results are of the code that they are recorded with.
ENV PATH=/opt/r2m/bin:$PATH PYTHONPATH=src

# The packages are a layer of their own, which a change to the code leaves as it is.
WORKDIR /tmp/r2m
COPY pyproject.toml constraints.txt ./
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
    > requirements.txt \
    && pip install --no-cache-dir -c constraints.txt -r requirements.txt --extra-index-url "$TORCH_INDEX"

COPY README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --no-deps . && rm -r /tmp/r2m

USER r2m
WORKDIR /work
CMD ["r2m", "--help"]
