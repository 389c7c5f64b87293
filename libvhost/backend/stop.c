/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The end of a back-end, with a deadline. What could not be ended in time is ended by the next call. */
#include <errno.h>

#include "backend/device.h"

static int stop_workers(struct libvhost_backend *b, uint64_t deadline)
{
	for (uint32_t i = 0; i < b->opts.num_workers; i++) {
		int rc = libvhost_worker_stop(b->workers[i], lv_backend_left_ms(b, deadline));

		if (rc < 0)
			return lv_fail(&b->err, rc, LIBVHOST_EK_TIMEOUT,
				       "back-end: worker %u does not end: a handler does not return; call again", i);
	}
	return 0;
}

static int stop(struct libvhost_backend *b, uint64_t deadline)
{
	b->stopped = true;
	lv_listener_close(b);
	b->client.path[0] = 0;
	lv_conn_close_within(b, 0, "the back-end stops", lv_backend_left_ms(b, deadline));
	if (b->inproc)
		lv_inproc_wake(b->inproc);
	if (!lv_session_close(&b->session, lv_backend_left_ms(b, deadline)))
		return -ETIMEDOUT; /* the error names the queue */
	return stop_workers(b, deadline);
}

int libvhost_backend_stop(struct libvhost_backend *b, uint32_t timeout_ms)
{
	uint64_t deadline;
	int rc, control;

	if (!b || timeout_ms > LV_TIMEOUT_MAX_MS)
		return -EINVAL;
	deadline = lv_deadline(b->ctx, timeout_ms);
	rc = lv_backend_lock_within(b, deadline);
	if (rc < 0)
		return rc;
	rc = stop(b, deadline);
	b->retry_at = lv_now(b->ctx); /* ends a dispatch that waits */
	lv_backend_rewatch(b);
	lv_backend_unlock(b);
	control = lv_control_stop(b, lv_backend_left_ms(b, deadline)); /* it may wait for the lock */
	return rc < 0 ? rc : control;
}
