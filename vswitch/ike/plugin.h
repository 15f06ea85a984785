/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The plugin `vswitch`: charon's kernel and its network are the tenant's switch. */
#ifndef VSWITCH_IKE_PLUGIN_H
#define VSWITCH_IKE_PLUGIN_H

#include <kernel/kernel_ipsec.h>
#include <kernel/kernel_net.h>
#include <network/socket.h>
#include <plugins/plugin.h>

kernel_ipsec_t *vswitch_ipsec_create(void);
kernel_net_t *vswitch_net_create(void);
socket_t *vswitch_socket_create(void);

/* Adds an address of the switch's tunnel endpoints; false if it is none, or one too many. */
bool vswitch_net_add(const char *address);

plugin_t *vswitch_plugin_create(void);

#endif
