// SPDX-License-Identifier: GPL-2.0-or-later
/* charon's kernel-ipsec: SPIs, SAs and policies are the switch's. */
#include "plugin.h"

#include <daemon.h>
#include <kernel/kernel_ipsec.h>
#include <processing/jobs/callback_job.h>
#include <selectors/traffic_selector.h>

#include "channel.h"

/* More selectors of one SA than this are never negotiated: a connection has one a side. */
#define SELECTORS_MAX 4

/* What the switch can do, by charon's names of the transforms. */
static const struct {
	const char *name;
	uint16_t encryption, integrity;
	/* With the salt of an AEAD, in bytes. */
	size_t key, integrity_key;
} SUITES[] = {
	{"aes128gcm16", ENCR_AES_GCM_ICV16, AUTH_UNDEFINED, 16 + 4, 0},
	{"aes256gcm16", ENCR_AES_GCM_ICV16, AUTH_UNDEFINED, 32 + 4, 0},
	{"chacha20poly1305", ENCR_CHACHA20_POLY1305, AUTH_UNDEFINED, 32 + 4, 0},
	{"aes256-sha256", ENCR_AES_CBC, AUTH_HMAC_SHA2_256_128, 32, 32},
};

static const char *suite_of(const kernel_ipsec_add_sa_t *sa)
{
	for (size_t at = 0; at < countof(SUITES); at++) {
		if (SUITES[at].encryption == sa->enc_alg && SUITES[at].integrity == sa->int_alg
		    && SUITES[at].key == sa->enc_key.len && SUITES[at].integrity_key == sa->int_key.len)
			return SUITES[at].name;
	}
	return NULL;
}

static void put_host(request_t *request, const char *key, host_t *host)
{
	address_t address;

	if (!address_of(host, &address))
		request->failed = true;
	else
		request_address(request, key, &address);
}

static bool selector_of(traffic_selector_t *ts, selector_t *selector)
{
	chunk_t from = ts->get_from_address(ts), to = ts->get_to_address(ts);

	memset(selector, 0, sizeof(*selector));
	if ((from.len != 4 && from.len != 16) || to.len != from.len)
		return false;
	selector->protocol = ts->get_protocol(ts);
	selector->from.family = selector->to.family = from.len == 4 ? 4 : 6;
	memcpy(selector->from.bytes, from.ptr, from.len);
	memcpy(selector->to.bytes, to.ptr, to.len);
	selector->from_port = ts->get_from_port(ts);
	selector->to_port = ts->get_to_port(ts);
	return true;
}

static void put_selectors(request_t *request, const char *key, linked_list_t *list)
{
	enumerator_t *all = list->create_enumerator(list);
	traffic_selector_t *ts;
	size_t count = 0;

	while (all->enumerate(all, &ts)) {
		selector_t selector;

		if (++count > SELECTORS_MAX || !selector_of(ts, &selector))
			request->failed = true;
		else if (count == 1)
			request_selector(request, key, &selector);
		else
			request_more(request, &selector);
	}
	all->destroy(all);
	if (count == 0)
		request->failed = true;
}

static void put_selector(request_t *request, const char *key, traffic_selector_t *ts)
{
	selector_t selector;

	if (selector_of(ts, &selector))
		request_selector(request, key, &selector);
	else
		request->failed = true;
}

METHOD(kernel_ipsec_t, get_features, kernel_feature_t, kernel_ipsec_t *this)
{
	/* The switch sends by the newest outbound policy's SPI. */
	return KERNEL_POLICY_SPI;
}

METHOD(kernel_ipsec_t, get_spi, status_t, kernel_ipsec_t *this, host_t *source, host_t *destination,
       uint8_t protocol, uint32_t *spi)
{
	char values[SENTENCE_MAX];
	request_t request;
	uint32_t number;

	if (protocol != IPPROTO_ESP)
		return NOT_SUPPORTED;
	request_start(&request, "get_spi");
	put_host(&request, "src", source);
	put_host(&request, "dst", destination);
	if (channel_call(&request, values) != SUCCESS)
		return FAILED;
	/* 0 to 255 are reserved (RFC 4303, 2.1). */
	if (!parse_spi(values, &number) || number < 256) {
		channel_lost("an SPI is malformed");
		return FAILED;
	}
	*spi = htonl(number);
	return SUCCESS;
}

METHOD(kernel_ipsec_t, get_cpi, status_t, kernel_ipsec_t *this, host_t *source, host_t *destination,
       uint16_t *cpi)
{
	return NOT_SUPPORTED;
}

