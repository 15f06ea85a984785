#include "shim.h"

#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <syslog.h>

int rte_errno_shim(void)
{
	return rte_errno;
}

void rte_log_to_stderr_shim(void)
{
	closelog();
	rte_openlog_stream(stderr);
}

unsigned int rte_lcore_id_shim(void)
{
	return rte_lcore_id();
}

struct rte_mbuf *rte_pktmbuf_alloc_shim(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int rte_pktmbuf_alloc_bulk_shim(struct rte_mempool *pool, struct rte_mbuf **mbufs,
                                unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void rte_pktmbuf_free_shim(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

uint16_t rte_eth_rx_burst_shim(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs,
                               uint16_t count)
{
	return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t rte_eth_tx_burst_shim(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs,
                               uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

/* The program that AF_PACKET_SERVICE_TAG_LEN describes. */
static int mark_service_tags(int socket)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_VLAN_TPID),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_8021Q, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, AF_PACKET_SERVICE_TAG_LEN),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	const struct sock_fprog program = {
		.len = sizeof(code) / sizeof(code[0]),
		.filter = code,
	};

	return setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

int af_packet_setsockopt_shim(int socket, int level, int name, const void *value, socklen_t size)
{
	if (level == SOL_PACKET && name == PACKET_FANOUT) {
		const int on = 1;

		return setsockopt(socket, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
	}
	/* The first option that the driver sets, so before the socket is bound. */
	if (level == SOL_PACKET && name == PACKET_VERSION && mark_service_tags(socket) != 0)
		return -1;
	return setsockopt(socket, level, name, value, size);
}

int af_packet_ioctl_shim(int socket, unsigned long request, void *argument)
{
	if (request == SIOCSIFFLAGS || request == SIOCSIFHWADDR)
		return 0;
	return ioctl(socket, request, argument);
}

#ifdef DPDK_SYS_MLX5
#define RDMA_STATIC_PROVIDERS mlx5
#include <infiniband/verbs.h>

/* rdma-core loads its drivers from shared objects, unless told beforehand which are linked in. */
__attribute__((constructor)) static void name_static_provider(void)
{
	ibv_static_providers(NULL, &verbs_provider_mlx5, NULL);
}
#endif
