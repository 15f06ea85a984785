/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The three connections to the switch, and the conversion of libstrongswan's addresses. */
#ifndef VSWITCH_IKE_CHANNEL_H
#define VSWITCH_IKE_CHANNEL_H

#include <library.h>
#include <networking/host.h>

#include "message.h"

/* The roles of the connections, in the order in which they are made. */
typedef enum {
	/* Requests of charon, each with one answer. */
	CHANNEL_CTL,
	/* Events from the switch. */
	CHANNEL_EVT,
	/* IKE datagrams both ways. */
	CHANNEL_IKE,
	CHANNELS,
} channel_t;

/* Connects to the switch's socket; says on standard error why not. */
bool channel_open(const char *path);

/* The descriptor of a connection. */
int channel_fd(channel_t channel);

/*
 * Sends a request and waits for its answer. Wipes the request. SUCCESS if the switch says ok,
 * whose values `values` then has (at least SENTENCE_MAX bytes, or NULL); FAILED if it refuses.
 */
status_t channel_call(request_t *request, char *values);

/* The next message of a connection, at most `size` bytes; 0 when the switch is gone. */
size_t channel_receive(channel_t channel, void *buffer, size_t size);

/* Ends charon, because no SA is left and nothing can be negotiated without the switch. */
void channel_lost(const char *why);

/* Whether channel_lost() was called. */
bool channel_is_lost(void);

/* Conversions; false for an address that is neither IPv4 nor IPv6. */
bool address_of(host_t *host, address_t *address);
host_t *host_of(const address_t *address, uint16_t port);

#endif
