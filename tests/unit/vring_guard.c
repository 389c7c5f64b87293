/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* LIBVHOST_CTX_SIGBUS_GUARD: rings of either role in memory that somebody cuts off, on threads of the host. */
#include "ringhelp.h"
#include "sigbushelp.h"

#define BYTES	 0x20000ull
#define BUFFERS	 0x10000ull /* from here on; rings below */
#define INDIRECT 0xc000ull

/* Memory in a file that anybody may cut, and a ring with both its sides in it. */
struct cuttable {
	struct guest g;
	int fd;
	struct libvhost_vq *drv, *dev;
};

static struct libvhost_vq *ring_of(struct cuttable *c, uint32_t role, uint64_t features)
{
	struct libvhost_vq_opts o = {.size = sizeof(o),
				     .role = role,
				     .num = 8,
				     .index = 3,
				     .features = features | LV_F_VERSION_1,
				     .avail = 0x1000,
				     .used = 0x2000};
	struct libvhost_vq *vq = NULL;

	if (role == LIBVHOST_VQ_DRIVER && features & F_INDIRECT)
		o.indirect = INDIRECT;
	CHECK_EQ(libvhost_vq_new(c->g.ctx, c->g.mem, &o, &vq), 0);
	return vq;
}

static void map_file(struct cuttable *c, uint64_t features)
{
	put(&c->g, region(c->fd, 0, BYTES, 0));
	c->drv = ring_of(c, LIBVHOST_VQ_DRIVER, features);
	c->dev = ring_of(c, LIBVHOST_VQ_DEVICE, features);
}

static struct cuttable cuttable(uint64_t features)
{
	struct cuttable c = {.g = guest_new_ctx(0, LIBVHOST_CTX_SIGBUS_GUARD), .fd = memfd(BYTES, 0)};

	map_file(&c, features);
	return c;
}

static void free_rings(struct cuttable *c)
{
	libvhost_vq_free(c->drv);
	libvhost_vq_free(c->dev);
	c->drv = c->dev = NULL;
}

static void cuttable_free(struct cuttable *c)
{
	free_rings(c);
	guest_free(&c->g);
	close(c->fd);
}

static int offer_one(struct cuttable *c)
{
	const struct libvhost_buf b[2] = {{.gpa = BUFFERS, .len = 16}, {.gpa = BUFFERS + PAGE, .len = PAGE}};
	int rc = libvhost_vq_add(c->drv, b, 1, 1, 1);

	return rc < 0 ? rc : libvhost_vq_kick(c->drv);
}

static int serve_one(struct cuttable *c)
{
	struct libvhost_iov iov[4];
	struct libvhost_chain chain = {.size = sizeof(chain), .iov = iov, .iov_cap = 4};
	int rc = libvhost_vq_pop(c->dev, &chain);

	if (rc <= 0)
		return rc;
	memset(iov[1].base, load(iov[0].base) + 1, iov[1].len);
	rc = libvhost_vq_push(c->dev, chain.head, chain.write_len);
	return rc < 0 ? rc : libvhost_vq_flush(c->dev);
}

static int take_one(struct cuttable *c)
{
	struct libvhost_used used;
	uint32_t n = 1;
	int rc = libvhost_vq_get_used(c->drv, &used, &n);

	return rc < 0 ? rc : (int)n;
}

static void goes_round(struct cuttable *c)
{
	CHECK(offer_one(c) >= 0);
	CHECK(serve_one(c) >= 0);
	CHECK_EQ(take_one(c), 1);
}

/* However the peer's cut shows first, the queue says what happened, to everything, from the second call at the latest.
 */
static void is_cut(struct libvhost_vq *vq, int (*call)(struct cuttable *), struct cuttable *c)
{
	struct libvhost_vq_info info = {.size = sizeof(info)};
	struct libvhost_error e = {.size = sizeof(e)};
	int rc = call(c);

	CHECK(rc >= 0 || rc == -EFAULT);
	CHECK_EQ(call(c), -EFAULT);
	CHECK_EQ(libvhost_vq_notify_enable(vq, 1), -EFAULT);
	CHECK_EQ(libvhost_vq_info(vq, &info), 0);
	CHECK_EQ(info.broken, 1);
	CHECK_EQ(libvhost_vq_error(vq, &e), 0);
	CHECK_EQ(e.code, -EFAULT);
	CHECK_EQ(e.queue, 3);
	CHECK_HAS(e.text, "cut off");
}

static const uint64_t formats[] = {0, F_EVENT, F_INDIRECT, F_ORDERED, F_PACKED, F_PACKED | F_EVENT | F_INDIRECT};

TEST(vring_guard, a_drivers_ring_cut_off)
{
	struct cuttable other = cuttable(0);

	for (unsigned i = 0; i < sizeof(formats) / sizeof(*formats); i++) {
		struct cuttable c = cuttable(formats[i]);

		goes_round(&c);
		CHECK_EQ(ftruncate(c.fd, 0), 0);
		is_cut(c.drv, offer_one, &c);
		is_cut(c.drv, take_one, &c);
		is_cut(c.dev, serve_one, &c);
		goes_round(&other);
		cuttable_free(&c);
	}
	cuttable_free(&other);
}

