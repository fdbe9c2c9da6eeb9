/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A paced generator of packets: sends so many a second to a program at the other end of a memif link, takes back what that
 * sends on, and tells what was lost and how long the way there and back took. The packets are UDP of IPv4 from as many
 * clients as there are flows to one virtual service; each carries its moment of departure.
 *
 * usage: generator [EAL OPTION...] -- FLOWS
 * Reads lines "RATE MILLISECONDS" (rate 0: as fast as it goes) and answers each with what came of it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_udp.h>

#define BURST 32
#define FRAME 60
/* Latencies in nanoseconds: 32 classes for each power of two. */
#define CLASSES (32 * 40)

struct stamp {
	uint64_t cycles;
	uint32_t run;
} __rte_packed;

struct client {
	uint32_t addr;
	uint16_t port;
	uint16_t sum;
};

static struct client *clients;
static uint32_t flows, run;
static struct rte_mempool *pool;
static uint8_t template[FRAME];
static uint64_t classes[CLASSES];

static void die(const char *what)
{
	fprintf(stderr, "generator: %s\n", what);
	exit(1);
}

static unsigned class_of(uint64_t ns)
{
	if (ns < 32)
		return (unsigned)ns;
	unsigned power = 63 - (unsigned)__builtin_clzll(ns);
	unsigned at = (power - 4) * 32 + (unsigned)((ns >> (power - 5)) & 31);
	return at < CLASSES ? at : CLASSES - 1;
}

static uint64_t class_value(unsigned at)
{
	if (at < 32)
		return at;
	unsigned power = at / 32 + 4;
	return (32 + (uint64_t)(at % 32)) << (power - 5);
}

static uint64_t percentile(uint64_t count, double part)
{
	uint64_t sum = 0, wanted = (uint64_t)((double)count * part);
	for (unsigned at = 0; at < CLASSES; at++) {
		sum += classes[at];
		if (sum > wanted)
			return class_value(at);
	}
	return 0;
}

/* The frame of which all others differ in the client alone. */
static void lay_out(void)
{
	struct rte_ether_hdr *eth = (struct rte_ether_hdr *)template;
	struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(eth + 1);
	struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(ip + 1);

	eth->dst_addr = (struct rte_ether_addr){ { 2, 0x70, 0x63, 0x61, 0x70, 0 } };
	eth->src_addr = (struct rte_ether_addr){ { 2, 0, 0, 0, 1, 1 } };
	eth->ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
	ip->version_ihl = 0x45;
	ip->total_length = rte_cpu_to_be_16(FRAME - 14);
	ip->fragment_offset = rte_cpu_to_be_16(0x4000);
	ip->time_to_live = 64;
	ip->next_proto_id = 17;
	ip->dst_addr = rte_cpu_to_be_32(0xc0000201);
	udp->dst_port = rte_cpu_to_be_16(80);
	udp->dgram_len = rte_cpu_to_be_16(FRAME - 34);
	for (uint32_t flow = 0; flow < flows; flow++) {
		struct client *client = &clients[flow];
		client->addr = rte_cpu_to_be_32(0x64400001 + flow / 61);
		client->port = rte_cpu_to_be_16((uint16_t)(1024 + flow % 61 * 1009));
		ip->src_addr = client->addr;
		ip->hdr_checksum = 0;
		client->sum = rte_ipv4_cksum(ip);
	}
}

static void fill(struct rte_mbuf *mbuf, const struct client *client)
{
	uint8_t *bytes = (uint8_t *)rte_pktmbuf_append(mbuf, FRAME);
	struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(bytes + 14);
	struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(ip + 1);
	struct stamp stamp = { rte_rdtsc(), run };

	memcpy(bytes, template, FRAME);
	ip->src_addr = client->addr;
	ip->hdr_checksum = client->sum;
	udp->src_port = client->port;
	memcpy(udp + 1, &stamp, sizeof(stamp));
}

