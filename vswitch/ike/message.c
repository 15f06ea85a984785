// SPDX-License-Identifier: GPL-2.0-or-later
#include "message.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

size_t address_length(uint8_t family)
{
	switch (family) {
	case 4:
		return 4;
	case 6:
		return 16;
	default:
		return 0;
	}
}

/* ------------------------------------------------------------------ writing */

static void put(request_t *request, const char *bytes, size_t length)
{
	if (request->failed || length > sizeof(request->text) - request->length) {
		request->failed = true;
		return;
	}
	memcpy(request->text + request->length, bytes, length);
	request->length += length;
}

static void put_text(request_t *request, const char *text)
{
	put(request, text, strlen(text));
}

static void put_key(request_t *request, const char *key)
{
	put_text(request, " ");
	put_text(request, key);
	put_text(request, "=");
}

static void put_number(request_t *request, uint64_t value)
{
	char digits[21];
	int length = snprintf(digits, sizeof(digits), "%" PRIu64, value);

	if (length > 0)
		put(request, digits, (size_t)length);
}

static void put_address(request_t *request, const address_t *address)
{
	char text[INET6_ADDRSTRLEN];
	int family = address->family == 6 ? AF_INET6 : AF_INET;

	if (address_length(address->family) == 0
	    || !inet_ntop(family, address->bytes, text, sizeof(text))) {
		request->failed = true;
		return;
	}
	put_text(request, text);
}

static void put_selector(request_t *request, const selector_t *selector)
{
	put_number(request, selector->protocol);
	put_text(request, "/");
	put_address(request, &selector->from);
	put_text(request, "-");
	put_address(request, &selector->to);
	put_text(request, "/");
	put_number(request, selector->from_port);
	put_text(request, "-");
	put_number(request, selector->to_port);
}

void request_start(request_t *request, const char *verb)
{
	request->length = 0;
	request->failed = false;
	put_text(request, verb);
}

void request_word(request_t *request, const char *key, const char *value)
{
	for (const char *at = value; *at; at++) {
		if (*at <= ' ' || *at > '~')
			request->failed = true;
	}
	put_key(request, key);
	put_text(request, value);
}

void request_number(request_t *request, const char *key, uint64_t value)
{
	put_key(request, key);
	put_number(request, value);
}

void request_spi(request_t *request, uint32_t spi)
{
	uint8_t bytes[4] = {spi >> 24, spi >> 16, spi >> 8, spi};

	request_hex(request, "spi", bytes, sizeof(bytes));
}

void request_hex(request_t *request, const char *key, const uint8_t *bytes, size_t length)
{
	static const char DIGITS[] = "0123456789abcdef";

	put_key(request, key);
	for (size_t at = 0; at < length && !request->failed; at++) {
		char pair[2] = {DIGITS[bytes[at] >> 4], DIGITS[bytes[at] & 15]};

		put(request, pair, sizeof(pair));
	}
}

void request_address(request_t *request, const char *key, const address_t *address)
{
	put_key(request, key);
	put_address(request, address);
}

void request_selector(request_t *request, const char *key, const selector_t *selector)
{
	put_key(request, key);
	put_selector(request, selector);
}

void request_more(request_t *request, const selector_t *selector)
{
	put_text(request, ",");
	put_selector(request, selector);
}

void request_wipe(request_t *request)
{
	explicit_bzero(request, sizeof(*request));
}

/* ------------------------------------------------------------------ reading */

/* What is left of a text. */
typedef struct {
	const char *at, *end;
} cursor_t;

static bool take_text(cursor_t *cursor, const char *text)
{
	size_t length = strlen(text);

	if ((size_t)(cursor->end - cursor->at) < length || memcmp(cursor->at, text, length) != 0)
		return false;
	cursor->at += length;
	return true;
}

static bool at_end(const cursor_t *cursor)
{
	return cursor->at == cursor->end;
}

/* A decimal number of at most 20 digits, without a sign. */
static bool take_number(cursor_t *cursor, uint64_t *number)
{
	const char *start = cursor->at;

	*number = 0;
	while (!at_end(cursor) && *cursor->at >= '0' && *cursor->at <= '9') {
		uint64_t digit = (uint64_t)(*cursor->at - '0');

		if (*number > (UINT64_MAX - digit) / 10)
			return false;
		*number = *number * 10 + digit;
		cursor->at++;
	}
	return cursor->at > start && cursor->at - start <= 20;
}

static bool take_spi(cursor_t *cursor, uint32_t *spi)
{
	*spi = 0;
	for (int digit = 0; digit < 8; digit++) {
		char it;

		if (at_end(cursor))
			return false;
		it = *cursor->at++;
		*spi <<= 4;
		if (it >= '0' && it <= '9')
			*spi |= (uint32_t)(it - '0');
		else if (it >= 'a' && it <= 'f')
			*spi |= (uint32_t)(it - 'a' + 10);
		else
			return false;
	}
	return true;
}

