/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* vhostctl blk-test --fail-nth all: one device life per request, which fails there, and what is left of it. */
#include "fail_nth.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "pattern.h"

#define SEED 1u

static const char *const states[] = {[LIBVHOST_DEV_CONNECTING] = "connecting",
				     [LIBVHOST_DEV_NEGOTIATED] = "negotiated",
				     [LIBVHOST_DEV_RUNNING] = "running",
				     [LIBVHOST_DEV_DISCONNECTED] = "disconnected",
				     [LIBVHOST_DEV_LOST] = "lost",
				     [LIBVHOST_DEV_RECONNECTING] = "reconnecting"};

struct life {
	struct blk_driver driver;
	struct libvhost_ctx *ctx;
	struct fault fault;
	char why[512]; /* "" = it ended well */
	uint32_t state;
	bool has_device;
};

static int check_done(void *arg, const struct blk_slot *slot, uint8_t *data, uint8_t status)
{
	size_t bad;

	(void)arg;
	if (status != BLK_S_OK)
		return complain("a request failed with status %u", status);
	if (slot->type == BLK_T_IN && !pattern_check(data, slot->bytes, slot->sector, SEED, &bad))
		return complain("wrong data at byte %zu", bad);
	return 0;
}

static int transfer(struct blk_driver *d, uint32_t type)
{
	uint32_t slot, bytes = d->opts.block_bytes;
	uint8_t *data = blk_driver_slot(d, 0, &slot);

	if (!data)
		return complain("no free slot");
	if (type == BLK_T_OUT)
		pattern_fill(data, bytes, 0, SEED);
	if (blk_driver_submit(d, 0, slot, type, 0, bytes))
		return 1;
	while (d->in_flight)
		if (blk_driver_run(d, check_done, NULL))
			return 1;
	return 0;
}

static int stop(struct blk_driver *d)
{
	const struct libvhost_call_opts call = {.size = sizeof(call), .timeout_ms = d->opts.timeout_ms};
	int rc = libvhost_dev_stop(d->dev, &call);

	return rc < 0 ? complain_dev(d->dev, "stop", rc) : 0;
}

/* Connects, writes and reads one block, stops. The device stays for a look. */
static int begin(struct life *l, const struct blk_driver_opts *opts)
{
	struct blk_driver_opts o = *opts;
	int rc;

	if (libvhost_ctx_new(NULL, &l->ctx) < 0)
		return complain("out of memory");
	rc = fault_transport_new(l->ctx, opts->uri, opts->timeout_ms, &l->fault, &o.transport);
	if (rc < 0)
		return complain_ctx(l->ctx, "connect", rc);
	o.uri = NULL;
	rc = blk_driver_open(&l->driver, &o) || transfer(&l->driver, BLK_T_OUT) || transfer(&l->driver, BLK_T_IN) ||
	     stop(&l->driver);
	if (!l->driver.dev)
		libvhost_transport_free(o.transport); /* nobody took it over */
	return rc;
}

static void look(struct life *l)
{
	struct libvhost_dev_info info = {.size = sizeof(info)};

	l->has_device = l->driver.dev && !libvhost_dev_info(l->driver.dev, &info);
	l->state = l->has_device ? info.state : 0;
}

/* The same device, on a new connection. */
static bool comes_back(struct life *l)
{
	const struct libvhost_call_opts call = {.size = sizeof(call), .timeout_ms = l->driver.opts.timeout_ms};
	uint8_t config[8];

	return l->has_device && !libvhost_dev_reconnect(l->driver.dev, &call) &&
	       !libvhost_dev_get_config(l->driver.dev, 0, config, sizeof(config), l->driver.opts.timeout_ms);
}

static void end(struct life *l)
{
	blk_driver_close(&l->driver);
	libvhost_ctx_free(l->ctx);
}

static bool lives_well(const struct blk_driver_opts *opts)
{
	struct life l = {0};
	bool well = !begin(&l, opts);

	end(&l);
	return well;
}

static json_t *row(const struct life *l, const char *recovered)
{
	return json_pack("{s:I, s:s, s:s, s:s, s:s}", "n", (json_int_t)l->fault.nth, "request", l->fault.request,
			 "result", l->why[0] ? l->why : "ok", "state", l->has_device ? states[l->state] : "none",
			 "recovered", recovered);
}

/* False = not hit any more: the life is over before its n-th request. */
static bool one(const struct blk_driver_opts *opts, struct fault *fault, json_t *rows, bool *bad)
{
	struct life l = {.fault = *fault};
	const char *recovered = "no";

	complain_into(l.why, sizeof(l.why));
	if (!begin(&l, opts))
		l.why[0] = 0;
	complain_into(NULL, 0);
	look(&l);
	if (l.fault.hit) {
		char ignored[512];

		complain_into(ignored, sizeof(ignored));
		recovered = comes_back(&l) ? "same device" : "no";
		end(&l);
		if (!lives_well(opts))
			recovered = "no";
		else if (!strcmp(recovered, "no"))
			recovered = "new device";
		complain_into(NULL, 0);
		json_array_append_new(rows, row(&l, recovered));
		*bad |= !strcmp(recovered, "no");
	} else {
		end(&l);
	}
	return l.fault.hit;
}

static void print(const json_t *rows)
{
	printf("%4s  %-44s %-13s %-12s %s\n", "n", "request", "state", "recovered", "result");
	for (size_t i = 0; i < json_array_size(rows); i++) {
		const json_t *r = json_array_get(rows, i);

		printf("%4" JSON_INTEGER_FORMAT "  %-44.44s %-13s %-12s %s\n",
		       json_integer_value(json_object_get(r, "n")), json_string_value(json_object_get(r, "request")),
		       json_string_value(json_object_get(r, "state")),
		       json_string_value(json_object_get(r, "recovered")),
		       json_string_value(json_object_get(r, "result")));
	}
}

int fail_nth_all(const struct blk_driver_opts *opts, const struct fault *how, bool json)
{
	struct fault fault = *how;
	json_t *rows = json_array();
	bool bad = false;

	if (!lives_well(opts)) {
		json_decref(rows);
		return 1; /* it said why */
	}
	for (fault.nth = 1; !interrupted && one(opts, &fault, rows, &bad); fault.nth++)
		;
	if (json) {
		print_json(rows);
	} else {
		print(rows);
		printf("%zu requests failed in turn\n", json_array_size(rows));
		json_decref(rows);
	}
	return bad ? complain("a device did not come back") : interrupted ? complain("interrupted") : 0;
}
