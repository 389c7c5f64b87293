/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A transport made outside the library, with nothing but the installed headers: a table of answers stands for the
 * peer. A managed device lives on it from connecting to stopping, through a refusal and a lost connection.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/libvhost.h>

#define F_PROTOCOL 30 /* VHOST_USER_F_PROTOCOL_FEATURES of the vhost-user specification */
#define QUEUES	   2u
#define ENTRIES	   16u
#define FEATURES   (1ull << F_PROTOCOL | 1ull << 32)
#define SEEN	   512u

struct table {
	uint32_t op;
	uint64_t value;
};

/* What the peer answers; everything else is accepted without a value. */
static const struct table answers[] = {
	{LIBVHOST_OP_GET_FEATURES, FEATURES},
	{LIBVHOST_OP_GET_PROTOCOL_FEATURES,
	 1ull << LIBVHOST_PROTOCOL_F_MQ | 1ull << LIBVHOST_PROTOCOL_F_REPLY_ACK | 1ull << LIBVHOST_PROTOCOL_F_CONFIG},
	{LIBVHOST_OP_GET_QUEUE_NUM, QUEUES},
	{LIBVHOST_OP_GET_VRING_BASE, 5},
};

struct plugin {
	struct libvhost_req *reqs;
	uint32_t count, seen[SEEN], nseen;
	uint32_t refuse, die; /* operation, 0 = none */
	int opened, closed, destroyed, gone;
};

#define MUST(cond)                                                                                                     \
	do {                                                                                                           \
		if (!(cond)) {                                                                                         \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                     \
			exit(1);                                                                                       \
		}                                                                                                      \
	} while (0)

static int plugin_open(void *self)
{
	struct plugin *p = self;

	p->opened++;
	p->gone = 0;
	return 0;
}

static void plugin_close(void *self)
{
	struct plugin *p = self;

	p->closed++;
	p->gone = 1;
}

static void plugin_destroy(void *self)
{
	struct plugin *p = self;

	p->destroyed++;
}

static int plugin_query(void *self, struct libvhost_transport_caps *caps)
{
	(void)self;
	caps->dialect = LIBVHOST_DIALECT_USER;
	caps->addr_kind = LIBVHOST_ADDR_COOKIE;
	caps->flags = LIBVHOST_TRANSPORT_NEEDS_FD | LIBVHOST_TRANSPORT_BASE_STOPS | LIBVHOST_TRANSPORT_CAN_REOPEN;
	caps->max_regions = 8;
	memset(caps->ops, 0xff, sizeof(caps->ops));
	strcpy(caps->peer, "plugin:table");
	return 0;
}

static int plugin_submit(void *self, struct libvhost_req *reqs, uint32_t count)
{
	struct plugin *p = self;

	p->reqs = reqs;
	p->count = count;
	return 0;
}

static void answer(struct libvhost_req *req)
{
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
		if (answers[i].op == req->op)
			req->result[0] = answers[i].value;
	if (req->op == LIBVHOST_OP_GET_CONFIG) {
		memset((void *)(uintptr_t)req->data_out, 0x5a, req->arg.config.size);
		req->data_out_len = req->arg.config.size;
	}
	req->state = LIBVHOST_REQ_DONE;
}

static int plugin_progress(void *self)
{
	struct plugin *p = self;

	for (uint32_t i = 0; p->reqs && i < p->count; i++) {
		struct libvhost_req *req = &p->reqs[i];

		if (p->nseen < SEEN)
			p->seen[p->nseen++] = req->op;
		if (req->op == p->die) {
			req->state = LIBVHOST_REQ_UNKNOWN;
			p->die = 0;
			p->gone = 1;
		}
		if (p->gone) {
			p->reqs = NULL;
			return -ECONNRESET;
		}
		if (req->op == p->refuse) {
			req->state = LIBVHOST_REQ_FAILED;
			req->err = -EIO;
			p->refuse = 0;
			break;
		}
		answer(req);
	}
	p->reqs = NULL;
	return 1;
}

static void plugin_cancel(void *self)
{
	struct plugin *p = self;

	p->reqs = NULL;
}

static uint32_t plugin_pollfds(void *self, struct libvhost_pollfd *fds, uint32_t cap)
{
	(void)self;
	(void)fds;
	(void)cap;
	return 0;
}

static uint32_t count(const struct plugin *p, uint32_t op)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < p->nseen; i++)
		n += p->seen[i] == op;
	return n;
}

static uint32_t first(const struct plugin *p, uint32_t op)
{
	uint32_t i = 0;

	while (i < p->nseen && p->seen[i] != op)
		i++;
	return i;
}

static struct libvhost_dev *connect_device(struct libvhost_ctx *ctx, struct libvhost_mem *mem, struct plugin *p)
{
	const struct libvhost_transport_ops ops = {
		.size = sizeof(ops),
		.open = plugin_open,
		.close = plugin_close,
		.destroy = plugin_destroy,
		.query = plugin_query,
		.submit = plugin_submit,
		.progress = plugin_progress,
		.cancel = plugin_cancel,
		.pollfds = plugin_pollfds,
	};
	struct libvhost_dev_opts opts = {.size = sizeof(opts), .num_queues = QUEUES, .mem = mem};
	struct libvhost_dev *dev;

