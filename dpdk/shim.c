/* See shim.h. One line each where DPDK's own function is inline or a macro. */
#define _GNU_SOURCE
#include "shim.h"

#include <string.h>

/* The mbuf's fields are read from Rust with these widths. */
_Static_assert(sizeof(((struct rte_mbuf *)0)->data_off) == 2, "data_off");
_Static_assert(sizeof(((struct rte_mbuf *)0)->nb_segs) == 2, "nb_segs");
_Static_assert(sizeof(((struct rte_mbuf *)0)->port) == 2, "port");
_Static_assert(sizeof(((struct rte_mbuf *)0)->ol_flags) == 8, "ol_flags");
_Static_assert(sizeof(((struct rte_mbuf *)0)->pkt_len) == 4, "pkt_len");
_Static_assert(sizeof(((struct rte_mbuf *)0)->data_len) == 2, "data_len");
_Static_assert(sizeof(((struct rte_mbuf *)0)->buf_len) == 2, "buf_len");
_Static_assert(sizeof(((struct rte_mbuf *)0)->tx_offload) == 8, "tx_offload");
_Static_assert(RTE_MBUF_L2_LEN_BITS == 7 && RTE_MBUF_L3_LEN_BITS == 9, "tx_offload lengths");

/* Inline: an indirect call through rte_eth_fp_ops, then the capture callbacks that dpdk-pdump may have installed. */
uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, mbufs, n);
}

/* Inline, as above. */
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, mbufs, n);
}

/* Inline, as above. rte_errno says why the first mbuf not counted was refused. */
uint16_t shim_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_tx_prepare(port, queue, mbufs, n);
}

/* Inline: one mbuf from this thread's cache of the pool, its fields reset. */
struct rte_mbuf *shim_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

/* Inline: every segment back to its pool. */
void shim_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

/* Inline: this thread's cache back to the pool's common ring. Without a cache, nothing. */
void shim_pool_flush(struct rte_mempool *pool)
{
	struct rte_mempool_cache *cache = rte_mempool_default_cache(pool, rte_lcore_id());

	if (cache != NULL)
		rte_mempool_cache_flush(cache, pool);
}

/* A macro over a thread-local variable. */
int shim_errno(void)
{
	return rte_errno;
}

/* Inline over a thread-local variable; LCORE_ID_ANY for a thread that isn't registered. */
uint32_t shim_lcore_id(void)
{
	return rte_lcore_id();
}

/* The struct has bit fields until 24.07 and a union after. */
int shim_link_get(uint16_t port, struct shim_link *link)
{
	struct rte_eth_link now;
	int status;

	memset(&now, 0, sizeof(now));
	status = rte_eth_link_get_nowait(port, &now);
	link->speed = now.link_speed;
	link->up = now.link_status == RTE_ETH_LINK_UP;
	link->full_duplex = now.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	return status;
}

static shim_log_fn log_write;

static ssize_t log_stream_write(void *cookie, const char *text, size_t length)
{
	int level = rte_log_cur_msg_loglevel();

	(void)cookie;
	log_write(level < 0 ? RTE_LOG_INFO : (uint32_t)level, text, length);
	return (ssize_t)length;
}

/* A stream that hands what is written on it to `write`. DPDK flushes after each message, so each comes as one call. */
FILE *shim_log_stream(shim_log_fn write)
{
	cookie_io_functions_t functions = { .write = log_stream_write };

	log_write = write;
	return fopencookie(NULL, "w", functions);
}
