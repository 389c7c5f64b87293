/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Every request of the table, as it should be and not: our device answers as docs/messages.md says. */
#include "frontend.h"

enum variant { RIGHT, WRONG_SIZE, MANY_FDS, VARIANTS };
enum verdict { DONE, REFUSED_BY_ACK, REFUSED_BY_ANSWER, REFUSED_BY_END };
enum heard { SILENCE, YES, NO, END };

static const char *const variants[] = {"as it should be", "of another size", "with too many descriptors"};

static int take_config(void *arg, uint32_t offset, const void *buf, uint32_t len, uint32_t type)
{
	(void)arg;
	(void)offset;
	(void)buf;
	(void)len;
	(void)type;
	return 0;
}

static int64_t save_nothing(void *arg, void *buf, uint64_t cap)
{
	(void)arg;
	(void)buf;
	(void)cap;
	return 0;
}

static int load_nothing(void *arg, const void *buf, uint64_t len)
{
	(void)arg;
	(void)buf;
	return len ? -EINVAL : 0;
}

static struct fake device(void)
{
	static const uint8_t config[16];
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops),
							.serve = fake_serve,
							.set_config = take_config,
							.save_state = save_nothing,
							.load_state = load_nothing};
	const struct libvhost_backend_opts o = {.ops = &ops, .config = config, .config_len = sizeof(config)};

	return fake_new(&o);
}

/* What the manual says of a request: the last columns of its row. */
static void read_manual(uint32_t op, bool *served, enum verdict *refused)
{
	const char *top = getenv("top_srcdir");
	char path[1024], line[1024], *cell[12] = {0}, *end;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "%s/docs/messages.md", top ? top : ".");
	f = fopen(path, "re");
	CHECK(f);
	while (!found && fgets(line, sizeof(line), f)) {
		int n = 0;

		for (char *c = strtok_r(line, "|", &end); c && n < 12; c = strtok_r(NULL, "|", &end))
			cell[n++] = c;
		found = n == 12 && (uint32_t)strtoul(cell[0], NULL, 10) == op;
	}
	fclose(f);
	CHECK(found);
	*served = !strcmp(cell[8], " yes ");
	CHECK(*served || !strcmp(cell[8], " no "));
	*refused = !strcmp(cell[9], " acknowledgement ") ? REFUSED_BY_ACK
		   : !strcmp(cell[9], " answer ")	 ? REFUSED_BY_ANSWER
							 : REFUSED_BY_END;
	CHECK(*refused != REFUSED_BY_END || !strcmp(cell[9], " end "));
}

struct message {
	uint32_t size, nfds;
	_Alignas(8) uint8_t payload[1100];
	int fd; /* the first one */
	int opened[2];
};

static void put_bytes(struct message *m, const void *payload, uint32_t size)
{
	memcpy(m->payload, payload, size);
	m->size = size;
}

static uint64_t number(uint32_t op)
{
	return op == LIBVHOST_OP_SET_PROTOCOL_FEATURES ? PF(REPLY_ACK) : 0;
}

static void put_inflight(struct message *m, uint32_t op)
{
	const struct {
		uint64_t size, offset;
		uint16_t queues, entries;
	} region = {op == LIBVHOST_OP_SET_INFLIGHT_FD ? 8192 : 0, 0, 4, 8};

	put_bytes(m, &region, 24);
}

static void put_payload(struct message *m, const struct libvhost_op_info *info, uint32_t op)
{
	const bool add = op == LIBVHOST_OP_ADD_MEM_REG;
	const uint64_t region[5] = {0, add ? 1ull << 32 : 0, RAM_BYTES, add ? UADDR * 2 : UADDR, 0};
	const uint64_t addr[5] = {0, UADDR, UADDR + 0x2000, UADDR + 0x1000, 0}, log[2] = {4096, 0};
	const uint32_t state[2] = {0, op == LIBVHOST_OP_SET_VRING_NUM ? 8 : 0}, config[4] = {0, 4, 0, 0};
	const uint64_t word = number(op), iotlb[4] = {0x1000, 0x1000, UADDR, 0x0203};
	static const uint8_t zero[1072];

	switch (info->payload) {
	case LIBVHOST_PAYLOAD_NONE:
		return;
	case LIBVHOST_PAYLOAD_STATE:
		return put_bytes(m, state, sizeof(state));
	case LIBVHOST_PAYLOAD_ADDR:
		return put_bytes(m, addr, sizeof(addr));
	case LIBVHOST_PAYLOAD_REGION:
		return put_bytes(m, region, sizeof(region));
	case LIBVHOST_PAYLOAD_LOG:
		return put_bytes(m, log, sizeof(log));
	case LIBVHOST_PAYLOAD_CONFIG:
		return put_bytes(m, config, sizeof(config));
	case LIBVHOST_PAYLOAD_INFLIGHT:
		return put_inflight(m, op);
	case LIBVHOST_PAYLOAD_IOTLB:
		return put_bytes(m, iotlb, sizeof(iotlb));
	case LIBVHOST_PAYLOAD_CRYPTO:
		return put_bytes(m, zero, sizeof(zero));
	case LIBVHOST_PAYLOAD_UUID:
		return put_bytes(m, zero, 16);
	default:
		return put_bytes(m, &word, sizeof(word));
	}
}

