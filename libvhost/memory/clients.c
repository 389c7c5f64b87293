/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Clients, and how a change is told to them all. Everything that can fail happens before the change is published; after
 * that no peer can veto it, and one that does not follow within the deadline is lost.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "memory/object.h"

#define POLLFDS_PER_CLIENT 16u
#define IDLE_SLICE_MS	   10 /* how often a client is asked that waits without a descriptor */

int lv_mem_attach(struct libvhost_mem *mem, const struct lv_mem_client_ops *ops, void *client,
		  struct lv_mem_client **ret)
{
	struct lv_mem_client *node = calloc(1, sizeof(*node));

	if (!node)
		return lv_fail_sys(&mem->err, ENOMEM, "attaching a device to guest memory: no memory");
	node->ops = ops;
	node->client = client;
	node->regions = node->merged = LIBVHOST_MAX_REGIONS;
	lv_mem_ref(mem);
	pthread_mutex_lock(&mem->lock);
	while (mem->committing)
		pthread_cond_wait(&mem->idle, &mem->lock);
	node->mem = mem;
	node->next = mem->clients;
	mem->clients = node;
	pthread_mutex_unlock(&mem->lock);
	*ret = node;
	return 0;
}

void lv_mem_detach(struct libvhost_mem *mem, struct lv_mem_client *node)
{
	struct lv_mem_client **at = &mem->clients;

	pthread_mutex_lock(&mem->lock);
	while (mem->committing)
		pthread_cond_wait(&mem->idle, &mem->lock);
	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
	pthread_mutex_unlock(&mem->lock);
	free(node);
	libvhost_mem_free(mem);
}

void lv_mem_client_limits(struct lv_mem_client *node, uint32_t regions, uint32_t merged)
{
	pthread_mutex_lock(&node->mem->lock);
	node->regions = regions;
	node->merged = merged;
	pthread_mutex_unlock(&node->mem->lock);
}

int libvhost_has_free_slot(struct libvhost_mem *mem)
{
	uint32_t merged = LIBVHOST_MAX_REGIONS;
	bool fits;

	if (!mem)
		return -EINVAL;
	pthread_mutex_lock(&mem->lock);
	fits = mem->count < LIBVHOST_MAX_REGIONS;
	for (const struct lv_mem_client *c = mem->clients; c; c = c->next) {
		if (c->merged < LIBVHOST_MAX_REGIONS && merged == LIBVHOST_MAX_REGIONS)
			merged = lv_maps_merge(mem->next ? mem->next : atomic_load(&mem->current)->maps, mem->count,
					       NULL, 0);
		if (mem->count >= c->regions || (c->merged < LIBVHOST_MAX_REGIONS && merged >= c->merged))
			fits = false;
	}
	pthread_mutex_unlock(&mem->lock);
	return fits;
}

int lv_change_enter(struct libvhost_mem *mem, struct lv_change *c, uint32_t timeout_ms,
		    int (*check)(struct libvhost_mem *mem, struct lv_change *c))
{
	int rc;

	if (timeout_ms > LV_TIMEOUT_MAX_MS)
		return lv_fail(&mem->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "%s: timeout of %u ms is above %u", c->call,
			       timeout_ms, LV_TIMEOUT_MAX_MS);
	pthread_mutex_lock(&mem->lock);
	if (mem->committing)
		rc = lv_fail(&mem->err, -EBUSY, LIBVHOST_EK_BUSY, "%s: another commit runs", c->call);
	else
		rc = check(mem, c);
	for (const struct lv_mem_client *n = mem->clients; rc == 0 && n; n = n->next)
		c->cap += POLLFDS_PER_CLIENT;
	if (rc == 0) {
		c->fds = calloc(c->cap + 1, sizeof(*c->fds));
		if (c->fds)
			mem->committing = true;
		else
			rc = lv_fail_sys(&mem->err, ENOMEM, "%s: no memory", c->call);
	}
	pthread_mutex_unlock(&mem->lock);
	if (rc == 0)
		c->deadline = lv_deadline(mem->ctx, timeout_ms);
	return rc;
}

void lv_change_leave(struct libvhost_mem *mem, struct lv_change *c, bool new_map)
{
	pthread_mutex_lock(&mem->lock);
	if (new_map) {
		mem->generation++;
		lv_mem_forget(mem);
	}
	mem->committing = false;
	pthread_cond_broadcast(&mem->idle);
	pthread_mutex_unlock(&mem->lock);
	free(c->fds);
}

