/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The library's own front-end against its own back-end, over a socket and in process. Shared mistakes do not show here:
 * foreign peers have tests of their own. */
#include "frontend.h"

#include <pthread.h>

#define QUEUES	 2u
#define NUM	 64u
#define GUEST	 0x400000ull
#define QUEUE_AT 0x10000ull /* areas of queue n at QUEUE_AT * (n + 1) */
#define DATA_AT	 0x200000ull
#define F_COMMON (LV_F_INDIRECT_DESC | LV_F_EVENT_IDX)

static const uint8_t config[8] = {1, 2, 3, 4, 5, 6, 7, 8};

/* Reads the first byte of what the driver sent and writes its successor. */
static int increment(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[8];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 8};
	int rc = 0;

	(void)arg;
	(void)queue;
	for (int i = 0; i < 16 && (rc = libvhost_vq_pop(vq, &c)) > 0; i++) {
		if (c.n_read == 1 && c.n_write == 1)
			*(uint8_t *)iov[1].base = (uint8_t)(*(uint8_t *)iov[0].base + 1);
		rc = libvhost_vq_push(vq, c.head, 1) < 0 ? -EIO : 1;
	}
	return rc;
}

static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = increment};

struct both {
	struct libvhost_ctx *ctx;
	struct libvhost_backend *b;
	struct libvhost_mem *mem;
	struct libvhost_dev *dev;
	struct libvhost_vq *drv[QUEUES];
	uint64_t format; /* feature bits */
	uint32_t num;
	pthread_t thread;
	atomic_int stop;
	char path[64], uri[80];
};

static void *dispatch(void *arg)
{
	struct both *x = arg;

	while (!atomic_load(&x->stop))
		libvhost_backend_dispatch(x->b, 20);
	return NULL;
}

static void make_backend(struct both *x)
{
	const struct libvhost_worker_opts worker = {.size = sizeof(worker), .sandbox = FAKE_SANDBOX};
	const struct libvhost_backend_opts o = {
		.size = sizeof(o),
		.num_queues = QUEUES,
		.features = F_COMMON | F_PACKED | F_ORDERED,
		.ops = &ops,
		.config = config,
		.config_len = sizeof(config),
		.num_workers = 2,
		.worker = &worker,
	};

	CHECK_EQ(libvhost_backend_new(x->ctx, &o, &x->b), 0);
}

/* A back-end that died left a packed ring where its driver sees it. */
static int ring_base(void *arg, uint32_t queue, uint32_t *base)
{
	struct both *x = arg;

	*base = vq_info(x->drv[queue]).base;
	return 0;
}

static void begin(struct both *x, bool in_process, uint64_t format)
{
	const struct libvhost_dev_ops dev_ops = {.size = sizeof(dev_ops), .ring_base = ring_base, .arg = x};
	struct libvhost_dev_opts o = {
		.size = sizeof(o), .num_queues = QUEUES, .timeout_ms = PATIENCE_MS, .ops = &dev_ops};
	const uint64_t features = F_COMMON | LV_F_VERSION_1 | format;

	memset(x, 0, sizeof(*x));
	x->format = format;
	x->num = format & F_PACKED ? 61 : NUM;
	CHECK_EQ(libvhost_ctx_new(NULL, &x->ctx), 0);
	make_backend(x);
	if (in_process) {
		CHECK_EQ(libvhost_backend_inproc(x->b, &o.transport), 0);
	} else {
		snprintf(x->path, sizeof(x->path), "/tmp/libvhost-dev-%d.sock", getpid());
		snprintf(x->uri, sizeof(x->uri), "user:%s", x->path);
		CHECK_EQ(libvhost_backend_listen(x->b, x->path), 0);
		o.uri = x->uri;
	}
	CHECK_EQ(pthread_create(&x->thread, NULL, dispatch, x), 0);
	CHECK_EQ(libvhost_mem_new(x->ctx, NULL, &x->mem), 0);
	CHECK_EQ(libvhost_mem_begin(x->mem), 0);
	CHECK_EQ(libvhost_mem_alloc(x->mem, 0, GUEST), 0);
	CHECK_EQ(libvhost_mem_commit(x->mem, 0, NULL), 0);
	o.mem = x->mem;
	CHECK_EQ(libvhost_dev_init(x->ctx, &o, &x->dev), 0);
	CHECK_EQ(libvhost_ack_features_ex(x->dev, &features, 1), 0);
}

