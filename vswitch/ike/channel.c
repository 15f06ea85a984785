// SPDX-License-Identifier: GPL-2.0-or-later
#include "channel.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <threading/mutex.h>
#include <threading/thread.h>

/* How long the switch may take to answer: it asks no one, so a longer silence is its end. */
#define ANSWER_TIMEOUT_S 10

static const char *const ROLES[CHANNELS] = {"ctl", "evt", "ike"};

static struct {
	int fd[CHANNELS];
	/* One request at a time. */
	mutex_t *ctl;
	atomic_bool lost;
} channels = {.fd = {-1, -1, -1}};

static int connect_as(const struct sockaddr_un *address, const char *role)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0
	    || send(fd, role, strlen(role), MSG_NOSIGNAL) < 0) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

bool channel_open(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval timeout = {.tv_sec = ANSWER_TIMEOUT_S};
	size_t length = strlen(path);

	if (length >= sizeof(address.sun_path)) {
		fprintf(stderr, "the switch's socket %s: the path has more than %zu bytes\n", path,
		        sizeof(address.sun_path) - 1);
		return false;
	}
	memcpy(address.sun_path, path, length);
	for (int role = 0; role < CHANNELS; role++) {
		channels.fd[role] = connect_as(&address, ROLES[role]);
		if (channels.fd[role] < 0) {
			fprintf(stderr, "no switch at %s: %s\n", path, strerror(errno));
			return false;
		}
	}
	if (setsockopt(channels.fd[CHANNEL_CTL], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout))
	    || setsockopt(channels.fd[CHANNEL_CTL], SOL_SOCKET, SO_SNDTIMEO, &timeout,
	                  sizeof(timeout))) {
		fprintf(stderr, "the switch's socket %s: %s\n", path, strerror(errno));
		return false;
	}
	channels.ctl = mutex_create(MUTEX_TYPE_DEFAULT);
	return true;
}

int channel_fd(channel_t channel)
{
	return channels.fd[channel];
}

void channel_lost(const char *why)
{
	if (atomic_exchange(&channels.lost, true))
		return;
	DBG1(DBG_DMN, "the switch is gone (%s): ending", why);
	for (int role = 0; role < CHANNELS; role++)
		shutdown(channels.fd[role], SHUT_RDWR);
	kill(getpid(), SIGTERM);
}

bool channel_is_lost(void)
{
	return atomic_load(&channels.lost);
}

static ssize_t exchange(const request_t *request, char *answer, size_t size)
{
	int fd = channels.fd[CHANNEL_CTL];

	if (send(fd, request->text, request->length, MSG_NOSIGNAL) < 0)
		return -1;
	return recv(fd, answer, size, 0);
}

status_t channel_call(request_t *request, char *values)
{
	char answer[MESSAGE_MAX], rest[SENTENCE_MAX];
	answer_t verdict;
	ssize_t length;
	bool old;

	if (request->failed) {
		request_wipe(request);
		DBG1(DBG_KNL, "a request to the switch cannot be expressed");
		return FAILED;
	}
	if (channel_is_lost()) {
		request_wipe(request);
		return FAILED;
	}
	/* A cancelled thread would leave its answer to the next request. */
	old = thread_cancelability(FALSE);
	channels.ctl->lock(channels.ctl);
	length = exchange(request, answer, sizeof(answer));
	channels.ctl->unlock(channels.ctl);
	thread_cancelability(old);
	request_wipe(request);
	if (length <= 0) {
		channel_lost(length < 0 ? "no answer" : "its end of the connection is closed");
		return FAILED;
	}
	verdict = parse_answer(answer, (size_t)length, rest, sizeof(rest));
	if (verdict == ANSWER_MALFORMED) {
		channel_lost("an answer is malformed");
		return FAILED;
	}
	if (verdict == ANSWER_REFUSED) {
		DBG1(DBG_KNL, "the switch refuses: %s", rest);
		return FAILED;
	}
	if (values)
		memcpy(values, rest, sizeof(rest));
	return SUCCESS;
}

size_t channel_receive(channel_t channel, void *buffer, size_t size)
{
	bool old = thread_cancelability(TRUE);
	ssize_t length;

	do {
		length = recv(channels.fd[channel], buffer, size, 0);
	} while (length < 0 && errno == EINTR);
	thread_cancelability(old);
	if (length > 0)
		return (size_t)length;
	channel_lost("its end of the connection is closed");
	return 0;
}

bool address_of(host_t *host, address_t *address)
{
	chunk_t bytes = host->get_address(host);

	memset(address, 0, sizeof(*address));
	if (bytes.len != 4 && bytes.len != 16)
		return false;
	address->family = bytes.len == 4 ? 4 : 6;
	memcpy(address->bytes, bytes.ptr, bytes.len);
	return true;
}

host_t *host_of(const address_t *address, uint16_t port)
{
	chunk_t bytes = chunk_create((u_char *)address->bytes, address_length(address->family));

	return host_create_from_chunk(address->family == 6 ? AF_INET6 : AF_INET, bytes, port);
}
