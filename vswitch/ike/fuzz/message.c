// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the switch may send, by libFuzzer with AddressSanitizer: `scripts/build-ike --fuzz 60`.
 * What is parsed is written again where the plugin can, and must be the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../message.h"

static void require(bool holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "does not hold: %s\n", what);
		abort();
	}
}

static void answers(const char *text, size_t length)
{
	char rest[SENTENCE_MAX];
	uint64_t usage[3];
	uint32_t spi;

	memset(rest, 'x', sizeof(rest));
	parse_answer(text, length, rest, sizeof(rest));
	require(memchr(rest, 0, sizeof(rest)) != NULL, "the rest is a string");
	for (const char *at = rest; *at; at++)
		require(*at >= ' ' && *at <= '~', "the rest is printable");
	if (parse_spi(rest, &spi)) {
		char again[9];

		snprintf(again, sizeof(again), "%08x", spi);
		require(strcmp(again, rest) == 0, "an SPI is eight digits");
	}
	parse_usage(rest, usage);
}

static void events(const char *text, size_t length)
{
	event_t event;
	request_t request;

	if (!parse_event(text, length, &event))
		return;
	if (event.kind == EVENT_ACQUIRE) {
		require(event.reqid != 0, "an acquire has a reqid");
		return;
	}
	request_start(&request, "expire");
	request_spi(&request, event.spi);
	request_address(&request, "dst", &event.destination);
	request_word(&request, "kind", event.hard ? "hard" : "soft");
	require(!request.failed, "an event can be written");
	/* The address may have been written in another way. */
	require(memcmp(request.text, text, strlen("expire spi=00000000 dst=")) == 0,
	        "an event is written as it was");
}

static void datagrams(const uint8_t *message, size_t length)
{
	uint8_t again[IKE_HEADER];
	path_t path;

	if (!ike_header_read(message, length, &path))
		return;
	require(ike_header_write(again, &path), "a header can be written");
	require(memcmp(again, message, 6) == 0, "family and ports are as they were");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A copy of the exact size, so that a read behind its end is noticed. */
	uint8_t *copy = malloc(size ? size : 1);

	memcpy(copy, data, size);
	answers((const char *)copy, size);
	events((const char *)copy, size);
	datagrams(copy, size);
	free(copy);
	return 0;
}