static int open_fd(struct message *m, const struct fake *p, uint32_t op)
{
	m->opened[0] = m->opened[1] = -1;
	switch (op) {
	case LIBVHOST_OP_SET_DEVICE_STATE_FD:
		CHECK_EQ(pipe2(m->opened, O_CLOEXEC), 0);
		return m->opened[1];
	case LIBVHOST_OP_SET_BACKEND_REQ_FD:
	case LIBVHOST_OP_GPU_SET_SOCKET:
		CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, m->opened), 0);
		return m->opened[1];
	case LIBVHOST_OP_SET_LOG_BASE:
	case LIBVHOST_OP_SET_INFLIGHT_FD:
		m->opened[0] = memfd(8192, 0);
		return m->opened[0];
	case LIBVHOST_OP_ADD_MEM_REG:
		return p->ram;
	default:
		return p->err;
	}
}

static struct message message(const struct fake *p, const struct libvhost_op_info *info, uint32_t op, enum variant v)
{
	struct message m = {.fd = -1};

	put_payload(&m, info, op);
	m.fd = open_fd(&m, p, op);
	m.nfds = info->payload == LIBVHOST_PAYLOAD_TABLE ? 0 : info->max_fds;
	if (v == WRONG_SIZE)
		m.size += 4;
	else if (v == MANY_FDS)
		m.nfds = info->max_fds + 2;
	return m;
}

static void close_message(const struct message *m)
{
	for (int i = 0; i < 2; i++)
		if (m->opened[i] >= 0)
			close(m->opened[i]);
}

/* What the device is to know before this request can be one. */
static void prepare(struct fake *p, uint32_t op)
{
	struct libvhost_op_info info = {.size = sizeof(info)};
	struct message m;

	fake_connect(p);
	handshake(p);
	CHECK_EQ(ask_state(p, LIBVHOST_OP_SET_VRING_NUM, 0, 8), 0);
	if (op != LIBVHOST_OP_CHECK_DEVICE_STATE)
		return;
	CHECK_EQ(libvhost_op_info(LIBVHOST_OP_SET_DEVICE_STATE_FD, &info), 0);
	m = message(p, &info, LIBVHOST_OP_SET_DEVICE_STATE_FD, RIGHT);
	CHECK_EQ(ask(p, LIBVHOST_OP_SET_DEVICE_STATE_FD, m.payload, m.size, &m.fd, 1), -0x100);
	close_message(&m);
}

/* The answer, if any, and the descriptor beside it is closed. A word that is not 0 may be a value or a refusal. */
static enum heard listen_for(struct fake *p, uint32_t op, bool word_is_refusal)
{
	_Alignas(8) uint8_t bytes[4096] = {0};
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct wire_hdr hdr;
	bool fd = false;
	uint64_t word;
	ssize_t n;
	int got;

	settle(p);
	n = recvmsg(p->sock, &h, MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return n < 0 && errno == EAGAIN ? SILENCE : END;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) {
		memcpy(&got, CMSG_DATA(c), sizeof(got));
		close(got);
		fd = true;
	}
	memcpy(&hdr, bytes, sizeof(hdr));
	CHECK_EQ(hdr.request, op);
	CHECK_EQ((size_t)n, sizeof(hdr) + hdr.size);
	memcpy(&word, bytes + sizeof(hdr), sizeof(word));
	if (hdr.size == 8)
		return word_is_refusal && word & 0xff ? NO : YES;
	if (op == LIBVHOST_OP_GET_INFLIGHT_FD)
		return fd ? YES : NO;
	return hdr.size && op != LIBVHOST_OP_CREATE_CRYPTO_SESSION ? YES : NO;
}

static enum heard expected(const struct libvhost_op_info *info, bool done, enum verdict refused, bool need_reply)
{
	if (done)
		return info->reply == LIBVHOST_REPLY_ACK && !need_reply ? SILENCE : YES;
	if (refused == REFUSED_BY_ANSWER)
		return NO;
	return refused == REFUSED_BY_ACK && need_reply ? NO : END;
}

static void try(struct fake *p, uint32_t op, enum variant v, bool need_reply)
{
	struct libvhost_op_info info = {.size = sizeof(info)};
	enum verdict refused = DONE;
	struct message m;
	int fds[16];
	enum heard want, got;
	bool served;

	CHECK_EQ(libvhost_op_info(op, &info), 0);
	read_manual(op, &served, &refused);
	prepare(p, op);
	m = message(p, &info, op, v);
	for (uint32_t i = 0; i < 16; i++)
		fds[i] = m.fd;
	want = expected(&info, served && v == RIGHT, refused, need_reply);
	if (op == LIBVHOST_OP_CREATE_CRYPTO_SESSION && v != RIGHT)
		want = END; /* the answer is the session as it came: there is none */
	send_msg(p, op, need_reply ? NEED_REPLY : 0, m.payload, m.size, fds, m.nfds);
	got = listen_for(p, op, refused != REFUSED_BY_END);
	if (got != want)
		lv_test_fail(__FILE__, __LINE__, "%s %s%s: heard %d, docs/messages.md says %d", libvhost_op_name(op),
			     variants[v], need_reply ? ", to be acknowledged" : "", got, want);
	if (got != END)
		CHECK_EQ(get_u64(p, LIBVHOST_OP_GET_FEATURES) & F30, F30); /* and the stream is in step */
	close_message(&m);
}

TEST(backend_ops, every_request_gets_the_verdict_of_the_manual)
{
	struct fake p = device();

	for (uint32_t op = LIBVHOST_OP_GET_FEATURES; op <= LIBVHOST_OP_GET_SHMEM_CONFIG; op++)
		for (enum variant v = RIGHT; v < VARIANTS; v++)
			for (int need_reply = 0; need_reply < 2; need_reply++)
				try(&p, op, v, need_reply);
	fake_free(&p);
}