static void end(struct both *x)
{
	for (uint32_t q = 0; q < QUEUES; q++)
		libvhost_vq_free(x->drv[q]);
	libvhost_dev_cleanup(x->dev);
	atomic_store(&x->stop, 1);
	pthread_join(x->thread, NULL);
	libvhost_backend_free(x->b);
	libvhost_mem_free(x->mem);
	libvhost_ctx_free(x->ctx);
}

static void set_queues(struct both *x)
{
	for (uint32_t q = 0; q < QUEUES; q++) {
		const uint64_t at = QUEUE_AT * (q + 1);
		struct libvhost_queue queue = {
			.size = sizeof(queue), .num = x->num, .desc = at, .avail = at + 0x1000, .used = at + 0x2000};
		struct libvhost_vq_opts o = {.size = sizeof(o),
					     .flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL,
					     .role = LIBVHOST_VQ_DRIVER,
					     .num = x->num,
					     .index = q,
					     .features = F_COMMON | LV_F_VERSION_1 | x->format,
					     .desc = at,
					     .avail = at + 0x1000,
					     .used = at + 0x2000,
					     .indirect = at + 0x3000,
					     .max_chain = 4};

		CHECK_EQ(libvhost_dev_set_queue(x->dev, q, &queue), 0);
		CHECK_EQ(libvhost_dev_get_queue(x->dev, q, &queue), 0);
		o.kick_fd = queue.kick_fd;
		o.call_fd = queue.call_fd;
		libvhost_vq_free(x->drv[q]);
		x->drv[q] = NULL;
		CHECK_EQ(libvhost_vq_new(x->ctx, x->mem, &o, &x->drv[q]), 0);
	}
}

static uint8_t *guest(struct both *x, uint64_t gpa)
{
	void *hva = NULL;

	CHECK_EQ(libvhost_mem_translate(x->mem, gpa, 1, &hva, NULL), 0);
	return hva;
}

static bool answered(struct libvhost_vq *vq, struct libvhost_used *used)
{
	for (int i = 0; i < PATIENCE_MS * 2; i++) {
		uint32_t n = 1;

		CHECK_EQ(libvhost_vq_get_used(vq, used, &n), 0);
		if (n)
			return true;
		usleep(500);
	}
	return false;
}

/* Each queue has data of its own: TSan cannot see how two workers are ordered through a ring that is mapped twice. */
static void one_request(struct both *x, uint32_t q, uint64_t base, uint8_t byte)
{
	const uint64_t data = base + q * 0x1000;
	const struct libvhost_buf bufs[2] = {{.gpa = data, .len = 1}, {.gpa = data + 64, .len = 1}};
	struct libvhost_used used;

	*guest(x, data) = byte;
	*guest(x, data + 64) = 0;
	CHECK_EQ(libvhost_vq_add(x->drv[q], bufs, 1, 1, byte), 0);
	CHECK(libvhost_vq_kick(x->drv[q]) >= 0);
	CHECK(answered(x->drv[q], &used));
	CHECK_EQ(used.token, byte);
	CHECK_EQ(used.len, 1);
	CHECK_EQ(*guest(x, data + 64), (uint8_t)(byte + 1));
}

static void some_requests(struct both *x)
{
	for (uint32_t i = 0; i < 100; i++)
		one_request(x, i % QUEUES, DATA_AT, (uint8_t)i);
}

