/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Objects that devices of one context share by name. */
#include "wirerig.h"

#include <sys/stat.h>

static void rig(struct wirerig *w)
{
	wirerig_init(w);
	w->r.opts.flags = LIBVHOST_DEV_SHARED_OBJECTS;
	wirerig_start(w);
}

static void second(struct wirerig *w, struct wirerig *first)
{
	wirerig_join(w, first);
	w->r.opts.flags = LIBVHOST_DEV_SHARED_OBJECTS;
	wirerig_start(w);
}

static int host(struct wirerig *w, int (*call)(struct libvhost_ctx *, const uint8_t *), uint32_t name)
{
	uint8_t uuid[16];

	wirerig_uuid(uuid, name);
	return call(w->r.g.ctx, uuid);
}

static int host_add(struct wirerig *w, uint32_t name, int fd)
{
	uint8_t uuid[16];

	wirerig_uuid(uuid, name);
	return libvhost_shared_object_add(w->r.g.ctx, uuid, fd);
}

/* 0 and closed again, or the error. */
static int host_lookup(struct wirerig *w, uint32_t name)
{
	uint8_t uuid[16];
	int fd = -7, rc;

	wirerig_uuid(uuid, name);
	rc = libvhost_shared_object_lookup(w->r.g.ctx, uuid, &fd);
	CHECK(rc ? fd == -7 : fd >= 0);
	if (!rc)
		close(fd);
	return rc;
}

static int remove_object(struct libvhost_ctx *ctx, const uint8_t *uuid)
{
	return libvhost_shared_object_remove(ctx, uuid);
}

static bool same_file(int a, int b)
{
	struct stat x, y;

	CHECK(!fstat(a, &x) && !fstat(b, &y));
	return x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

TEST(objects, of_the_host_are_found_by_back_ends)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct wirerig w;
	int fd, got;

	rig(&w);
	fd = memfd(PAGE, 0);
	CHECK(w.p.acked_protocol & PUPPET_PF(SHARED_OBJECT));
	CHECK_EQ(host_add(&w, 1, fd), 0);
	CHECK_EQ(host_add(&w, 1, fd), -EEXIST);
	CHECK_EQ(host_add(&w, 2, 999), -EBADF);
	CHECK_EQ(host_lookup(&w, 1), 0);
	CHECK_EQ(wirerig_ask_uuid(&w, ASK_OBJECT_LOOKUP, 1, &got), 0);
	CHECK(got >= 0 && same_file(got, fd));
	close(got);
	CHECK_EQ(wirerig_ask_uuid(&w, ASK_OBJECT_LOOKUP, 2, &got), -ENOENT);
	CHECK_EQ(got, -1);
	CHECK_EQ(wirerig_ask_uuid(&w, ASK_OBJECT_REMOVE, 1, NULL), -EPERM); /* not the back-end's */
	CHECK_EQ(wirerig_ask_uuid(&w, ASK_OBJECT_ADD, 1, NULL), -EEXIST);
	CHECK_EQ(host(&w, remove_object, 1), 0);
	CHECK_EQ(host(&w, remove_object, 1), -ENOENT);
	CHECK_EQ(host_lookup(&w, 1), -ENOENT);
	CHECK_EQ(libvhost_ctx_error(w.r.g.ctx, &e), 0);
	CHECK_HAS(e.text, "nobody registered");
	CHECK_EQ(host_add(&w, 5, fd), 0); /* left behind for the context to close */
	close(fd);
	wirerig_close(&w);
}

TEST(objects, of_another_device_are_fetched_from_its_back_end)
{
	struct wirerig a, b;
	int got;

	rig(&a);
	second(&b, &a);
	CHECK_EQ(wirerig_ask_uuid(&a, ASK_OBJECT_ADD, 1, NULL), 0);
	CHECK_EQ(host_lookup(&a, 1), 0);
	CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_LOOKUP, 1, &got), 0);
	CHECK(got >= 0);
	close(got);
	CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_REMOVE, 1, NULL), -EPERM);
	CHECK_EQ(host(&a, remove_object, 1), -EPERM);
	CHECK_EQ(wirerig_ask_uuid(&a, ASK_OBJECT_LOOKUP, 1, NULL), -EBUSY); /* its own, which it has */
	CHECK_EQ(wirerig_ask_uuid(&a, ASK_OBJECT_REMOVE, 1, NULL), 0);
	CHECK_EQ(wirerig_ask_uuid(&a, ASK_OBJECT_REMOVE, 1, NULL), -ENOENT);
	CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_LOOKUP, 1, &got), -ENOENT);
	wirerig_close(&b);
	wirerig_close(&a);
}

