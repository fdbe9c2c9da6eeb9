//! Safe DPDK: EAL, ports, queues, mempools and mbufs.
