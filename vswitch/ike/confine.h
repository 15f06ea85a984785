/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What charon gives up: it parses what peers send, and holds a tenant's keys. */
#ifndef VSWITCH_IKE_CONFINE_H
#define VSWITCH_IKE_CONFINE_H

#include <stdbool.h>

/* No privileges, no core, no tracer; memory is locked if the limits allow it. */
bool confine_process(void);

/* Nothing but the system calls of a running charon, on all threads, for good. */
bool confine_calls(void);

#endif