static void life(bool in_process, uint64_t format)
{
	struct libvhost_queue queue = {.size = sizeof(queue)};
	uint8_t bytes[8];
	struct both x;

	begin(&x, in_process, format);
	CHECK_EQ(libvhost_dev_get_config(x.dev, 2, bytes, 4, 0), 0);
	CHECK_MEM(bytes, config + 2, 4);
	CHECK_EQ(libvhost_dev_set_config(x.dev, 2, bytes, 4, 0, 0), in_process ? -EPERM : -EIO);
	set_queues(&x);
	CHECK_EQ(libvhost_dev_start(x.dev, NULL), 0);
	some_requests(&x);
	CHECK_EQ(libvhost_dev_stop(x.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(x.dev, 1, &queue), 0);
	CHECK_EQ(queue.base, format & F_PACKED ? lv_pos_base(LV_POS_WRAP | 50) : 50);
	CHECK_EQ(libvhost_dev_start(x.dev, NULL), 0); /* where it stopped */
	some_requests(&x);
	CHECK_EQ(libvhost_virtqueue_mask(x.dev, 0, 1), 0);
	one_request(&x, 0, DATA_AT, 7);
	CHECK_EQ(libvhost_virtqueue_mask(x.dev, 0, 0), 0);
	CHECK_EQ(libvhost_dev_reset(x.dev, NULL), 0);
	end(&x);
}

TEST(backend_dev, life_over_a_socket)
{
	life(false, 0);
	life(false, F_PACKED);
	life(false, F_PACKED | F_ORDERED);
	life(false, F_ORDERED);
}

TEST(backend_dev, life_in_process)
{
	life(true, 0);
	life(true, F_PACKED);
}

static void hotplug(bool in_process, uint64_t format)
{
	struct both x;

	begin(&x, in_process, format);
	set_queues(&x);
	CHECK_EQ(libvhost_dev_start(x.dev, NULL), 0);
	for (uint32_t i = 0; i < 20; i++) {
		uint32_t lost = 9;

		CHECK_EQ(libvhost_mem_begin(x.mem), 0);
		CHECK_EQ(libvhost_mem_alloc(x.mem, 0x10000000, 0x10000), 0);
		CHECK_EQ(libvhost_mem_commit(x.mem, 0, &lost), 0);
		CHECK_EQ(lost, 0);
		one_request(&x, i % QUEUES, 0x10000000, (uint8_t)i);
		CHECK_EQ(libvhost_mem_begin(x.mem), 0);
		CHECK_EQ(libvhost_mem_remove(x.mem, 0x10000000, 0x10000), 0);
		CHECK_EQ(libvhost_mem_commit(x.mem, 0, &lost), 0);
		CHECK_EQ(lost, 0);
		one_request(&x, i % QUEUES, DATA_AT, (uint8_t)i);
	}
	end(&x);
}

TEST(backend_dev, memory_comes_and_goes_over_a_socket)
{
	hotplug(false, 0);
	hotplug(false, F_PACKED);
}

TEST(backend_dev, memory_comes_and_goes_in_process)
{
	hotplug(true, 0);
	hotplug(true, F_PACKED);
}

static void change(bool in_process)
{
	const uint8_t next[8] = {9, 9, 9};
	struct libvhost_event e = {0};
	uint8_t bytes[8];
	struct both x;

	begin(&x, in_process, 0);
	CHECK_EQ(libvhost_backend_set_config(x.b, next, sizeof(next)), 0);
	for (int i = 0; i < PATIENCE_MS / 20 && e.type != LIBVHOST_EVENT_CONFIG_CHANGE; i++) {
		CHECK_EQ(libvhost_dev_dispatch(x.dev, 20), 0);
		libvhost_dev_next_event(x.dev, &e);
	}
	CHECK_EQ(e.type, LIBVHOST_EVENT_CONFIG_CHANGE);
	CHECK_EQ(libvhost_dev_get_config(x.dev, 0, bytes, 8, 0), 0);
	CHECK_MEM(bytes, next, 8);
	end(&x);
}

TEST(backend_dev, configuration_change_arrives_over_a_socket)
{
	change(false);
}

TEST(backend_dev, configuration_change_arrives_in_process)
{
	change(true);
}

static void again(bool in_process, uint64_t format)
{
	struct both x;

	begin(&x, in_process, format);
	set_queues(&x);
	CHECK_EQ(libvhost_dev_start(x.dev, NULL), 0);
	for (int i = 0; i < 10; i++) {
		some_requests(&x);
		CHECK_EQ(libvhost_dev_reconnect(x.dev, NULL), 0);
	}
	some_requests(&x);
	end(&x);
}

TEST(backend_dev, reconnects_over_a_socket)
{
	again(false, 0);
	again(false, F_PACKED);
}

TEST(backend_dev, reconnects_in_process)
{
	again(true, 0);
	again(true, F_PACKED);
}
