// SPDX-License-Identifier: GPL-2.0-or-later
/* charon's socket: IKE datagrams go to the switch and come from it, with their addresses. */
#include "plugin.h"

#include <sys/socket.h>

#include <network/socket.h>

#include "channel.h"

METHOD(socket_t, receive, status_t, socket_t *this, packet_t **received)
{
	uint8_t message[MESSAGE_MAX];
	size_t length = channel_receive(CHANNEL_IKE, message, sizeof(message));
	packet_t *packet;
	path_t path;

	if (length == 0)
		return NOT_SUPPORTED;
	if (!ike_header_read(message, length, &path)) {
		channel_lost("an IKE datagram has no header");
		return NOT_SUPPORTED;
	}
	packet = packet_create();
	packet->set_source(packet, host_of(&path.source, path.source_port));
	packet->set_destination(packet, host_of(&path.destination, path.destination_port));
	packet->set_data(packet,
		chunk_clone(chunk_create(message + IKE_HEADER, length - IKE_HEADER)));
	*received = packet;
	return SUCCESS;
}

METHOD(socket_t, send_packet, status_t, socket_t *this, packet_t *packet)
{
	host_t *source = packet->get_source(packet);
	host_t *destination = packet->get_destination(packet);
	chunk_t data = packet->get_data(packet);
	uint8_t message[MESSAGE_MAX];
	path_t path = {
		.source_port = source->get_port(source),
		.destination_port = destination->get_port(destination),
	};

	if (data.len > sizeof(message) - IKE_HEADER || !address_of(source, &path.source)
	    || !address_of(destination, &path.destination) || !ike_header_write(message, &path)) {
		DBG1(DBG_NET, "an IKE datagram of %zu bytes cannot be sent", data.len);
		return FAILED;
	}
	memcpy(message + IKE_HEADER, data.ptr, data.len);
	if (send(channel_fd(CHANNEL_IKE), message, IKE_HEADER + data.len, MSG_NOSIGNAL) < 0) {
		channel_lost("it takes no IKE datagram");
		return FAILED;
	}
	return SUCCESS;
}

METHOD(socket_t, get_port, uint16_t, socket_t *this, bool nat_t)
{
	return nat_t ? 4500 : 500;
}

METHOD(socket_t, supported_families, socket_family_t, socket_t *this)
{
	return SOCKET_FAMILY_BOTH;
}

METHOD(socket_t, destroy, void, socket_t *this)
{
	shutdown(channel_fd(CHANNEL_IKE), SHUT_RDWR);
	free(this);
}

socket_t *vswitch_socket_create(void)
{
	socket_t *this;

	INIT(this,
		.receive = _receive,
		.send = _send_packet,
		.get_port = _get_port,
		.supported_families = _supported_families,
		.destroy = _destroy,
	);
	return this;
}
