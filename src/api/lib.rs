//! The control protocol: generic netlink messages of the IPVS family and of our own, over a Unix socket.