TEST(objects, end_with_their_device)
{
	struct wirerig a, b;

	rig(&a);
	second(&b, &a);
	CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_ADD, 1, NULL), 0);
	CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_ADD, 2, NULL), 0);
	puppet_kill(&b.p);
	CHECK(devrig_await(&b.r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, NULL));
	CHECK(host_lookup(&a, 1) == -ENOENT && host_lookup(&a, 2) == -ENOENT);
	CHECK_EQ(libvhost_dev_reconnect(b.r.dev, NULL), 0);
	CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_ADD, 1, NULL), 0);
	CHECK_EQ(host_lookup(&a, 1), 0);
	wirerig_close(&b);
	CHECK_EQ(host_lookup(&a, 1), -ENOENT);
	wirerig_close(&a);
}

TEST(objects, r172_a_back_end_cannot_fill_the_table_or_take_what_is_not_its_own)
{
	struct wirerig a, b;
	uint32_t added = 0;
	int fd, rc = 0;

	rig(&a);
	second(&b, &a);
	CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_ADD, 0x80000000, NULL), 0);
	for (uint32_t n = 0; n < 3000; n++) {
		rc = wirerig_ask_uuid(&a, ASK_OBJECT_ADD, n * 2654435761u & 0x7fffffffu, NULL);
		CHECK(rc == 0 || rc == -ENOSPC);
		added += !rc;
	}
	CHECK_EQ(rc, -ENOSPC);
	CHECK_EQ(added, 1024);
	CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_ADD, 0x80000001, NULL), 0); /* room for the others */
	CHECK_EQ(wirerig_ask_uuid(&a, ASK_OBJECT_REMOVE, 0x80000000, NULL), -EPERM);
	CHECK_EQ(wirerig_ask_uuid(&a, ASK_OBJECT_REMOVE, 2654435761u & 0x7fffffffu, NULL), 0);
	CHECK_EQ(wirerig_ask_uuid(&a, ASK_OBJECT_ADD, 7, NULL), 0);
	fd = memfd(PAGE, 0);
	for (added = 0; !(rc = host_add(&a, 0x90000000 + added, fd)); added++)
		CHECK(added < 4096);
	CHECK_EQ(rc, -ENOSPC);
	CHECK_EQ(added, 4096 - 1024 - 2);
	wirerig_close(&b);
	CHECK_EQ(host_add(&a, 0xa0000000, fd), 0);
	close(fd);
	wirerig_close(&a);
}

static int not_found(void *arg, struct libvhost_req *req)
{
	struct wirerig *w = arg;
	uint8_t uuid[16];

	if (req->op != LIBVHOST_OP_BACKEND_SHARED_OBJECT_LOOKUP)
		return -ENOTSUP;
	wirerig_uuid(uuid, 99);
	CHECK_MEM(req->arg.uuid, uuid, 16);
	req->out_fd = memfd(PAGE, 0);
	req->out_flags = LIBVHOST_REQ_OUT_FD;
	w->r.f.opens++;
	return 0;
}

TEST(objects, what_is_not_in_the_table_is_asked_of_the_host)
{
	struct wirerig w;
	int got;

	wirerig_init(&w);
	w.r.opts.flags = LIBVHOST_DEV_SHARED_OBJECTS;
	w.ops.on_request = not_found;
	w.ops.arg = &w;
	wirerig_start(&w);
	CHECK_EQ(wirerig_ask_uuid(&w, ASK_OBJECT_LOOKUP, 99, &got), 0);
	CHECK(got >= 0);
	CHECK_EQ(w.r.f.opens, 1);
	close(got);
	wirerig_close(&w);
}