TEST(vring_guard, a_devices_ring_cut_off)
{
	for (unsigned i = 0; i < sizeof(formats) / sizeof(*formats); i++) {
		struct cuttable c = cuttable(formats[i]);

		goes_round(&c);
		CHECK(offer_one(&c) >= 0);
		CHECK_EQ(ftruncate(c.fd, 0), 0);
		is_cut(c.dev, serve_one, &c);
		is_cut(c.drv, take_one, &c);
		cuttable_free(&c);
	}
}

/* A ring that is made on memory that has gone already. */
TEST(vring_guard, a_ring_on_nothing)
{
	for (unsigned i = 0; i < sizeof(formats) / sizeof(*formats); i++) {
		struct cuttable c = cuttable(formats[i]);

		free_rings(&c);
		CHECK_EQ(ftruncate(c.fd, 0), 0);
		c.drv = ring_of(&c, LIBVHOST_VQ_DRIVER, formats[i]);
		is_cut(c.drv, offer_one, &c);
		cuttable_free(&c);
	}
}

/* What was cut stays so in that mapping, also when the file grows again; a new one of the same file is whole. */
TEST(vring_guard, a_new_mapping_of_the_same_file_works)
{
	struct cuttable c = cuttable(0);

	goes_round(&c);
	CHECK_EQ(ftruncate(c.fd, 0), 0);
	is_cut(c.drv, offer_one, &c);
	CHECK_EQ(ftruncate(c.fd, BYTES), 0);
	CHECK_EQ(offer_one(&c), -EFAULT);
	free_rings(&c);
	CHECK_EQ(libvhost_mem_begin(c.g.mem), 0);
	CHECK_EQ(libvhost_mem_remove(c.g.mem, 0, BYTES), 0);
	CHECK_EQ(libvhost_mem_commit(c.g.mem, 0, NULL), 0);
	map_file(&c, 0);
	goes_round(&c);
	CHECK_EQ(libvhost_vq_error(c.drv, &(struct libvhost_error){.size = sizeof(struct libvhost_error)}), 0);
	cuttable_free(&c);
}

/* The ring is whole; what a request points to is not. All queues on that region are broken, those on others are not. */
TEST(vring_guard, only_buffers_are_cut_off)
{
	struct cuttable c = cuttable(0), other = cuttable(F_PACKED);

	goes_round(&c);
	CHECK(offer_one(&c) >= 0);
	CHECK_EQ(ftruncate(c.fd, BUFFERS), 0);
	is_cut(c.dev, serve_one, &c);
	CHECK_EQ(offer_one(&c), -EFAULT);
	CHECK_EQ(take_one(&c), -EFAULT);
	goes_round(&other);
	cuttable_free(&c);
	cuttable_free(&other);
}

/* Two contexts of one process: the same file in each, a queue in each, a fault in one. */
TEST(vring_guard, contexts_break_their_own_queues)
{
	struct cuttable c = cuttable(0), twin = {.g = guest_new_ctx(0, LIBVHOST_CTX_SIGBUS_GUARD), .fd = dup(c.fd)};

	map_file(&twin, 0); /* another driver on the same bytes: it has them from now on */
	CHECK(offer_one(&twin) >= 0);
	CHECK_EQ(ftruncate(c.fd, BUFFERS), 0);
	is_cut(twin.dev, serve_one, &twin);
	CHECK(libvhost_vq_notify_enable(c.dev, 1) >= 0); /* its own mapping has not been touched there */
	cuttable_free(&twin);
	cuttable_free(&c);
}

/* Requests in flight when their region leaves the map keep it; cut off afterwards it harms no queue on other memory. */
TEST(vring_guard, memory_that_left_the_map_is_cut_off)
{
	const uint64_t extra = 1ull << 32;
	struct cuttable c = cuttable(0);
	const struct libvhost_buf b = {.gpa = extra, .len = PAGE};
	struct libvhost_iov iov[1];
	struct libvhost_chain chain = {.size = sizeof(chain), .iov = iov, .iov_cap = 1};
	int fd = memfd(PAGE, 0);

	put(&c.g, region(fd, extra, PAGE, 0));
	CHECK_EQ(libvhost_vq_add(c.drv, &b, 0, 1, 1), 0);
	CHECK(libvhost_vq_kick(c.drv) >= 0);
	CHECK_EQ(libvhost_vq_pop(c.dev, &chain), 1);
	CHECK_EQ(libvhost_mem_begin(c.g.mem), 0);
	CHECK_EQ(libvhost_mem_remove(c.g.mem, extra, PAGE), 0);
	CHECK_EQ(libvhost_mem_commit(c.g.mem, 0, NULL), 0);
	CHECK_EQ(ftruncate(fd, 0), 0);
	memset(iov[0].base, 7, iov[0].len);
	CHECK_EQ(libvhost_vq_push(c.dev, chain.head, 1), 0);
	CHECK(libvhost_vq_flush(c.dev) >= 0);
	CHECK_EQ(take_one(&c), 1);
	goes_round(&c);
	close(fd);
	cuttable_free(&c);
}

static void cut_unguarded(void)
{
	struct cuttable c = {.g = guest_new(0), .fd = memfd(BYTES, 0)};

	map_file(&c, 0);
	if (ftruncate(c.fd, 0) == 0)
		take_one(&c);
}

TEST(vring_guard, without_the_guard_the_process_dies)
{
	CHECK(died_of_it(status_of(cut_unguarded)));
}