METHOD(kernel_ipsec_t, add_sa, status_t, kernel_ipsec_t *this, kernel_ipsec_sa_id_t *id,
       kernel_ipsec_add_sa_t *sa)
{
	const char *suite = suite_of(sa);
	const lifetime_cfg_t *life = sa->lifetime;
	request_t request;

	if (id->proto != IPPROTO_ESP || !suite || sa->ipcomp != IPCOMP_NONE) {
		DBG1(DBG_KNL, "the switch has no ESP of encryption %u, integrity %u, %zu bytes of key",
		     sa->enc_alg, sa->int_alg, sa->enc_key.len);
		return NOT_SUPPORTED;
	}
	if (sa->mode != MODE_TRANSPORT && sa->mode != MODE_TUNNEL)
		return NOT_SUPPORTED;
	request_start(&request, "add_sa");
	request_word(&request, "dir", sa->inbound ? "in" : "out");
	put_host(&request, "src", id->src);
	put_host(&request, "dst", id->dst);
	request_spi(&request, ntohl(id->spi));
	request_number(&request, "reqid", sa->reqid);
	request_word(&request, "mode", sa->mode == MODE_TUNNEL ? "tunnel" : "transport");
	request_word(&request, "suite", suite);
	request_hex(&request, "key", sa->enc_key.ptr, sa->enc_key.len);
	request_hex(&request, "auth", sa->int_key.ptr, sa->int_key.len);
	request_number(&request, "esn", sa->esn);
	request_number(&request, "encap", sa->encap);
	request_number(&request, "sport", id->src->get_port(id->src));
	request_number(&request, "dport", id->dst->get_port(id->dst));
	request_number(&request, "soft_s", life->time.rekey);
	request_number(&request, "hard_s", life->time.life);
	request_number(&request, "soft_b", life->bytes.rekey);
	request_number(&request, "hard_b", life->bytes.life);
	request_number(&request, "soft_p", life->packets.rekey);
	request_number(&request, "hard_p", life->packets.life);
	put_selectors(&request, "src_ts", sa->src_ts);
	put_selectors(&request, "dst_ts", sa->dst_ts);
	return channel_call(&request, NULL);
}

static void name_sa(request_t *request, const char *verb, kernel_ipsec_sa_id_t *id)
{
	request_start(request, verb);
	put_host(request, "dst", id->dst);
	request_spi(request, ntohl(id->spi));
}

METHOD(kernel_ipsec_t, update_sa, status_t, kernel_ipsec_t *this, kernel_ipsec_sa_id_t *id,
       kernel_ipsec_update_sa_t *to)
{
	request_t request;

	if (to->cpi)
		return NOT_SUPPORTED;
	name_sa(&request, "update_sa", id);
	put_host(&request, "new_src", to->new_src);
	put_host(&request, "new_dst", to->new_dst);
	request_number(&request, "encap", to->new_encap);
	request_number(&request, "sport", to->new_src->get_port(to->new_src));
	request_number(&request, "dport", to->new_dst->get_port(to->new_dst));
	return channel_call(&request, NULL);
}

METHOD(kernel_ipsec_t, query_sa, status_t, kernel_ipsec_t *this, kernel_ipsec_sa_id_t *id,
       kernel_ipsec_query_sa_t *data, uint64_t *bytes, uint64_t *packets, time_t *used)
{
	char values[SENTENCE_MAX];
	request_t request;
	uint64_t usage[3];
	time_t now = time_monotonic(NULL);

	name_sa(&request, "query_sa", id);
	if (channel_call(&request, values) != SUCCESS)
		return FAILED;
	if (!parse_usage(values, usage)) {
		channel_lost("the use of an SA is malformed");
		return FAILED;
	}
	if (bytes)
		*bytes = usage[0];
	if (packets)
		*packets = usage[1];
	if (used)
		*used = usage[1] && usage[2] < (uint64_t)now ? now - (time_t)usage[2] : 0;
	return SUCCESS;
}

METHOD(kernel_ipsec_t, del_sa, status_t, kernel_ipsec_t *this, kernel_ipsec_sa_id_t *id,
       kernel_ipsec_del_sa_t *data)
{
	request_t request;

	name_sa(&request, "del_sa", id);
	return channel_call(&request, NULL);
}