/* The owner's back-end never answers: the asking device goes on after a moment, and is held up once only. */
TEST(objects, a_mute_owner_loses_its_objects)
{
	struct wirerig a, b;
	uint64_t begin;

	rig(&a);
	second(&b, &a);
	CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_ADD, 1, NULL), 0);
	CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_ADD, 2, NULL), 0);
	puppet_fault(&b.p, (struct puppet_fault){.op = LIBVHOST_OP_GET_SHARED_OBJECT, .what = PUPPET_MUTE});
	begin = now_ms();
	CHECK_EQ(wirerig_ask_uuid(&a, ASK_OBJECT_LOOKUP, 1, NULL), -ETIMEDOUT);
	CHECK(now_ms() - begin < PROMPT_MS);
	CHECK_EQ(wirerig_ask_uuid(&a, ASK_OBJECT_LOOKUP, 2, NULL), -ENOENT);
	CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_ADD, 3, NULL), -EPERM);
	wirerig_close(&b);
	wirerig_close(&a);
}

TEST(objects, a_refusing_or_dying_owner_is_an_error_of_the_look_up)
{
	struct wirerig a, b;

	rig(&a);
	second(&b, &a);
	CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_ADD, 1, NULL), 0);
	puppet_fault(&b.p, (struct puppet_fault){.op = LIBVHOST_OP_GET_SHARED_OBJECT, .what = PUPPET_DIE_BEFORE});
	CHECK(wirerig_ask_uuid(&a, ASK_OBJECT_LOOKUP, 1, NULL) < 0);
	CHECK_EQ(devrig_state(&b.r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(wirerig_ask_uuid(&a, ASK_OBJECT_LOOKUP, 1, NULL), -ENOENT);
	CHECK_EQ(devrig_state(&a.r), LIBVHOST_DEV_RUNNING);
	wirerig_close(&b);
	wirerig_close(&a);
}

/* Two back-ends look up at each other's from two threads, over and over: nobody waits for the other. */
struct seeker {
	struct wirerig *w;
	uint32_t name;
	unsigned found, refused;
};

static void *seek(void *arg)
{
	struct seeker *s = arg;

	for (unsigned i = 0; i < 300; i++) {
		const int rc = wirerig_ask_uuid(s->w, ASK_OBJECT_LOOKUP, s->name, NULL);

		CHECK(rc == 0 || rc == -EBUSY);
		s->found += !rc;
		s->refused += rc == -EBUSY;
	}
	return NULL;
}

TEST(objects, two_devices_look_up_at_each_other_without_waiting)
{
	struct wirerig a, b;
	struct seeker one = {&a, 2, 0, 0}, other = {&b, 1, 0, 0};
	pthread_t thread;
	uint64_t begin = now_ms();

	rig(&a);
	second(&b, &a);
	CHECK_EQ(wirerig_ask_uuid(&a, ASK_OBJECT_ADD, 1, NULL), 0);
	CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_ADD, 2, NULL), 0);
	CHECK_EQ(pthread_create(&thread, NULL, seek, &one), 0);
	seek(&other);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	printf("# found %u and %u, refused %u and %u\n", one.found, other.found, one.refused, other.refused);
	CHECK(one.found + other.found);
	CHECK(now_ms() - begin < PATIENCE_MS);
	wirerig_close(&b);
	wirerig_close(&a);
}

/* Cleanup waits for look-ups that have the device in hand. */
static void *look_for_ever(void *arg)
{
	struct wirerig *w = arg;

	while (host_lookup(w, 1) != -ENOENT)
		;
	return NULL;
}

TEST(objects, cleanup_while_somebody_looks_up)
{
	struct wirerig a, b;
	pthread_t thread;

	rig(&a);
	for (unsigned i = 0; i < 20; i++) {
		second(&b, &a);
		CHECK_EQ(wirerig_ask_uuid(&b, ASK_OBJECT_ADD, 1, NULL), 0);
		CHECK_EQ(pthread_create(&thread, NULL, look_for_ever, &a), 0);
		usleep(1000 * (i % 5));
		wirerig_close(&b);
		CHECK_EQ(pthread_join(thread, NULL), 0);
	}
	wirerig_close(&a);
}
