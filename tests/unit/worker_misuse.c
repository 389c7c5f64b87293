/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A worker that is asked for what cannot be, or held by whom it serves. */
#include "workerhelp.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/timerfd.h>

static struct libvhost_error why(struct libvhost_worker *w)
{
	struct libvhost_error e = {.size = sizeof(e)};

	CHECK_EQ(libvhost_worker_error(w, &e), 0);
	return e;
}

static int nothing(void *arg, int fd)
{
	(void)arg;
	(void)fd;
	return 0;
}

TEST(worker_misuse, a_descriptor_that_blocks)
{
	struct bench b = setup(8, 0, 0);
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);

	CHECK_EQ(libvhost_worker_add_fd(b.w, timer, nothing, NULL, 1000), -EINVAL);
	CHECK_HAS(why(b.w).text, "blocks; make it non-blocking");
	CHECK_EQ(fcntl(timer, F_SETFL, O_NONBLOCK), 0);
	CHECK_EQ(libvhost_worker_add_fd(b.w, timer, nothing, NULL, 1000), 0);
	CHECK_EQ(libvhost_worker_remove_fd(b.w, timer, 1000), 0);
	close(timer);
	teardown(&b);
}

TEST(worker_misuse, a_queue_that_another_worker_has)
{
	const struct libvhost_worker_opts o = {.size = sizeof(o), .sandbox = SANDBOX};
	struct bench b = setup(8, 0, 0);
	struct libvhost_worker *other;

	CHECK_EQ(libvhost_worker_new(b.r.g.ctx, &o, &other), 0);
	add(&b, b.r.kick, complete_all, NULL);
	CHECK_EQ(libvhost_worker_add_vq(other, b.r.dev, b.r.kick, complete_all, NULL, 1000), -EEXIST);
	CHECK_HAS(why(other).text, "queue 7 is on another worker");
	CHECK(libvhost_vq_worker(b.r.dev) == b.w);
	offer_one(&b, 1);
	CHECK(completed(&b, 1));
	libvhost_worker_free(b.w); /* with the queue, which nobody serves then */
	CHECK(libvhost_vq_worker(b.r.dev) == NULL);
	b.w = other;
	add(&b, b.r.kick, complete_all, NULL);
	offer_one(&b, 2);
	CHECK(completed(&b, 2));
	teardown(&b);
}

static atomic_uint entered;

/* As the write of a call does whose descriptor somebody fills behind the look at it. */
static int writes(void *arg, struct libvhost_vq *vq)
{
	const int *call = arg;
	const uint64_t one = 1;

	entered++;
	return write(*call, &one, sizeof(one)) == sizeof(one) ? complete_all(NULL, vq) : -EIO;
}

TEST(worker_misuse, a_call_that_holds_its_worker)
{
	struct bench b = setup(8, 0, 0);
	uint64_t count = 0;

	CHECK_EQ(fcntl(b.r.call, F_SETFL, 0), 0);
	CHECK_EQ(eventfd_write(b.r.call, UINT64_MAX - 1), 0);
	entered = 0;
	add(&b, b.r.kick, writes, &b.r.call);
	CHECK(becomes(&entered, 1));
	CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, 5000), 0);
	CHECK_EQ(fcntl(b.r.call, F_SETFL, O_NONBLOCK), 0);
	CHECK_EQ(eventfd_read(b.r.call, &count), 0);
	CHECK_EQ(count, 1); /* room was made; what was to be said is there */
	CHECK_EQ(fcntl(b.r.call, F_SETFL, 0), 0);
	CHECK_EQ(eventfd_write(b.r.call, UINT64_MAX - 1), 0);
	entered = 0;
	add(&b, b.r.kick, writes, &b.r.call);
	CHECK(becomes(&entered, 1));
	teardown(&b); /* free does not wait for ever either */
}

TEST(worker_misuse, names_the_option)
{
	static const int32_t file = 0;
	static const struct {
		struct libvhost_worker_opts o;
		const char *says;
	} wrong[] = {
		{{.size = 4}, "libvhost_worker_opts: size is 4"},
		{{.flags = 0x80}, "flags has unknown bits"},
		{{.flags = LIBVHOST_WORKER_BUSY, .poll_us = 1}, "LIBVHOST_WORKER_BUSY with poll_us"},
		{{.role = 17}, "role is not known"},
		{{.caps = 17}, "sandbox, action or caps is not known"},
		{{.poll_us = 1000001}, "poll_us is above a second"},
		{{.name = "sixteen letters!"}, "name has no end within 16 bytes"},
		{{.flags = LIBVHOST_WORKER_HAS_CPU, .cpu = -1}, "cpu is no processor's number"},
		{{.num_files = 65, .files = &file}, "num_files is above 64"},
		{{.num_files = 1}, "num_files without files"},
		{{.num_files = 1, .files = &file}, "files need LIBVHOST_ROLE_BLOCK"},
		{{.io_depth = 4097}, "io_depth is above 4096"},
	};
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_worker *w = NULL;
	struct guest g = guest_new(0);

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct libvhost_worker_opts o = wrong[i].o;

		o.size = o.size ? o.size : sizeof(o);
		CHECK_EQ(libvhost_worker_new(g.ctx, &o, &w), -EINVAL);
		CHECK(w == NULL);
		CHECK_EQ(libvhost_ctx_error(g.ctx, &e), 0);
		CHECK_HAS(e.text, wrong[i].says);
	}
	guest_free(&g);
}