static int refusal(struct libvhost_mem *mem, const struct lv_change *c, uint32_t number, int rc)
{
	enum libvhost_error_kind kind = LIBVHOST_EK_REFUSED;
	const char *why = "it cannot follow";

	if (rc == -ENOSPC) {
		kind = LIBVHOST_EK_NO_SLOT;
		why = "its table is too small: use fewer, larger regions";
	} else if (rc == -ENOTSUP) {
		kind = LIBVHOST_EK_UNSUPPORTED;
		why = "it needs a descriptor for each region";
	} else if (rc == -ERANGE) {
		kind = LIBVHOST_EK_MEMORY;
		why = "a region lies outside the addresses that it can use";
	} else if (rc == -EBUSY) {
		kind = LIBVHOST_EK_BUSY;
		why = "it runs another operation: try again when that has ended";
	} else if (rc == -ENOMEM) {
		kind = LIBVHOST_EK_NOMEM;
		why = "no memory to compare it with the device's limits";
	}
	return lv_fail(&mem->err, rc, kind,
		       "%s: device %u cannot take the map of %u regions: %s (%s); nothing was changed%s", c->call,
		       number, c->now->count, why, lv_errno_name(-rc),
		       c->now == c->old ? "" : ", the transaction is still open");
}

static void unprepare_until(struct libvhost_mem *mem, const struct lv_mem_client *end)
{
	for (struct lv_mem_client *n = mem->clients; n != end; n = n->next)
		n->ops->unprepare(n->client);
}

void lv_change_unprepare(struct libvhost_mem *mem)
{
	unprepare_until(mem, NULL);
}

int lv_change_prepare(struct libvhost_mem *mem, const struct lv_change *c)
{
	uint32_t number = 0;

	for (struct lv_mem_client *n = mem->clients; n; n = n->next, number++) {
		int rc = n->ops->prepare(n->client, c->now);

		if (rc >= 0)
			continue;
		unprepare_until(mem, n);
		return refusal(mem, c, number, rc);
	}
	return 0;
}

/* Collects what the waiting clients wait for. Returns how long poll may sleep, -1 when nobody waits. */
static int collect(struct libvhost_mem *mem, struct lv_change *c, uint32_t *count)
{
	int left = lv_left_ms(mem->ctx, c->deadline), sleep = -1;

	*count = 0;
	for (struct lv_mem_client *n = mem->clients; n; n = n->next) {
		if (n->result)
			continue;
		n->poll_at = *count;
		n->npolls = n->ops->pollfds(n->client, c->fds + *count, POLLFDS_PER_CLIENT);
		*count += n->npolls;
		if (sleep < 0)
			sleep = left;
		if (!n->npolls && sleep > IDLE_SLICE_MS)
			sleep = IDLE_SLICE_MS;
	}
	return sleep;
}

static bool ready(const struct lv_mem_client *n, const struct pollfd *fds)
{
	bool any = !n->npolls;

	for (uint32_t i = 0; i < n->npolls; i++)
		any = any || fds[n->poll_at + i].revents;
	return any;
}

/* Until every client has a result. After the deadline all are asked once more, so that an answer that has arrived
 * counts. */
static void wait_all(struct libvhost_mem *mem, struct lv_change *c)
{
	uint32_t count;
	int sleep;

	while ((sleep = collect(mem, c, &count)) >= 0) {
		bool last = lv_left_ms(mem->ctx, c->deadline) == 0;

		if (!last && poll(c->fds, count, sleep) < 0)
			continue; /* EINTR, ENOMEM: the deadline ends it */
		for (struct lv_mem_client *n = mem->clients; n; n = n->next) {
			if (n->result || !(last || ready(n, c->fds)))
				continue;
			n->result = n->ops->progress(n->client);
			if (!n->result && last)
				n->result = -ETIMEDOUT;
		}
	}
}

uint32_t lv_change_tell(struct libvhost_mem *mem, struct lv_change *c)
{
	uint32_t lost = 0;

	for (struct lv_mem_client *n = mem->clients; n; n = n->next)
		n->result = n->ops->begin(n->client, c->old, c->now, c->deadline);
	wait_all(mem, c);
	for (struct lv_mem_client *n = mem->clients; n; n = n->next) {
		n->ops->finish(n->client, n->result);
		lost += n->result < 0;
	}
	return lost;
}
