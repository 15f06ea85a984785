/* The functions of DPDK that are `static inline` in its headers, and so have no symbol to link to.
 * Each has the name of the original with the suffix `_shim`, its parameters and its meaning. */
#ifndef DPDK_SYS_SHIM_H
#define DPDK_SYS_SHIM_H

#include <sys/socket.h>

#include <rte_alarm.h>
#include <rte_bus_vdev.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Function-like macros, which bindgen cannot evaluate. */
static const uint64_t RTE_ETH_RX_OFFLOAD_VLAN_STRIP_SHIM = RTE_ETH_RX_OFFLOAD_VLAN_STRIP;

/* `rte_errno` is a macro over a thread-local variable. */
int rte_errno_shim(void);

/* DPDK's messages go to standard error, and no longer to the system's log as well: after start-up
 * that would take a new socket. Closes the one that the EAL has opened. */
void rte_log_to_stderr_shim(void);

unsigned int rte_lcore_id_shim(void);

struct rte_mbuf *rte_pktmbuf_alloc_shim(struct rte_mempool *pool);
int rte_pktmbuf_alloc_bulk_shim(struct rte_mempool *pool, struct rte_mbuf **mbufs,
                                unsigned int count);
void rte_pktmbuf_free_shim(struct rte_mbuf *mbuf);

uint16_t rte_eth_rx_burst_shim(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs,
                               uint16_t count);
uint16_t rte_eth_tx_burst_shim(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs,
                               uint16_t count);

/* The kernel moves the outermost tag of a frame beside it, and net_af_packet reports the tag's
 * control information but not its type. So that an 802.1ad tag does not pass as one of 802.1Q, the
 * socket's program keeps of such a frame this many bytes, the two addresses. No other frame is that
 * short. */
#define AF_PACKET_SERVICE_TAG_LEN 12

/* What net_af_packet calls in place of setsockopt(): the build redirects it.
 *
 * The driver puts its socket into a fanout group of one, with PACKET_FANOUT_FLAG_DEFRAG. The kernel
 * then reassembles IPv4 packets before the driver sees them: the filter would see packets that nobody
 * sent, and incomplete ones would vanish uncounted. A spoof filter must see the frames that were sent.
 * One queue needs no fanout, so the request is not made. Instead the socket is set to ignore frames
 * that the kernel itself sends from the interface, which the driver would report as received. */
int af_packet_setsockopt_shim(int socket, int level, int name, const void *value, socklen_t size);

/* What net_af_packet calls in place of ioctl(), likewise.
 *
 * At its start the driver writes the interface's flags and MAC back, which needs CAP_NET_ADMIN. The
 * switch must not change the interface: such a request succeeds without effect. */
int af_packet_ioctl_shim(int socket, unsigned long request, void *argument);

#endif
