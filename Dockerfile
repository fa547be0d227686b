# syntax=docker/dockerfile:1
#
# Sidekey in an image: one static binary, the public certificate authorities, a numeric user, no shell.
#
#   docker build -t sidekey .
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" -t … .
#   docker run --read-only --cap-drop=ALL -v "$PWD/config:/etc/sidekey:ro" sidekey sidecar --config /etc/sidekey/sidekey.yaml
#
# An image of the Rust version in Cargo.toml with a C compiler and ca-certificates on glibc 2.34 or newer, whose static form
# resolves names by itself.
ARG RUST_IMAGE=rust:1.95-slim-bookworm

FROM ${RUST_IMAGE} AS dependencies
WORKDIR /src
# `release` builds in a fraction of the time, for trying this file out.
ARG PROFILE=dist
# Static, and the same bytes wherever it is built from the same image: no path of the builder stands in the binary. Naming
# the target below keeps the flags away from build scripts and procedural macros, which cannot be static.
ENV RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=/src=/sidekey" CARGO_INCREMENTAL=0

# The dependencies in a stage of their own: built again only when the manifest or the lock file changes. The manifest's tests
# and benchmarks stay outside, and with them their sources.
COPY Cargo.toml Cargo.lock ./
RUN sed -i '/^\[\[\(test\|bench\)\]\]/,/^$/d' Cargo.toml \
 && mkdir src \
 && echo 'fn main() {}' >src/main.rs \
 && touch src/lib.rs \
 && target=$(rustc --print host-tuple) \
 && cargo build --locked --profile "$PROFILE" --target "$target" --bin sidekey

FROM dependencies AS build
ARG PROFILE=dist
COPY src ./src
COPY config/prices.yaml ./config/
RUN target=$(rustc --print host-tuple) \
 && touch src/lib.rs src/main.rs \
 && cargo build --locked --profile "$PROFILE" --target "$target" --bin sidekey \
 && install -D -m 0555 "target/$target/$PROFILE/sidekey" /image/usr/bin/sidekey \
 && install -D -m 0444 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sidekey" \
      org.opencontainers.image.description="Injects provider credentials from secret managers in front of an AI gateway" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image/ /
USER 65532:65532
# Clients, and health with metrics. Both listen on loopback unless the configuration says otherwise.
EXPOSE 8900 8901
ENTRYPOINT ["/usr/bin/sidekey"]
CMD ["--help"]
