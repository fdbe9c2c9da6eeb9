/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The floor: what balancing costs at the very least. One loop that hashes a packet's addresses and ports, finds its flow in
 * a table of one cache line a flow, asked for a burst ahead, and rewrites the packet: direct routing, NAT or IP in IP. No
 * timers, no states, no counters but two, no checks beyond what keeps it from crashing. A new flow is put into the table
 * by the first packet. It is no balancer: it shows beside ripvs what of the cost is memory and the driver.
 *
 * usage: floor [EAL OPTION...] -- dr|nat|tun FLOWS MBUFS MBUF_SIZE
 * Answers each line on its standard input with the packets received and sent so far.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_hash_crc.h>
#include <rte_ip.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>
#include <rte_udp.h>

#define BURST 32
#define DESTS 10

enum mode { DR, NAT, TUN };

struct flow {
	uint64_t addresses; /* source and destination, as on the wire; 0: free */
	uint32_t ports;
	uint32_t dest_addr;
	uint16_t dest_port;
	uint16_t ip_delta; /* what the rewriting adds to the header's sum */
	uint16_t udp_delta;
	struct rte_ether_addr dest_mac;
} __rte_cache_aligned;

static enum mode mode;
static struct flow *table;
static uint64_t mask;
static struct rte_ether_addr own_mac;
static volatile uint64_t received, sent;

static inline uint16_t fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)(sum + (sum >> 16));
}

/* RFC 1624: the checksum of a header whose sum grows by delta. */
static inline uint16_t patch(uint16_t checksum, uint16_t delta)
{
	return (uint16_t)~fold((uint16_t)~checksum + (uint32_t)delta);
}

static inline uint64_t hash(uint64_t addresses, uint32_t ports)
{
	return rte_hash_crc_8byte(addresses, rte_hash_crc_4byte(ports, 0x9e3779b9));
}

static void fill(struct flow *flow, uint64_t addresses, uint32_t ports)
{
	static uint32_t next;
	uint32_t dest = next++ % DESTS, old = (uint32_t)(addresses >> 32);
	uint16_t old_port = (uint16_t)(ports >> 16);

	flow->addresses = addresses;
	flow->ports = ports;
	flow->dest_addr = rte_cpu_to_be_32(0x0a000101 + dest);
	flow->dest_port = rte_cpu_to_be_16(8080);
	uint32_t sum = (uint16_t)~old + (uint16_t)~(old >> 16) + (flow->dest_addr & 0xffff) +
		       (flow->dest_addr >> 16);
	flow->ip_delta = fold(sum);
	flow->udp_delta = fold((uint32_t)flow->ip_delta + (uint16_t)~old_port + flow->dest_port);
	flow->dest_mac = (struct rte_ether_addr){ { 2, 0, 0, 2, 0, (uint8_t)dest } };
}

static inline struct flow *find(uint64_t at, uint64_t addresses, uint32_t ports)
{
	for (;; at++) {
		struct flow *flow = &table[at & mask];
		if (likely(flow->addresses == addresses && flow->ports == ports))
			return flow;
		if (flow->addresses == 0) {
			fill(flow, addresses, ports);
			return flow;
		}
	}
}

static inline void wrap(struct rte_mbuf *mbuf, const struct flow *flow)
{
	struct rte_ipv4_hdr *inner =
		rte_pktmbuf_mtod_offset(mbuf, struct rte_ipv4_hdr *, sizeof(struct rte_ether_hdr));
	uint16_t len = (uint16_t)(rte_be_to_cpu_16(inner->total_length) + 20);
	struct rte_ether_hdr *eth = (struct rte_ether_hdr *)rte_pktmbuf_prepend(mbuf, 20);
	struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(eth + 1);

	ip->version_ihl = 0x45;
	ip->type_of_service = inner->type_of_service;
	ip->total_length = rte_cpu_to_be_16(len);
	ip->packet_id = inner->packet_id;
	ip->fragment_offset = inner->fragment_offset;
	ip->time_to_live = inner->time_to_live;
	ip->next_proto_id = 4;
	ip->hdr_checksum = 0;
	ip->src_addr = rte_cpu_to_be_32(0x0a00fffe);
	ip->dst_addr = flow->dest_addr;
	ip->hdr_checksum = rte_ipv4_cksum(ip);
	eth->ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
}

