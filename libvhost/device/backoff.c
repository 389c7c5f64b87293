/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * When the next attempt to connect is due. By policy pauses double from first_ms to max_ms, each cut by a random part,
 * so that many devices of one restarted back-end do not come back in step; for the same reason the first attempt, and
 * the one after a new socket was noticed, are spread. Where somebody waits for the result pauses are short.
 */
#include "device/device.h"

#include <errno.h>
#include <sys/random.h>
#include <unistd.h>

#define FIRST_MS       100u
#define MAX_MS	       5000u
#define QUICK_FIRST_MS 1u /* explicit reconnect and init: somebody waits */
#define QUICK_MAX_MS   50u

static uint64_t next_random(struct lv_backoff *b)
{
	uint64_t z = b->random += 0x9e3779b97f4a7c15ull; /* splitmix64, public domain */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* A random part of up to percent of ms, in nanoseconds. */
static uint64_t random_part(struct lv_backoff *b, uint32_t ms, uint32_t percent)
{
	const uint64_t most = ms * LV_NS_PER_MS / 100 * percent;

	return most ? next_random(b) % (most + 1) : 0;
}

static int fill_policy(struct libvhost_dev *dev, struct libvhost_reconnect_policy *p)
{
	const char *wrong = NULL;

	if (p->mode > LIBVHOST_RECONNECT_NONE)
		wrong = "no such mode";
	else if (p->mode == LIBVHOST_RECONNECT_LIMITED && (!p->attempts || p->attempts > 1000000))
		wrong = "LIMITED needs 1..1000000 attempts";
	else if (p->first_ms > 60000 || p->max_ms > 600000)
		wrong = "first_ms is at most 60000, max_ms 600000";
	else if (p->first_ms && p->max_ms && p->first_ms > p->max_ms)
		wrong = "first_ms is above max_ms";
	else if (p->jitter_percent > 100)
		wrong = "jitter_percent is at most 100";
	if (wrong)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "reconnect policy: %s", wrong);
	if (!p->first_ms)
		p->first_ms = p->max_ms && p->max_ms < FIRST_MS ? p->max_ms : FIRST_MS;
	if (!p->max_ms)
		p->max_ms = p->first_ms > MAX_MS ? p->first_ms : MAX_MS;
	return 0;
}

void lv_backoff_init(struct libvhost_dev *dev)
{
	struct lv_backoff *b = &dev->backoff;

	if (getrandom(&b->random, sizeof(b->random), GRND_NONBLOCK) != sizeof(b->random))
		b->random = lv_now(NULL) ^ (uint64_t)getpid() << 32 ^ (uintptr_t)dev;
	(void)fill_policy(dev, &b->policy);
	if (!(dev->opts.flags & LIBVHOST_DEV_AUTO_RECONNECT))
		b->policy.mode = LIBVHOST_RECONNECT_NONE;
	b->spread_to = UINT64_MAX;
}

static struct libvhost_reconnect_policy policy_of(struct libvhost_dev *dev)
{
	struct libvhost_reconnect_policy p;

	pthread_mutex_lock(&dev->lock);
	p = dev->backoff.policy;
	pthread_mutex_unlock(&dev->lock);
	return p;
}

bool lv_backoff_automatic(struct libvhost_dev *dev)
{
	return policy_of(dev).mode != LIBVHOST_RECONNECT_NONE && lv_reconnect_possible(dev);
}

bool lv_backoff_left(struct libvhost_dev *dev)
{
	const struct libvhost_reconnect_policy p = policy_of(dev);

	return p.mode == LIBVHOST_RECONNECT_FOREVER ||
	       (p.mode == LIBVHOST_RECONNECT_LIMITED && dev->backoff.attempts < p.attempts);
}

/* The pause after so many attempts, before anything is cut off. */
static uint32_t pause_ms(uint32_t attempts, uint32_t first, uint32_t max)
{
	uint64_t ms = first;

	for (uint32_t i = 1; i < attempts && ms < max; i++)
		ms *= 2;
	return ms < max ? (uint32_t)ms : max;
}

