/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The texts that charon and the switch exchange (docs/reference/ike-protocol.md), without any
 * input or output. Every length is bounded, and everything that the switch sends is parsed as
 * hostile.
 */
#ifndef VSWITCH_IKE_MESSAGE_H
#define VSWITCH_IKE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The largest message in either direction, in bytes. */
#define MESSAGE_MAX 8192

/* What precedes an IKE datagram: family, a zero, two ports, two addresses. */
#define IKE_HEADER 38

/* The longest sentence of the switch that is kept, with its terminator. */
#define SENTENCE_MAX 256

/* An IP address. */
typedef struct {
	/* 4 or 6. */
	uint8_t family;
	/* 4 or 16 bytes in network order. */
	uint8_t bytes[16];
} address_t;

/* The number of bytes of an address: 4 or 16; 0 for any other family. */
size_t address_length(uint8_t family);

/* A range of addresses, one protocol (0: any) and a range of ports. */
typedef struct {
	uint8_t protocol;
	address_t from, to;
	uint16_t from_port, to_port;
} selector_t;

/* A message being written: a verb, then ` key=value` again and again. */
typedef struct {
	char text[MESSAGE_MAX];
	size_t length;
	/* Something did not fit or is not expressible. Such a message is not sent. */
	bool failed;
} request_t;

void request_start(request_t *request, const char *verb);
/* A value of printable characters without spaces. */
void request_word(request_t *request, const char *key, const char *value);
void request_number(request_t *request, const char *key, uint64_t value);
/* In host order. */
void request_spi(request_t *request, uint32_t spi);
void request_hex(request_t *request, const char *key, const uint8_t *bytes, size_t length);
void request_address(request_t *request, const char *key, const address_t *address);
/* The first selector of a list; each further one is added by request_more(). */
void request_selector(request_t *request, const char *key, const selector_t *selector);
void request_more(request_t *request, const selector_t *selector);
/* Overwrites the text, keys included. */
void request_wipe(request_t *request);

/* What an answer of the switch says. */
typedef enum {
	ANSWER_OK,
	/* The switch refuses, and says why. */
	ANSWER_REFUSED,
	/* It is no answer at all. */
	ANSWER_MALFORMED,
} answer_t;

/*
 * Parses `ok`, `ok VALUES` or `error SENTENCE`. `rest` gets the values or the sentence, as a
 * string of printable characters, shortened to its size.
 */
answer_t parse_answer(const char *text, size_t length, char *rest, size_t size);

/* Parses the value of get_spi: eight hexadecimal digits. */
bool parse_spi(const char *values, uint32_t *spi);

/* Parses the values of query_sa: bytes, packets, seconds since the last use. */
bool parse_usage(const char *values, uint64_t usage[3]);

typedef enum {
	/* A frame waits for the trap policy `reqid`. */
	EVENT_ACQUIRE,
	/* An SA is to be rekeyed (soft), or is gone (hard). */
	EVENT_EXPIRE,
} event_kind_t;

typedef struct {
	event_kind_t kind;
	uint32_t reqid;
	/* In host order. */
	uint32_t spi;
	address_t destination;
	bool hard;
} event_t;

/* Parses `acquire reqid=N` or `expire spi=HEX dst=IP kind=soft|hard`. */
bool parse_event(const char *text, size_t length, event_t *event);

/* Where an IKE datagram comes from and goes to; ports in host order. */
typedef struct {
	address_t source, destination;
	uint16_t source_port, destination_port;
} path_t;

/* Writes the header; false if the families differ or are unknown. */
bool ike_header_write(uint8_t header[IKE_HEADER], const path_t *path);
/* Reads the header of a message of this length. */
bool ike_header_read(const uint8_t *message, size_t length, path_t *path);

#endif
