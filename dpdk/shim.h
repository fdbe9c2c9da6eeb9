/* What ripvs needs of DPDK that bindgen cannot take from its headers: inline functions, expressions in macros, and the
 * places of the mbuf's fields, whose C declaration differs between releases. Nothing here decides anything. */
#ifndef DPDK_SHIM_H
#define DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <rte_alarm.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Release of the headers, as year * 100 + month (2211). */
static const uint32_t SHIM_DPDK_RELEASE = RTE_VER_YEAR * 100 + RTE_VER_MONTH;

/* Where the mbuf's fields are, in bytes. */
static const size_t SHIM_MBUF_SIZE = sizeof(struct rte_mbuf);
static const size_t SHIM_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr);
static const size_t SHIM_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off);
static const size_t SHIM_MBUF_REFCNT = offsetof(struct rte_mbuf, refcnt);
static const size_t SHIM_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs);
static const size_t SHIM_MBUF_PORT = offsetof(struct rte_mbuf, port);
static const size_t SHIM_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags);
static const size_t SHIM_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len);
static const size_t SHIM_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len);
static const size_t SHIM_MBUF_RSS_HASH = offsetof(struct rte_mbuf, hash.rss);
static const size_t SHIM_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len);
static const size_t SHIM_MBUF_POOL = offsetof(struct rte_mbuf, pool);
static const size_t SHIM_MBUF_NEXT = offsetof(struct rte_mbuf, next);
static const size_t SHIM_MBUF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload);

/* Where the header length for checksum offload lies in tx_offload, in bits. */
static const uint32_t SHIM_L2_LEN_BITS = RTE_MBUF_L2_LEN_BITS;

static const uint64_t SHIM_RX_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH;
static const uint64_t SHIM_TX_IPV4 = RTE_MBUF_F_TX_IPV4;
static const uint64_t SHIM_TX_IP_CKSUM = RTE_MBUF_F_TX_IP_CKSUM;

static const uint64_t SHIM_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t SHIM_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t SHIM_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t SHIM_TX_OFFLOAD_IPV4_CKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;

static const uint64_t SHIM_RSS_IP = RTE_ETH_RSS_IP;
static const uint64_t SHIM_RSS_L4 = RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP;
/* The upper 32 bits: bindgen evaluates nothing above INT64_MAX, and one of these is bit 63. */
static const uint32_t SHIM_RSS_L3_SRC_ONLY_HIGH = RTE_ETH_RSS_L3_SRC_ONLY >> 32;
static const uint32_t SHIM_RSS_L3_DST_ONLY_HIGH = RTE_ETH_RSS_L3_DST_ONLY >> 32;
static const uint32_t SHIM_RSS_L4_SRC_ONLY_HIGH = RTE_ETH_RSS_L4_SRC_ONLY >> 32;
static const uint32_t SHIM_RSS_L4_DST_ONLY_HIGH = RTE_ETH_RSS_L4_DST_ONLY >> 32;
static const uint32_t SHIM_MQ_RX_NONE = RTE_ETH_MQ_RX_NONE;
static const uint32_t SHIM_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;
static const uint32_t SHIM_RETA_GROUP = RTE_ETH_RETA_GROUP_SIZE;

static const uint32_t SHIM_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const uint32_t SHIM_MAX_PORTS = RTE_MAX_ETHPORTS;
static const uint32_t SHIM_MAX_CACHE = RTE_MEMPOOL_CACHE_MAX_SIZE;
static const int32_t SHIM_SOCKET_ANY = SOCKET_ID_ANY;
static const uint32_t SHIM_LCORE_ANY = LCORE_ID_ANY;
static const uint32_t SHIM_NAME_SIZE = RTE_ETH_NAME_MAX_LEN;

/* rte_eth_link without its bit fields. speed in Mbit/s, UINT32_MAX where the driver doesn't know. */
struct shim_link {
	uint32_t speed;
	uint8_t up;
	uint8_t full_duplex;
};

/* Called with each message that DPDK logs: level as in rte_log.h (1 most urgent, 8 debug), text not terminated. */
typedef void (*shim_log_fn)(uint32_t level, const char *text, size_t length);

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
uint16_t shim_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
struct rte_mbuf *shim_mbuf_alloc(struct rte_mempool *pool);
void shim_mbuf_free(struct rte_mbuf *mbuf);
void shim_pool_flush(struct rte_mempool *pool);
int shim_errno(void);
uint32_t shim_lcore_id(void);
int shim_link_get(uint16_t port, struct shim_link *link);
FILE *shim_log_stream(shim_log_fn write);

#endif
