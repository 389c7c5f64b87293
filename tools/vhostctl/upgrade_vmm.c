/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* One generation of the VMM: gets the device, serves it, gives it away. */
#include "upgrade.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "fdpass.h"

struct vmm {
	int sock;
	struct upgrade_machine machine;
	struct libvhost_ctx *ctx;
	struct libvhost_mem *mem;
	struct libvhost_dev *dev;
	struct upgrade_answer answer;
};

/* What a VMM sends its successor, followed by the blob. */
struct parcel {
	uint64_t bytes;
	uint32_t nfds, reserved;
};

static uint64_t nanoseconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int fail(struct vmm *v, int rc, const char *what)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (v->dev && !libvhost_dev_error(v->dev, &e) && e.code == rc)
		snprintf(v->answer.text, sizeof(v->answer.text), "%s: %.150s", what, e.text);
	else if (v->ctx && !libvhost_ctx_error(v->ctx, &e) && e.code == rc)
		snprintf(v->answer.text, sizeof(v->answer.text), "%s: %.150s", what, e.text);
	else
		snprintf(v->answer.text, sizeof(v->answer.text), "%s: %s", what, strerror(-rc));
	v->answer.result = rc;
	return rc;
}

/* Each generation has the memory at another address. */
static int map_memory(struct vmm *v, int memfd, uint32_t generation)
{
	struct libvhost_region r = {
		.gpa = UPGRADE_BASE, .size = v->machine.bytes, .fd = memfd, .flags = LIBVHOST_REGION_HAS_FD};
	void *hva = NULL;
	int rc;

	(void)mmap(NULL, (generation % 16 + 1) * (1u << 20), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	rc = libvhost_ctx_new(NULL, &v->ctx);
	if (!rc)
		rc = libvhost_mem_new(v->ctx, NULL, &v->mem);
	if (!rc)
		rc = libvhost_mem_begin(v->mem);
	if (!rc)
		rc = libvhost_mem_add(v->mem, &r);
	if (!rc)
		rc = libvhost_mem_commit(v->mem, 0, NULL);
	if (!rc)
		rc = libvhost_mem_translate(v->mem, UPGRADE_BASE, 1, &hva, NULL);
	close(memfd);
	v->answer.address = (uint64_t)(uintptr_t)hva;
	return rc;
}

static int check_region(struct vmm *v)
{
	struct libvhost_inflight region = {.size = sizeof(region)};
	const int rc = v->machine.inflight ? libvhost_dev_get_inflight(v->dev, &region) : 0;

	return rc ? fail(v, rc, "inflight region") : 0;
}

/* The first generation connects, */
static int connect_device(struct vmm *v)
{
	struct libvhost_dev_opts o = {.size = sizeof(o), .virtio_id = VIRTIO_ID_BLOCK};
	int memfd, rc;

	if (fdpass_recv(v->sock, NULL, 0, &memfd, 1))
		return fail(v, -errno, "connect");
	rc = map_memory(v, memfd, 0);
	o.flags = v->machine.inflight ? LIBVHOST_DEV_INFLIGHT : 0;
	o.num_queues = v->machine.queues;
	o.timeout_ms = v->machine.timeout_ms;
	o.uri = v->machine.uri;
	o.mem = v->mem;
	if (!rc)
		rc = libvhost_dev_init(v->ctx, &o, &v->dev);
	v->answer.features = v->machine.features;
	if (!rc)
		rc = libvhost_get_features_ex(v->dev, &v->answer.features, 1);
	if (rc)
		return fail(v, rc, "connect");
	if (v->machine.packed && !(v->answer.features >> F_RING_PACKED & 1)) {
		snprintf(v->answer.text, sizeof(v->answer.text), "the back-end does not offer packed rings");
		return v->answer.result = -ENOTSUP;
	}
	return 0;
}

/* and starts. */
static int boot(struct vmm *v)
{
	int fds[2 * UPGRADE_QUEUES], rc;

	if (fdpass_recv(v->sock, NULL, 0, fds, 2 * v->machine.queues))
		return fail(v, -errno, "boot");
	rc = libvhost_ack_features_ex(v->dev, &v->machine.features, 1);
	for (uint32_t i = 0; i < v->machine.queues; i++) {
		const struct upgrade_ring r = upgrade_ring(&v->machine, i);
		struct libvhost_queue q = {.size = sizeof(q), .num = v->machine.entries};

		q.flags = LIBVHOST_QUEUE_HAS_KICK | LIBVHOST_QUEUE_HAS_CALL;
		q.desc = r.desc;
		q.avail = r.avail;
		q.used = r.used;
		q.kick_fd = fds[2 * i];
		q.call_fd = fds[2 * i + 1];
		if (!rc)
			rc = libvhost_dev_set_queue(v->dev, i, &q);
		close(q.kick_fd);
		close(q.call_fd);
	}
	if (!rc)
		rc = libvhost_dev_start(v->dev, NULL);
	return rc ? fail(v, rc, "boot") : check_region(v);
}

static int thaw(struct vmm *v, const struct parcel *p, const void *blob, const int *fds)
{
	struct libvhost_thaw_opts o = {
		.size = sizeof(o), .blob = blob, .blob_len = p->bytes, .fds = fds, .nfds = p->nfds, .mem = v->mem};
	const uint64_t began = nanoseconds();
	int rc = libvhost_dev_thaw(v->ctx, &o, &v->dev);

	v->answer.nanoseconds = nanoseconds() - began;
	v->answer.blob_bytes = (uint32_t)p->bytes;
	for (uint32_t i = 0; rc && i < p->nfds; i++)
		close(fds[i]);
	return rc ? fail(v, rc, "thaw") : 0;
}

/* A later one gets ready. */
static int map(struct vmm *v, uint32_t generation)
{
	int memfd, rc;

	if (fdpass_recv(v->sock, NULL, 0, &memfd, 1))
		return fail(v, -errno, "map");
	rc = map_memory(v, memfd, generation);
	return rc ? fail(v, rc, "memory") : 0;
}

/* And takes over. */
static int take(struct vmm *v)
{
	struct parcel p = {0};
	int link, *fds = NULL, rc = 0;
	void *blob = NULL;

	if (fdpass_recv(v->sock, NULL, 0, &link, 1))
		return fail(v, -errno, "take");
	if (fdpass_recv(link, &p, sizeof(p), NULL, 0)) {
		rc = fail(v, -errno, "no predecessor");
	} else {
		blob = malloc(p.bytes);
		fds = calloc(p.nfds, sizeof(*fds));
		if (!blob || !fds)
			rc = fail(v, -ENOMEM, "take");
		else if (fdpass_recv(link, blob, p.bytes, fds, p.nfds))
			rc = fail(v, -errno, "predecessor");
		else
			rc = thaw(v, &p, blob, fds);
	}
	close(link);
	free(blob);
	free(fds);
	return rc;
}

/* Asks for the sizes until they hold: a request of the back-end may be half read at one moment and not at another. */
static int freeze(struct vmm *v, void **blob, struct parcel *p, int **fds)
{
	size_t len = 0;
	int rc = libvhost_dev_freeze(v->dev, 0, NULL, &len, NULL, &p->nfds);

	if (rc)
		return rc;
	do {
		free(*blob);
		free(*fds);
		*blob = malloc(len);
		*fds = calloc(p->nfds, sizeof(**fds));
		if (!*blob || !*fds)
			return -ENOMEM;
		rc = libvhost_dev_freeze(v->dev, 0, *blob, &len, *fds, &p->nfds);
	} while (rc == -ENOSPC);
	p->bytes = len;
	return rc;
}

static int freeze_patiently(struct vmm *v, void **blob, struct parcel *p, int **fds)
{
	const double give_up = seconds_now() + v->machine.timeout_ms / 1e3;
	uint64_t began;
	int rc;

	do {
		began = nanoseconds();
		rc = freeze(v, blob, p, fds);
		v->answer.nanoseconds = nanoseconds() - began;
		if (rc == -EBUSY)
			libvhost_dev_dispatch(v->dev, 1);
	} while (rc == -EBUSY && seconds_now() < give_up);
	return rc;
}

static int give(struct vmm *v)
{
	struct parcel p = {0};
	void *blob = NULL;
	int *fds = NULL, link, rc;

	if (fdpass_recv(v->sock, NULL, 0, &link, 1))
		return fail(v, -errno, "give");
	rc = freeze_patiently(v, &blob, &p, &fds);
	if (rc)
		fail(v, rc, "freeze");
	else if (fdpass_send(link, &p, sizeof(p), NULL, 0) || fdpass_send(link, blob, p.bytes, fds, p.nfds))
		rc = fail(v, -errno, "successor");
	for (uint32_t i = 0; !v->answer.result && i < p.nfds; i++)
		close(fds[i]);
	close(link);
	free(blob);
	free(fds);
	return rc;
}

/* The connection is alive: the peer says where the rings stopped, and that is where the guest is. */
static int stop(struct vmm *v, const struct upgrade_order *o)
{
	int rc = libvhost_dev_stop(v->dev, NULL);

	if (rc)
		return fail(v, rc, "stop");
	for (uint32_t i = 0; i < v->machine.queues; i++) {
		struct libvhost_queue q = {.size = sizeof(q)};

		rc = libvhost_dev_get_queue(v->dev, i, &q);
		if (rc || q.base == o->base[i])
			continue;
		snprintf(v->answer.text, sizeof(v->answer.text), "queue %u stopped at %#x, the guest is at %#x", i,
			 q.base, o->base[i]);
		return v->answer.result = -EPROTO;
	}
	return rc ? fail(v, rc, "queue") : check_region(v);
}

static bool obey(struct vmm *v, const struct upgrade_order *o)
{
	memset(&v->answer, 0, sizeof(v->answer));
	v->machine = o->machine;
	if (o->what == UPGRADE_CONNECT)
		connect_device(v);
	else if (o->what == UPGRADE_BOOT)
		boot(v);
	else if (o->what == UPGRADE_MAP)
		map(v, o->generation);
	else if (o->what == UPGRADE_TAKE)
		take(v);
	else if (o->what == UPGRADE_GIVE)
		give(v);
	else
		stop(v, o);
	if (fdpass_send(v->sock, &v->answer, sizeof(v->answer), NULL, 0))
		return false;
	return !v->answer.result && o->what != UPGRADE_GIVE && o->what != UPGRADE_STOP;
}

int upgrade_vmm(int sock)
{
	struct vmm v = {.sock = sock};
	struct upgrade_order order;
	bool stay = true;

	while (stay) {
		struct pollfd fds[2] = {{.fd = sock, .events = POLLIN}, {.fd = -1, .events = POLLIN}};

		if (v.dev)
			fds[1].fd = libvhost_dev_fd(v.dev);
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		if (fds[1].revents)
			libvhost_dev_dispatch(v.dev, 0);
		if (!fds[0].revents)
			continue;
		stay = !fdpass_recv(sock, &order, sizeof(order), NULL, 0) && obey(&v, &order);
	}
	libvhost_dev_cleanup(v.dev);
	libvhost_mem_free(v.mem);
	libvhost_ctx_free(v.ctx);
	return v.answer.result ? 1 : 0;
}
