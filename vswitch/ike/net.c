// SPDX-License-Identifier: GPL-2.0-or-later
/* charon's kernel-net: the host has the switch's tunnel endpoints and nothing else. */
#include "plugin.h"

#include <kernel/kernel_net.h>

/* The name of the one interface that charon believes to see. */
#define INTERFACE "vswitch"

/* One endpoint a family is what a switch has; a few more do no harm. */
#define ADDRESSES_MAX 8

static struct {
	host_t *all[ADDRESSES_MAX];
	size_t count;
} own;

bool vswitch_net_add(const char *address)
{
	host_t *host = NULL;

	if (own.count < ADDRESSES_MAX)
		host = host_create_from_string((char *)address, 0);
	if (!host)
		return FALSE;
	own.all[own.count++] = host;
	return TRUE;
}

METHOD(kernel_net_t, get_features, kernel_feature_t, kernel_net_t *this)
{
	return 0;
}

METHOD(kernel_net_t, get_source_addr, host_t *, kernel_net_t *this, host_t *destination,
       host_t *source)
{
	int family = destination->get_family(destination);

	for (size_t at = 0; at < own.count; at++) {
		if (own.all[at]->get_family(own.all[at]) == family)
			return own.all[at]->clone(own.all[at]);
	}
	return NULL;
}

METHOD(kernel_net_t, get_nexthop, host_t *, kernel_net_t *this, host_t *destination, int prefix,
       host_t *source, char **interface)
{
	if (interface)
		*interface = strdup(INTERFACE);
	return destination->clone(destination);
}

METHOD(kernel_net_t, get_interface, bool, kernel_net_t *this, host_t *host, char **name)
{
	for (size_t at = 0; at < own.count; at++) {
		if (host->ip_equals(host, own.all[at])) {
			if (name)
				*name = strdup(INTERFACE);
			return TRUE;
		}
	}
	return FALSE;
}

typedef struct {
	enumerator_t public;
	size_t next;
} addresses_t;

METHOD(enumerator_t, enumerate_addresses, bool, addresses_t *this, va_list arguments)
{
	host_t **host;

	VA_ARGS_VGET(arguments, host);
	if (this->next == own.count)
		return FALSE;
	*host = own.all[this->next++];
	return TRUE;
}

METHOD(enumerator_t, destroy_addresses, void, addresses_t *this)
{
	free(this);
}

METHOD(kernel_net_t, create_address_enumerator, enumerator_t *, kernel_net_t *this,
       kernel_address_type_t which)
{
	addresses_t *addresses;

	INIT(addresses,
		.public = {
			.enumerate = enumerator_enumerate_default,
			.venumerate = _enumerate_addresses,
			.destroy = _destroy_addresses,
		},
	);
	return &addresses->public;
}

METHOD(kernel_net_t, create_local_subnet_enumerator, enumerator_t *, kernel_net_t *this)
{
	return enumerator_create_empty();
}

METHOD(kernel_net_t, add_ip, status_t, kernel_net_t *this, host_t *address, int prefix,
       char *interface)
{
	return NOT_SUPPORTED;
}

METHOD(kernel_net_t, del_ip, status_t, kernel_net_t *this, host_t *address, int prefix, bool wait)
{
	return NOT_SUPPORTED;
}

METHOD(kernel_net_t, add_route, status_t, kernel_net_t *this, chunk_t destination, uint8_t length,
       host_t *gateway, host_t *source, char *interface, bool pass)
{
	return NOT_SUPPORTED;
}

METHOD(kernel_net_t, del_route, status_t, kernel_net_t *this, chunk_t destination, uint8_t length,
       host_t *gateway, host_t *source, char *interface, bool pass)
{
	return NOT_SUPPORTED;
}

METHOD(kernel_net_t, destroy, void, kernel_net_t *this)
{
	free(this);
}

kernel_net_t *vswitch_net_create(void)
{
	kernel_net_t *this;

	INIT(this,
		.get_features = _get_features,
		.get_source_addr = _get_source_addr,
		.get_nexthop = _get_nexthop,
		.get_interface = _get_interface,
		.create_address_enumerator = _create_address_enumerator,
		.create_local_subnet_enumerator = _create_local_subnet_enumerator,
		.add_ip = _add_ip,
		.del_ip = _del_ip,
		.add_route = _add_route,
		.del_route = _del_route,
		.destroy = _destroy,
	);
	return this;
}
