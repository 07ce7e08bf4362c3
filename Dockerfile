# syntax=docker/dockerfile:1
# Two static binaries, CA certificates and nothing else: the operator with the agent, and the plugin, which serves the console. Two ways to the same image:
#
#   docker build .                     compiles in a container, for the platform asked for: --platform linux/arm64, …
#   scripts/image (make image)         takes a binary that was compiled outside, and needs no container engine
#
# The image itself is made from nothing. What compiles it is pinned to a release of Rust and of Debian, whose tag may be made
# anew: a release is built from the digest that it is known to have, --build-arg BASE=docker.io/library/rust@sha256:….
ARG RUST=1.95.0
ARG BASE=docker.io/library/rust:$RUST-slim-bookworm
FROM --platform=$TARGETPLATFORM $BASE AS build
ARG TARGETARCH
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates make
WORKDIR /source
COPY . .
# A C library linked in: the image has none. The kernels of arm64 have pages of 4, 16 or 64 KiB, and the allocator has to be
# built for the largest.
RUN case "$TARGETARCH" in amd64) target=x86_64 ;; arm64) target=aarch64; export JEMALLOC_SYS_WITH_LG_PAGE=16 ;; *) echo "no build for $TARGETARCH" >&2; exit 1 ;; esac \
  && target=$target-unknown-linux-gnu \
  && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target" --package beatkeeper --package kubectl-beatkeeper --bins \
  && install -D --strip "target/$target/release/beatkeeper" /image/beatkeeper \
  && install -D --strip "target/$target/release/kubectl-beatkeeper" /image/kubectl-beatkeeper \
  && install -D --mode 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM scratch AS base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="beatkeeper" \
  org.opencontainers.image.description="A Kubernetes operator that publishes what beats and prunes what stops" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="$VERSION" \
  org.opencontainers.image.revision="$REVISION"
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# A number: the kubelet cannot tell of a name whether it is root's.
USER 65532:65532
ENTRYPOINT ["/beatkeeper"]

# The context is a folder with what shall be in the image, and nothing else.
FROM base AS prebuilt
COPY . /

FROM base AS image
COPY --from=build /image /
