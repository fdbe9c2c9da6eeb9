# ripvsd, ripvsadm and ripvs-exec on Debian 12 with its DPDK.
#
#     docker build -t ripvs .
#     docker run --rm -it --privileged --network host \
#         -v /dev/hugepages:/dev/hugepages -v /etc/ripvs:/etc/ripvs -v /run/ripvs:/run/ripvs ripvs
#
# RUST and DEBIAN name the images to build in and to run in: both must be Debian 12, whose
# DPDK is 22.11. EAL loads drivers at run time, from packages of their own.
ARG RUST=docker.io/library/rust:1-bookworm
ARG DEBIAN=docker.io/library/debian:bookworm-slim

FROM ${RUST} AS build
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        build-essential libclang-dev libdpdk-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /ripvs
COPY . .
RUN cargo build --release --locked -p ripvsd -p ripvsadm -p ripvs-preload \
    && cd target/release && strip --strip-debug ripvsd ripvsadm ripvs-exec libripvs_preload.so

FROM ${DEBIAN}
# librte-meta-net, -bus and -mempool hold the drivers; iproute2 helps with virtual devices
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        iproute2 librte-eal23 librte-ethdev23 librte-meta-bus librte-meta-mempool librte-meta-net \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /ripvs/target/release/ripvsd /ripvs/target/release/ripvsadm \
    /ripvs/target/release/ripvs-exec /usr/local/bin/
COPY --from=build /ripvs/target/release/libripvs_preload.so /usr/local/lib/ripvs/
RUN ln -s ripvsadm /usr/local/bin/ripvsadm-save && ln -s ripvsadm /usr/local/bin/ripvsadm-restore \
    && mkdir -p /etc/ripvs /run/ripvs
STOPSIGNAL SIGTERM
ENTRYPOINT ["ripvsd"]
CMD ["--config", "/etc/ripvs/ripvsd.toml"]
