# ripvsd, ripvsadm and ripvs-exec on Debian 12 with its DPDK (22.11). docs/container.md says how to run it.
#
#     docker build -t ripvs .
#     docker run --rm --entrypoint cat ripvs /usr/share/doc/ripvs/ripvsd.example.toml
#
# RUST and DEBIAN name the images to build in and to run in: any with Debian 12. scripts/image builds
# the image and tries it.
ARG RUST=rust:1-bookworm
ARG DEBIAN=debian:bookworm-slim

FROM ${RUST} AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        build-essential libclang-dev libdpdk-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /ripvs
COPY . .
# /image is what the final stage adds to Debian
RUN cargo build --release --locked -p ripvsd -p ripvsadm -p ripvs-preload \
    && install -D --strip -t /image/usr/local/bin \
        target/release/ripvsd target/release/ripvsadm target/release/ripvs-exec \
    && ln -s ripvsadm /image/usr/local/bin/ripvsadm-save \
    && ln -s ripvsadm /image/usr/local/bin/ripvsadm-restore \
    && install -D --strip -m 644 -t /image/usr/local/lib/ripvs target/release/libripvs_preload.so \
    && install -D -m 644 -t /image/usr/share/doc/ripvs \
        docs/ripvsd.example.toml README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT \
    && install -d -m 755 /image/etc/ripvs /image/var/lib/ripvs

FROM ${DEBIAN}
LABEL org.opencontainers.image.title="ripvs" \
    org.opencontainers.image.description="Layer-4 load balancer: Linux IPVS as a DPDK data plane" \
    org.opencontainers.image.licenses="Apache-2.0 OR MIT"
# EAL loads drivers at run time: librte-meta-net, -bus and -mempool are what holds them. iproute2 sets up the kernel's
# end of virtual devices and companions.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        iproute2 librte-eal23 librte-ethdev23 librte-meta-bus librte-meta-mempool librte-meta-net \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
COPY --from=build /image/ /
# Another socket than the default has to be known to ripvsadm too: --env RIPVS_SOCKET=PATH
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["ripvsadm", "port"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["ripvsd"]
CMD ["--config", "/etc/ripvs/ripvsd.toml"]
