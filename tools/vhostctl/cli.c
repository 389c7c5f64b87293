/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t parse_number(struct argp_state *state, const char *what, const char *text, uint64_t min, uint64_t max)
{
	static const char suffixes[] = "KMGT";
	const char *suffix;
	unsigned shift = 0;
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(text, &end, 0);
	if (end == text || errno || strchr(text, '-'))
		argp_failure(state, 1, 0, "%s: '%s' is not a number", what, text);
	if (*end && (suffix = strchr(suffixes, toupper((unsigned char)*end)))) {
		shift = 10 * (unsigned)(suffix - suffixes + 1);
		end++;
	}
	if (*end)
		argp_failure(state, 1, 0, "%s: '%s' has an unknown suffix (K, M, G, T)", what, text);
	if (n > UINT64_MAX >> shift || n << shift < min || n << shift > max)
		argp_failure(state, 1, 0, "%s: %s is outside %llu..%llu", what, text, (unsigned long long)min,
			     (unsigned long long)max);
	return n << shift;
}

error_t parse_uri(int key, char *arg, struct argp_state *state, const char **uri, const char *example)
{
	switch (key) {
	case ARGP_KEY_ARG:
		if (*uri)
			argp_failure(state, 1, 0, "one URI only");
		*uri = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_failure(state, 1, 0, "a URI is missing, for example %s", example);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static char *complaint;
static size_t complaint_cap;

void complain_into(char *buf, size_t cap)
{
	complaint = buf;
	complaint_cap = cap;
}

int complain(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (complaint) {
		vsnprintf(complaint, complaint_cap, fmt, args);
		va_end(args);
		return 1;
	}
	fputs("vhostctl: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	return 1;
}

static int complain_error(const struct libvhost_error *e, const char *what, int rc)
{
	if (!e->text[0])
		return complain("%s: %s", what, strerror(-rc));
	return complain("%s: %s [%s]", what, e->text, libvhost_error_kind_name(e->kind));
}

int complain_ctx(struct libvhost_ctx *ctx, const char *what, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};

	libvhost_ctx_error(ctx, &e);
	return complain_error(&e, what, rc);
}

int complain_dev(struct libvhost_dev *dev, const char *what, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};

	libvhost_dev_error(dev, &e);
	return complain_error(&e, what, rc);
}

const char *feature_text(uint32_t virtio_id, uint32_t bit, char *buf, size_t cap)
{
	const char *name = libvhost_feature_name(virtio_id, bit);

	if (name)
		return name;
	snprintf(buf, cap, "bit %u", bit);
	return buf;
}

uint32_t virtio_id_by_name(const char *name)
{
	static const struct {
		const char *name;
		uint32_t id;
	} types[] = {{"net", 1},  {"blk", 2},	 {"console", 3}, {"rng", 4},	{"balloon", 5},
		     {"scsi", 8}, {"gpu", 16},	 {"input", 18},	 {"vsock", 19}, {"crypto", 20},
		     {"fs", 26},  {"sound", 25}, {"i2c", 34},	 {"gpio", 41}};

	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
		if (!strcmp(types[i].name, name))
			return types[i].id;
	return 0;
}

void print_json(json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(json);
}

volatile bool interrupted;

static void on_signal(int sig)
{
	(void)sig;
	interrupted = true;
}

void catch_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal};

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

double seconds_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}