METHOD(kernel_ipsec_t, flush_sas, status_t, kernel_ipsec_t *this)
{
	request_t request;

	request_start(&request, "flush");
	request_word(&request, "what", "sas");
	return channel_call(&request, NULL);
}

/* Inbound packets are judged by their SA's selectors, so only outbound policies are sent. */
static status_t policy(const char *verb, kernel_ipsec_policy_id_t *id,
                       kernel_ipsec_manage_policy_t *policy)
{
	request_t request;

	if (policy->type != POLICY_IPSEC)
		return NOT_SUPPORTED;
	if (id->dir != POLICY_OUT)
		return SUCCESS;
	request_start(&request, verb);
	put_selector(&request, "src_ts", id->src_ts);
	put_selector(&request, "dst_ts", id->dst_ts);
	request_number(&request, "reqid", policy->sa->reqid);
	/* 0 is a trap: the first frame asks for an SA. */
	request_spi(&request, ntohl(policy->sa->esp.spi));
	return channel_call(&request, NULL);
}

METHOD(kernel_ipsec_t, add_policy, status_t, kernel_ipsec_t *this, kernel_ipsec_policy_id_t *id,
       kernel_ipsec_manage_policy_t *data)
{
	return policy("add_policy", id, data);
}

METHOD(kernel_ipsec_t, query_policy, status_t, kernel_ipsec_t *this, kernel_ipsec_policy_id_t *id,
       kernel_ipsec_query_policy_t *data, time_t *used)
{
	return NOT_SUPPORTED;
}

METHOD(kernel_ipsec_t, del_policy, status_t, kernel_ipsec_t *this, kernel_ipsec_policy_id_t *id,
       kernel_ipsec_manage_policy_t *data)
{
	return policy("del_policy", id, data);
}

METHOD(kernel_ipsec_t, flush_policies, status_t, kernel_ipsec_t *this)
{
	request_t request;

	request_start(&request, "flush");
	request_word(&request, "what", "policies");
	return channel_call(&request, NULL);
}

METHOD(kernel_ipsec_t, bypass_socket, bool, kernel_ipsec_t *this, int fd, int family)
{
	return TRUE;
}

METHOD(kernel_ipsec_t, enable_udp_decap, bool, kernel_ipsec_t *this, int fd, int family,
       uint16_t port)
{
	return TRUE;
}

METHOD(kernel_ipsec_t, destroy, void, kernel_ipsec_t *this)
{
	free(this);
}

static void expired(const event_t *event)
{
	host_t *destination = host_of(&event->destination, 0);

	if (!destination)
		return;
	charon->kernel->expire(charon->kernel, IPPROTO_ESP, htonl(event->spi), destination,
	                       event->hard);
	destination->destroy(destination);
}

/* A job that is queued again and again: takes one event of the switch. */
static job_requeue_t take_event(void *none)
{
	kernel_acquire_data_t acquired = {};
	char text[MESSAGE_MAX];
	size_t length = channel_receive(CHANNEL_EVT, text, sizeof(text));
	event_t event;

	if (length == 0)
		return JOB_REQUEUE_NONE;
	if (!parse_event(text, length, &event)) {
		channel_lost("an event is malformed");
		return JOB_REQUEUE_NONE;
	}
	if (event.kind == EVENT_ACQUIRE)
		charon->kernel->acquire(charon->kernel, event.reqid, &acquired);
	else
		expired(&event);
	return JOB_REQUEUE_DIRECT;
}

static bool end_events(void *none)
{
	shutdown(channel_fd(CHANNEL_EVT), SHUT_RDWR);
	return FALSE;
}

kernel_ipsec_t *vswitch_ipsec_create(void)
{
	kernel_ipsec_t *this;

	INIT(this,
		.get_features = _get_features,
		.get_spi = _get_spi,
		.get_cpi = _get_cpi,
		.add_sa = _add_sa,
		.update_sa = _update_sa,
		.query_sa = _query_sa,
		.del_sa = _del_sa,
		.flush_sas = _flush_sas,
		.add_policy = _add_policy,
		.query_policy = _query_policy,
		.del_policy = _del_policy,
		.flush_policies = _flush_policies,
		.bypass_socket = _bypass_socket,
		.enable_udp_decap = _enable_udp_decap,
		.destroy = _destroy,
	);
	lib->processor->queue_job(lib->processor,
		(job_t *)callback_job_create_with_prio(take_event, NULL, NULL, end_events,
		                                       JOB_PRIO_CRITICAL));
	return this;
}
