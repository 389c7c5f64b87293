/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The device that connects to a front-end which listens, and again after each end. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend/device.h"

#define FIRST_NS   LV_NS_PER_MS
#define LONGEST_NS (1000 * LV_NS_PER_MS)

static void report(struct libvhost_backend *b, int rc)
{
	struct lv_client *c = &b->client;

	if (rc != c->last) /* the same every second tells nothing */
		lv_fail_sys(&b->err, -rc, "back-end: cannot connect to %s: %s; tried again", c->path,
			    lv_errno_name(-rc));
	c->last = rc;
}

/* The pause grows with each attempt, also with those that succeed: a front-end may accept and hang up. What it says
 * ends that (lv_client_heard()). */
void lv_client_turn(struct libvhost_backend *b)
{
	struct lv_client *c = &b->client;
	const uint64_t now = lv_now(b->ctx);
	int rc;

	if (!c->path[0] || lv_backend_occupied(b) || now < c->at)
		return;
	c->at = now + c->pause_ns;
	c->pause_ns = c->pause_ns * 2 < LONGEST_NS ? c->pause_ns * 2 : LONGEST_NS;
	rc = lv_wire_connect(c->path);
	if (rc >= 0)
		rc = lv_conn_open(b, rc);
	report(b, rc);
}

void lv_client_heard(struct libvhost_backend *b)
{
	b->client.pause_ns = FIRST_NS;
}

uint64_t lv_client_deadline(const struct libvhost_backend *b)
{
	return b->client.path[0] && !lv_backend_occupied(b) ? b->client.at : 0;
}

static int start_client(struct libvhost_backend *b, const char *path)
{
	struct lv_client *c = &b->client;
	int rc = lv_listener_check_free(b);

	if (rc < 0)
		return rc;
	if (!*path || strlen(path) >= sizeof(c->path))
		return lv_fail(&b->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "back-end: path of %zu bytes; 1 to %zu can be",
			       strlen(path), sizeof(c->path) - 1);
	*c = (struct lv_client){.at = lv_now(b->ctx), .pause_ns = FIRST_NS};
	snprintf(c->path, sizeof(c->path), "%s", path);
	snprintf(b->path, sizeof(b->path), "%s", path);
	lv_backend_rewatch(b);
	return 0;
}

int libvhost_backend_connect(struct libvhost_backend *b, const char *path)
{
	int rc;

	if (!b || !path)
		return -EINVAL;
	rc = lv_backend_lock(b);
	if (rc < 0)
		return rc;
	rc = start_client(b, path);
	lv_backend_unlock(b);
	return rc;
}