static uint64_t take(uint64_t *longest)
{
	struct rte_mbuf *mbufs[BURST];
	uint16_t got = rte_eth_rx_burst(0, 0, mbufs, BURST);
	uint64_t now = rte_rdtsc(), ours = 0;
	double ns = 1e9 / (double)rte_get_tsc_hz();

	for (uint16_t i = 0; i < got; i++) {
		struct stamp stamp;
		if (rte_pktmbuf_data_len(mbufs[i]) < 42 + sizeof(stamp))
			continue;
		memcpy(&stamp, rte_pktmbuf_mtod_offset(mbufs[i], uint8_t *, 42), sizeof(stamp));
		if (stamp.run != run)
			continue;
		uint64_t took = (uint64_t)((double)(now - stamp.cycles) * ns);
		classes[class_of(took)]++;
		if (took > *longest)
			*longest = took;
		ours++;
	}
	rte_pktmbuf_free_bulk(mbufs, got);
	return ours;
}

static void play(uint64_t rate, uint64_t milliseconds)
{
	struct rte_mbuf *mbufs[BURST];
	uint64_t hz = rte_get_tsc_hz(), start = rte_rdtsc(), end = start + hz / 1000 * milliseconds;
	uint64_t offered = 0, refused = 0, received = 0, longest = 0, own_pause = 0, last = start;
	uint32_t flow = 0;

	run++;
	memset(classes, 0, sizeof(classes));
	for (uint64_t now = start; now < end; now = rte_rdtsc()) {
		if (now - last > own_pause)
			own_pause = now - last;
		last = now;
		uint64_t due = rate == 0 ? BURST
					 : (uint64_t)((double)(now - start) / (double)hz * (double)rate) - offered;
		/* What a pause of our own left undone is not made up for: it would come faster than the rate. */
		if (rate != 0 && due > 8 * BURST) {
			start += (uint64_t)((double)(due - BURST) / (double)rate * (double)hz);
			due = BURST;
		}
		uint16_t count = due > BURST ? BURST : (uint16_t)due;
		if (count > 0 && rte_pktmbuf_alloc_bulk(pool, mbufs, count) == 0) {
			for (uint16_t i = 0; i < count; i++) {
				fill(mbufs[i], &clients[flow]);
				flow = flow + 1 == flows ? 0 : flow + 1;
			}
			uint16_t done = rte_eth_tx_burst(0, 0, mbufs, count);
			rte_pktmbuf_free_bulk(mbufs + done, count - done);
			refused += count - done;
			offered += count;
		}
		received += take(&longest);
	}
	for (uint64_t now = rte_rdtsc(); rte_rdtsc() - now < hz / 5;)
		received += take(&longest);
	printf("result offered %" PRIu64 " refused %" PRIu64 " received %" PRIu64 " p50 %" PRIu64 " p99 %" PRIu64
	       " p999 %" PRIu64 " longest %" PRIu64 " pause %" PRIu64 "\n",
	       offered, refused, received, percentile(received, 0.5), percentile(received, 0.99),
	       percentile(received, 0.999), longest, (uint64_t)((double)own_pause * 1e9 / (double)hz));
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct rte_eth_conf conf = { 0 };
	char line[64];
	int used = rte_eal_init(argc, argv);

	if (used < 0)
		die("no EAL");
	if (argc - used != 2)
		die("wants FLOWS");
	flows = (uint32_t)strtoul(argv[used + 1], NULL, 10);
	clients = calloc(flows, sizeof(*clients));
	pool = rte_pktmbuf_pool_create("pool", 131071, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
	if (flows == 0 || clients == NULL || pool == NULL)
		die("not enough memory");
	if (rte_eth_dev_configure(0, 1, 1, &conf) != 0 ||
	    rte_eth_rx_queue_setup(0, 0, 16384, 0, NULL, pool) != 0 ||
	    rte_eth_tx_queue_setup(0, 0, 16384, 0, NULL) != 0 || rte_eth_dev_start(0) != 0)
		die("the port does not start");
	lay_out();
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		struct rte_eth_link link = { 0 };
		uint64_t rate, milliseconds;
		if (sscanf(line, "%" SCNu64 " %" SCNu64, &rate, &milliseconds) != 2)
			die("wants RATE MILLISECONDS");
		for (int tries = 0; tries < 5000; tries++) {
			rte_eth_link_get_nowait(0, &link);
			if (link.link_status != 0)
				break;
			rte_delay_us_sleep(1000);
		}
		play(rate, milliseconds);
	}
	return 0;
}
