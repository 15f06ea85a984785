// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * charon for one tenant's switch. All that it needs to know of its place is on the command line;
 * connections, keys and certificates come over VICI, and no file is read.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <daemon.h>
#include <library.h>
#include <plugins/plugin_loader.h>

#include "channel.h"
#include "confine.h"
#include "plugin.h"

/* Exit statuses, which docs/reference/ike-protocol.md lists. */
enum {
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_NO_SWITCH = 3,
	EXIT_SWITCH_GONE = 4,
};

/* In the order in which they are asked for an algorithm. */
#define PLUGINS "nonce pem pkcs1 pkcs8 x509 pubkey openssl kdf revocation constraints vswitch vici"

/* Fewer than six hang: some jobs wait for others. */
#define THREADS 8

/* Levels 3 and 4 print packets and keys, and are compiled out. */
#define LOG_LEVEL_MAX 2

static const char USAGE[] =
	"vswitch-charon --switch SOCKET --vici SOCKET --address IP[,IP]... [--log LEVEL]\n"
	"\n"
	"Negotiates keys (IKEv2) for one tenant's switch.\n"
	"\n"
	"  --switch SOCKET    the socket of `vswitch run --ike SOCKET`\n"
	"  --vici SOCKET      the socket to make for VICI, by which it is configured\n"
	"  --address IP,...   the addresses of the switch's tunnel endpoint\n"
	"  --log LEVEL        0 (audit) to 2 (each step); default 1\n"
	"\n"
	"Exit status: 0 ended by SIGTERM or SIGINT; 1 cannot start; 2 wrong usage; 3 no switch\n"
	"listens there; 4 the switch is gone.\n";

typedef struct {
	const char *switch_socket, *vici_socket, *addresses;
	int log_level;
} options_t;

static bool parse_options(int count, char **arguments, options_t *options)
{
	static const struct option LONG[] = {
		{"switch", required_argument, NULL, 's'},
		{"vici", required_argument, NULL, 'v'},
		{"address", required_argument, NULL, 'a'},
		{"log", required_argument, NULL, 'l'},
		{"help", no_argument, NULL, 'h'},
		{},
	};
	int option;

	*options = (options_t){.log_level = 1};
	while ((option = getopt_long(count, arguments, "h", LONG, NULL)) != -1) {
		switch (option) {
		case 's':
			options->switch_socket = optarg;
			break;
		case 'v':
			options->vici_socket = optarg;
			break;
		case 'a':
			options->addresses = optarg;
			break;
		case 'l':
			if (optarg[0] < '0' || optarg[0] > '0' + LOG_LEVEL_MAX || optarg[1]) {
				fprintf(stderr, "--log takes 0 to %d, not '%s'\n", LOG_LEVEL_MAX, optarg);
				return false;
			}
			options->log_level = optarg[0] - '0';
			break;
		case 'h':
			fputs(USAGE, stdout);
			exit(0);
		default:
			return false;
		}
	}
	if (optind != count || !options->switch_socket || !options->vici_socket
	    || !options->addresses) {
		fputs(USAGE, stderr);
		return false;
	}
	return true;
}

static bool add_addresses(const char *list)
{
	char *copy = strdup(list), *rest = copy, *address;

	while ((address = strsep(&rest, ",")) != NULL) {
		if (!vswitch_net_add(address)) {
			fprintf(stderr, "--address: '%s' is no IP address, or one too many\n", address);
			free(copy);
			return false;
		}
	}
	free(copy);
	return true;
}

/* Before the bus is there. The format has charon's own specifiers. */
static void log_early(debug_t group, level_t level, char *format, ...)
{
	va_list arguments;

	if (level > 1)
		return;
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
}

static void set(const char *key, const char *value)
{
	lib->settings->set_str(lib->settings, (char *)key, (char *)value);
}

static bool start(const options_t *options)
{
	char vici[MESSAGE_MAX];
	int length = snprintf(vici, sizeof(vici), "unix://%s", options->vici_socket);

	if (length < 0 || (size_t)length >= sizeof(vici))
		return false;
	set("charon.plugins.vici.socket", vici);
	/* No other file is looked for, and no provider loaded. */
	set("charon.plugins.openssl.load_legacy", "no");
	set("charon.install_routes", "no");
	set("charon.install_virtual_ip", "no");
	lib->settings->set_int(lib->settings, "charon.threads", THREADS);
	lib->settings->set_int(lib->settings, "charon.max_packet", MESSAGE_MAX - IKE_HEADER);
	lib->settings->set_int(lib->settings, "charon.filelog.stderr.default", options->log_level);
	charon->load_loggers(charon);
	return charon->initialize(charon, PLUGINS);
}

/* Waits for the end: a signal, which may be channel_lost()'s. */
static void wait_for_end(const sigset_t *signals)
{
	while (sigwaitinfo(signals, NULL) < 0)
		;
}

int main(int count, char **arguments)
{
	options_t options;
	sigset_t signals;

	clearenv();
	setenv("OPENSSL_CONF", "/dev/null", 1);
	if (!parse_options(count, arguments, &options))
		return EXIT_USAGE;
	if (!confine_process())
		return EXIT_FAILED;
	/* Inherited by all threads. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);

	dbg = log_early;
	plugin_constructor_register("vswitch", vswitch_plugin_create);
	if (!library_init("", "charon") || !libcharon_init()) {
		fputs("strongSwan's library does not start\n", stderr);
		return EXIT_FAILED;
	}
	if (!add_addresses(options.addresses))
		return EXIT_USAGE;
	if (!channel_open(options.switch_socket))
		return EXIT_NO_SWITCH;
	if (!start(&options)) {
		fputs("charon does not start; see the lines above\n", stderr);
		return EXIT_FAILED;
	}
	charon->start(charon);
	if (!confine_calls())
		return EXIT_FAILED;
	wait_for_end(&signals);
	/* Without the switch no peer can be told: nothing is worth the time of an orderly end. */
	if (channel_is_lost())
		_exit(EXIT_SWITCH_GONE);
	libcharon_deinit();
	library_deinit();
	return 0;
}