	MUST(libvhost_transport_new(ctx, &ops, p, &opts.transport) == 0);
	MUST(libvhost_dev_init(ctx, &opts, &dev) == 0);
	MUST(p->opened == 1);
	return dev;
}

static void set_queues(struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < QUEUES; i++) {
		const struct libvhost_queue queue = {.size = sizeof(queue),
						     .num = ENTRIES,
						     .desc = i * 0x3000,
						     .avail = i * 0x3000 + 0x1000,
						     .used = i * 0x3000 + 0x2000};

		MUST(libvhost_dev_set_queue(dev, i, &queue) == 0);
	}
}

static uint32_t state(struct libvhost_dev *dev)
{
	struct libvhost_dev_info info = {.size = sizeof(info)};

	MUST(libvhost_dev_info(dev, &info) == 0);
	return info.state;
}

static void start_and_stop(struct libvhost_dev *dev, struct plugin *p)
{
	struct libvhost_queue queue = {.size = sizeof(queue)};
	uint8_t config[8] = {0};

	p->nseen = 0;
	MUST(libvhost_dev_start(dev, NULL) == 0);
	MUST(state(dev) == LIBVHOST_DEV_RUNNING);
	MUST(count(p, LIBVHOST_OP_SET_FEATURES) == 1 && count(p, LIBVHOST_OP_SET_MEM_TABLE) == 1);
	MUST(count(p, LIBVHOST_OP_SET_VRING_NUM) == QUEUES && count(p, LIBVHOST_OP_SET_VRING_KICK) == QUEUES);
	MUST(first(p, LIBVHOST_OP_SET_FEATURES) < first(p, LIBVHOST_OP_SET_MEM_TABLE));
	MUST(first(p, LIBVHOST_OP_SET_MEM_TABLE) < first(p, LIBVHOST_OP_SET_VRING_ADDR));
	MUST(first(p, LIBVHOST_OP_SET_VRING_ADDR) < first(p, LIBVHOST_OP_SET_VRING_KICK));
	MUST(libvhost_dev_get_config(dev, 0, config, sizeof(config), 0) == 0);
	MUST(config[0] == 0x5a && config[7] == 0x5a);
	MUST(libvhost_dev_stop(dev, NULL) == 0);
	MUST(count(p, LIBVHOST_OP_GET_VRING_BASE) == QUEUES);
	MUST(libvhost_dev_get_queue(dev, 1, &queue) == 0 && queue.base == 5);
}

static void refusal_and_death(struct libvhost_dev *dev, struct plugin *p)
{
	struct libvhost_error err = {.size = sizeof(err)};

	p->refuse = LIBVHOST_OP_SET_VRING_ADDR;
	MUST(libvhost_dev_start(dev, NULL) == -EIO);
	MUST(libvhost_dev_error(dev, &err) == 0 && err.kind == LIBVHOST_EK_REFUSED);
	MUST(err.op == LIBVHOST_OP_SET_VRING_ADDR && strstr(err.text, "SET_VRING_ADDR"));
	MUST(state(dev) == LIBVHOST_DEV_NEGOTIATED);
	p->die = LIBVHOST_OP_SET_VRING_KICK;
	MUST(libvhost_dev_start(dev, NULL) == -ECONNRESET);
	MUST(state(dev) == LIBVHOST_DEV_DISCONNECTED);
	MUST(libvhost_dev_reconnect(dev, NULL) == 0);
	MUST(p->opened == 2 && p->closed >= 1);
	MUST(state(dev) == LIBVHOST_DEV_NEGOTIATED);
}

/* The peer speaks first: a change of configuration space becomes an event. */
static void inbound(struct libvhost_dev *dev)
{
	struct libvhost_req req = {.op = LIBVHOST_OP_BACKEND_CONFIG_CHANGE};
	struct libvhost_event event;
	int told = 0;

	MUST(libvhost_transport_inbound(libvhost_dev_transport(dev, 0), &req) == 0);
	while (libvhost_dev_next_event(dev, &event) == 1)
		told += event.type == LIBVHOST_EVENT_CONFIG_CHANGE;
	MUST(told == 1);
}

int main(void)
{
	const uint64_t features = 1ull << 32;
	static struct plugin plugin;
	struct libvhost_ctx *ctx;
	struct libvhost_mem *mem;
	struct libvhost_dev *dev;

	MUST(libvhost_ctx_new(NULL, &ctx) == 0);
	MUST(libvhost_mem_new(ctx, NULL, &mem) == 0);
	MUST(libvhost_mem_begin(mem) == 0);
	MUST(libvhost_mem_alloc(mem, 0, 0x100000) == 0);
	MUST(libvhost_mem_commit(mem, 0, NULL) == 0);
	dev = connect_device(ctx, mem, &plugin);
	MUST(libvhost_ack_features_ex(dev, &features, 1) == 0);
	set_queues(dev);
	start_and_stop(dev, &plugin);
	refusal_and_death(dev, &plugin);
	start_and_stop(dev, &plugin);
	inbound(dev);
	libvhost_dev_cleanup(dev);
	MUST(plugin.destroyed == 1);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	puts("the device lived on a table of answers");
	return 0;
}