static void reckon(struct libvhost_dev *dev)
{
	struct lv_backoff *b = &dev->backoff;
	const struct libvhost_reconnect_policy p = policy_of(dev);
	uint32_t ms;

	if (!dev->op.automatic) {
		b->retry_at = b->since + pause_ms(b->attempts, QUICK_FIRST_MS, QUICK_MAX_MS) * LV_NS_PER_MS;
		return;
	}
	if (!b->attempts) {
		b->retry_at = b->since + random_part(b, p.first_ms, p.jitter_percent);
		return;
	}
	ms = pause_ms(b->attempts, p.first_ms, p.max_ms);
	b->retry_at = b->since + ms * LV_NS_PER_MS - random_part(b, ms, p.jitter_percent);
}

void lv_backoff_begin(struct libvhost_dev *dev)
{
	struct lv_backoff *b = &dev->backoff;

	b->attempts = 0;
	lv_backoff_pause(dev);
	if (!dev->op.automatic)
		b->retry_at = b->since;
}

void lv_backoff_pause(struct libvhost_dev *dev)
{
	dev->backoff.since = lv_now(dev->ctx);
	dev->backoff.spread_to = UINT64_MAX;
	reckon(dev);
}

void lv_backoff_update(struct libvhost_dev *dev)
{
	bool changed;

	pthread_mutex_lock(&dev->lock);
	changed = dev->backoff.changed;
	dev->backoff.changed = false;
	pthread_mutex_unlock(&dev->lock);
	if (changed)
		reckon(dev);
}

bool lv_backoff_due(struct libvhost_dev *dev, bool noticed, bool *counts)
{
	struct lv_backoff *b = &dev->backoff;
	const uint64_t now = lv_now(dev->ctx);

	if (noticed && b->spread_to == UINT64_MAX) {
		const struct libvhost_reconnect_policy p = policy_of(dev);

		b->spread_to = now + (dev->op.automatic ? random_part(b, p.first_ms, p.jitter_percent) : 0);
	}
	*counts = now >= b->retry_at;
	if (!*counts && now < b->spread_to)
		return false;
	b->spread_to = UINT64_MAX;
	return true;
}

uint64_t lv_backoff_next(const struct libvhost_dev *dev)
{
	const struct lv_backoff *b = &dev->backoff;
	uint64_t next = b->retry_at < b->spread_to ? b->retry_at : b->spread_to;

	for (uint32_t i = 0; i < dev->num_parts; i++) {
		const struct lv_part *part = &dev->parts[i];

		if (!part->open && !part->deaf && part->t->look_at < next)
			next = part->t->look_at;
	}
	return next;
}

void lv_backoff_report(const struct libvhost_dev *dev, struct libvhost_event *e)
{
	const struct lv_backoff *b = &dev->backoff;
	const uint64_t now = lv_now(dev->ctx);

	e->value[1] = (now - b->lost_at) / 1000;
	e->value[2] = (now - b->reached_at) / 1000;
	e->value[3] = b->attempts;
}

int libvhost_dev_set_reconnect(struct libvhost_dev *dev, const struct libvhost_reconnect_policy *policy)
{
	struct libvhost_reconnect_policy p;
	bool possible;
	int r;

	if (!dev)
		return -EINVAL;
	r = LV_OPTS_READ(&dev->err, &p, policy);
	if (!r)
		r = fill_policy(dev, &p);
	if (r)
		return r;
	pthread_mutex_lock(&dev->lock);
	possible = p.mode == LIBVHOST_RECONNECT_NONE || lv_reconnect_possible(dev);
	if (possible) {
		dev->backoff.policy = p;
		dev->backoff.changed = true;
	}
	pthread_mutex_unlock(&dev->lock);
	if (!possible)
		return lv_fail(&dev->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
			       "reconnect policy: this transport cannot be opened again; make a new device");
	lv_dev_wake(dev);
	return 0;
}