static inline void rewrite(struct rte_mbuf *mbuf, const struct flow *flow)
{
	struct rte_ether_hdr *eth;

	if (mode == NAT) {
		struct rte_ipv4_hdr *ip = rte_pktmbuf_mtod_offset(mbuf, struct rte_ipv4_hdr *,
								  sizeof(struct rte_ether_hdr));
		struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(ip + 1);
		ip->dst_addr = flow->dest_addr;
		udp->dst_port = flow->dest_port;
		ip->hdr_checksum = patch(ip->hdr_checksum, flow->ip_delta);
		if (udp->dgram_cksum != 0)
			udp->dgram_cksum = patch(udp->dgram_cksum, flow->udp_delta);
	} else if (mode == TUN) {
		wrap(mbuf, flow);
	}
	eth = rte_pktmbuf_mtod(mbuf, struct rte_ether_hdr *);
	eth->dst_addr = flow->dest_mac;
	eth->src_addr = own_mac;
}

static int loop(void *unused)
{
	struct rte_mbuf *mbufs[BURST];
	uint64_t addresses[BURST], hashes[BURST];
	uint32_t ports[BURST];

	(void)unused;
	for (;;) {
		uint16_t count = rte_eth_rx_burst(0, 0, mbufs, BURST);
		for (uint16_t i = 0; i < count; i++) {
			const uint8_t *ip = rte_pktmbuf_mtod_offset(mbufs[i], uint8_t *, 14);
			memcpy(&addresses[i], ip + 12, 8);
			memcpy(&ports[i], ip + 20, 4);
			hashes[i] = hash(addresses[i], ports[i]);
			rte_prefetch0(&table[hashes[i] & mask]);
		}
		for (uint16_t i = 0; i < count; i++)
			rewrite(mbufs[i], find(hashes[i], addresses[i], ports[i]));
		uint16_t done = rte_eth_tx_burst(0, 0, mbufs, count);
		received += count;
		sent += done;
		if (unlikely(done < count))
			rte_pktmbuf_free_bulk(mbufs + done, count - done);
	}
	return 0;
}

static void die(const char *what)
{
	fprintf(stderr, "floor: %s\n", what);
	exit(1);
}

int main(int argc, char **argv)
{
	struct rte_eth_conf conf = { 0 };
	struct rte_mempool *pool;
	uint64_t lines = 1024;
	char line[64];
	int used = rte_eal_init(argc, argv);

	if (used < 0)
		die("no EAL");
	argc -= used;
	argv += used;
	if (argc != 5)
		die("wants dr|nat|tun FLOWS MBUFS MBUF_SIZE");
	mode = strcmp(argv[1], "nat") == 0 ? NAT : strcmp(argv[1], "tun") == 0 ? TUN : DR;
	while (lines < strtoull(argv[2], NULL, 10) * 2)
		lines *= 2;
	mask = lines - 1;
	table = rte_zmalloc("table", lines * sizeof(*table), RTE_CACHE_LINE_SIZE);
	pool = rte_pktmbuf_pool_create("pool", (unsigned)strtoul(argv[3], NULL, 10), 256, 0,
				       (uint16_t)(strtoul(argv[4], NULL, 10) + RTE_PKTMBUF_HEADROOM), 0);
	if (table == NULL || pool == NULL)
		die("not enough memory");
	if (rte_eth_dev_configure(0, 1, 1, &conf) != 0 ||
	    rte_eth_rx_queue_setup(0, 0, 1024, 0, NULL, pool) != 0 ||
	    rte_eth_tx_queue_setup(0, 0, 1024, 0, NULL) != 0 || rte_eth_dev_start(0) != 0)
		die("the port does not start");
	rte_eth_macaddr_get(0, &own_mac);
	rte_eal_remote_launch(loop, NULL, rte_get_next_lcore(-1, 1, 0));
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		printf("received %" PRIu64 " sent %" PRIu64 "\n", received, sent);
		fflush(stdout);
	}
	return 0;
}