/* An address, up to the next space. */
static bool take_address(cursor_t *cursor, address_t *address)
{
	char text[INET6_ADDRSTRLEN];
	size_t length = 0;

	while (!at_end(cursor) && *cursor->at != ' ') {
		if (length + 1 >= sizeof(text) || *cursor->at == '\0')
			return false;
		text[length++] = *cursor->at++;
	}
	text[length] = '\0';
	memset(address, 0, sizeof(*address));
	address->family = memchr(text, ':', length) ? 6 : 4;
	return inet_pton(address->family == 6 ? AF_INET6 : AF_INET, text, address->bytes) == 1;
}

answer_t parse_answer(const char *text, size_t length, char *rest, size_t size)
{
	cursor_t cursor = {text, text + length};
	answer_t answer = ANSWER_REFUSED;
	size_t kept = 0;

	rest[0] = '\0';
	if (!take_text(&cursor, "error ")) {
		if (!take_text(&cursor, "ok"))
			return ANSWER_MALFORMED;
		if (!at_end(&cursor) && !take_text(&cursor, " "))
			return ANSWER_MALFORMED;
		answer = ANSWER_OK;
	}
	for (; !at_end(&cursor); cursor.at++) {
		if (*cursor.at < ' ' || *cursor.at > '~') {
			rest[0] = '\0';
			return ANSWER_MALFORMED;
		}
		if (kept + 1 < size)
			rest[kept++] = *cursor.at;
	}
	rest[kept] = '\0';
	return answer;
}

bool parse_spi(const char *values, uint32_t *spi)
{
	cursor_t cursor = {values, values + strlen(values)};

	return take_spi(&cursor, spi) && at_end(&cursor);
}

bool parse_usage(const char *values, uint64_t usage[3])
{
	cursor_t cursor = {values, values + strlen(values)};

	return take_number(&cursor, &usage[0]) && take_text(&cursor, " ")
	       && take_number(&cursor, &usage[1]) && take_text(&cursor, " ")
	       && take_number(&cursor, &usage[2]) && at_end(&cursor);
}

bool parse_event(const char *text, size_t length, event_t *event)
{
	cursor_t cursor = {text, text + length};
	uint64_t reqid;

	memset(event, 0, sizeof(*event));
	if (take_text(&cursor, "acquire reqid=")) {
		event->kind = EVENT_ACQUIRE;
		if (!take_number(&cursor, &reqid) || reqid == 0 || reqid > UINT32_MAX)
			return false;
		event->reqid = (uint32_t)reqid;
		return at_end(&cursor);
	}
	event->kind = EVENT_EXPIRE;
	if (!take_text(&cursor, "expire spi=") || !take_spi(&cursor, &event->spi)
	    || !take_text(&cursor, " dst=") || !take_address(&cursor, &event->destination)
	    || !take_text(&cursor, " kind="))
		return false;
	event->hard = take_text(&cursor, "hard");
	return (event->hard || take_text(&cursor, "soft")) && at_end(&cursor);
}

/* ------------------------------------------------------------------ IKE */

enum {
	AT_FAMILY = 0,
	AT_SOURCE_PORT = 2,
	AT_DESTINATION_PORT = 4,
	AT_SOURCE = 6,
	AT_DESTINATION = 22,
};

bool ike_header_write(uint8_t header[IKE_HEADER], const path_t *path)
{
	uint16_t source_port = htons(path->source_port);
	uint16_t destination_port = htons(path->destination_port);
	size_t length = address_length(path->source.family);

	if (length == 0 || path->source.family != path->destination.family)
		return false;
	memset(header, 0, IKE_HEADER);
	header[AT_FAMILY] = path->source.family;
	memcpy(header + AT_SOURCE_PORT, &source_port, sizeof(source_port));
	memcpy(header + AT_DESTINATION_PORT, &destination_port, sizeof(destination_port));
	memcpy(header + AT_SOURCE, path->source.bytes, length);
	memcpy(header + AT_DESTINATION, path->destination.bytes, length);
	return true;
}

bool ike_header_read(const uint8_t *message, size_t length, path_t *path)
{
	size_t address;

	memset(path, 0, sizeof(*path));
	if (length <= IKE_HEADER || message[AT_FAMILY + 1] != 0)
		return false;
	address = address_length(message[AT_FAMILY]);
	if (address == 0)
		return false;
	path->source.family = message[AT_FAMILY];
	path->destination.family = message[AT_FAMILY];
	memcpy(path->source.bytes, message + AT_SOURCE, address);
	memcpy(path->destination.bytes, message + AT_DESTINATION, address);
	memcpy(&path->source_port, message + AT_SOURCE_PORT, sizeof(path->source_port));
	memcpy(&path->destination_port, message + AT_DESTINATION_PORT,
	       sizeof(path->destination_port));
	path->source_port = ntohs(path->source_port);
	path->destination_port = ntohs(path->destination_port);
	return true;
}
