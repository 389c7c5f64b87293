/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The n-th allocation, descriptor, mapping or epoll entry of the device side fails, for each n of a front-end's whole
 * conversation, in which is every message that our back-end knows. A message that fails is refused with its reason, or
 * ends the connection; it does no harm to what follows, and the next front-end is served as if nothing had been.
 */
#include "faults.h"
#include "frontend.h"

#define OP(name)  LIBVHOST_OP_##name
#define F_LOG	  (1ull << 26)
#define LOG_BYTES 4096u
#define HIGH	  0x100000000ull
#define SPOKEN_NO (-EIO) /* a refusal whose answer has no room for a reason */

struct talk {
	struct fake p;
	int high, log, region, channel[2]; /* memory to add, the dirty log, the inflight region */
	uint64_t inflight[3];		   /* size, offset, queues and entries */
	uint16_t used;
	int expected;
	uint32_t failures;
};

static int ask_own(struct talk *t, uint32_t op, void *payload, uint32_t size)
{
	struct wire_hdr hdr;
	uint8_t answer[512];
	int n;

	send_msg(&t->p, op, 0, payload, size, NULL, 0);
	n = recv_msg(&t->p, &hdr, answer, sizeof(answer));
	if (n < 0)
		return n == -2 ? 1 : 2;
	CHECK_EQ(hdr.request, op);
	if (payload)
		memcpy(payload, answer, (uint32_t)n < size ? (uint32_t)n : size);
	return n ? 0 : SPOKEN_NO;
}

static int say_connect(struct talk *t)
{
	const enum fault_class what = fault.what;
	int pair[2], rc;

	if (t->p.sock >= 0)
		close(t->p.sock);
	t->p.sock = -1;
	settle(&t->p);
	memset(t->p.mem, 0, 0x4000);
	t->used = 0;
	fault.what = FAULT_NONE; /* the socket is not the back-end's */
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	fault.what = what;
	rc = libvhost_backend_adopt(t->p.b, pair[1]);
	close(pair[1]);
	if (rc < 0)
		close(pair[0]);
	else
		t->p.sock = pair[0];
	return rc;
}

static int say_get_features(struct talk *t)
{
	return ask_own(t, OP(GET_FEATURES), NULL, 0);
}

static int say_get_protocol(struct talk *t)
{
	return ask_own(t, OP(GET_PROTOCOL_FEATURES), NULL, 0);
}

static int say_set_protocol(struct talk *t)
{
	return ask_u64(&t->p, OP(SET_PROTOCOL_FEATURES),
		       PF(MQ) | PF(LOG_SHMFD) | PF(REPLY_ACK) | PF(BACKEND_REQ) | PF(CONFIG) | PF(INFLIGHT_SHMFD) |
			       PF(RESET_DEVICE) | PF(CONFIGURE_MEM_SLOTS) | PF(STATUS));
}

static int say_owner(struct talk *t)
{
	return ask(&t->p, OP(SET_OWNER), NULL, 0, NULL, 0);
}

static int say_queue_num(struct talk *t)
{
	return ask_own(t, OP(GET_QUEUE_NUM), NULL, 0);
}

static int say_slots(struct talk *t)
{
	return ask_own(t, OP(GET_MAX_MEM_SLOTS), NULL, 0);
}

static int say_channel(struct talk *t)
{
	return ask(&t->p, OP(SET_BACKEND_REQ_FD), NULL, 0, &t->channel[1], 1);
}

static int say_features(struct talk *t)
{
	return ask_u64(&t->p, OP(SET_FEATURES), F30 | F_VERSION);
}

static int say_table(struct talk *t)
{
	const struct libvhost_region ram = {.size = RAM_BYTES, .user_addr = UADDR, .fd = t->p.ram};

	return ask_table(&t->p, &ram, 1, 1);
}

static int say_add(struct talk *t)
{
	const uint64_t wire[] = {0, HIGH, RAM_BYTES, UADDR + HIGH, 0};

	return ask(&t->p, OP(ADD_MEM_REG), wire, sizeof(wire), &t->high, 1);
}

static int say_remove(struct talk *t)
{
	const uint64_t wire[] = {0, HIGH, RAM_BYTES, UADDR + HIGH, 0};

	return ask(&t->p, OP(REM_MEM_REG), wire, sizeof(wire), NULL, 0);
}

static int say_get_inflight(struct talk *t)
{
	const uint64_t wire[] = {0, 0, 1 | 8 << 16};
	_Alignas(8) char control[CMSG_SPACE(sizeof(int))];
	uint8_t bytes[sizeof(struct wire_hdr) + sizeof(wire)];
	struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};

	if (t->region >= 0)
		close(t->region);
	t->region = -1;
	send_msg(&t->p, OP(GET_INFLIGHT_FD), 0, wire, sizeof(wire), NULL, 0);
	settle(&t->p);
	if (recvmsg(t->p.sock, &m, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(bytes))
		return 1;
	memcpy(t->inflight, bytes + sizeof(struct wire_hdr), sizeof(wire));
	if (CMSG_FIRSTHDR(&m))
		memcpy(&t->region, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	return t->region < 0 ? SPOKEN_NO : 0;
}

static int say_set_inflight(struct talk *t)
{
	return ask(&t->p, OP(SET_INFLIGHT_FD), t->inflight, sizeof(t->inflight), &t->region, 1);
}

static int say_log(struct talk *t)
{
	const uint64_t wire[] = {LOG_BYTES, 0};
	uint64_t answer[2] = {0};
	struct wire_hdr hdr;
	int n;

	send_msg(&t->p, OP(SET_LOG_BASE), NEED_REPLY, wire, sizeof(wire), &t->log, 1);
	n = recv_msg(&t->p, &hdr, answer, sizeof(answer));
	if (n < 0)
		return 1;
	return n == 16 ? 0 : -(int)answer[0];
}

static int say_num(struct talk *t)
{
	return ask_state(&t->p, OP(SET_VRING_NUM), 0, 8);
}

static int say_base(struct talk *t)
{
	return ask_state(&t->p, OP(SET_VRING_BASE), 0, t->used);
}

static int address(struct talk *t, uint32_t flags)
{
	const struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} a = {.flags = flags, .desc = UADDR, .used = UADDR + 0x2000, .avail = UADDR + 0x1000, .log = 0x2000};

	return ask(&t->p, OP(SET_VRING_ADDR), &a, sizeof(a), NULL, 0);
}

static int say_addr(struct talk *t)
{
	return address(t, 0);
}

static int say_addr_logged(struct talk *t)
{
	return address(t, 1);
}

static int say_call(struct talk *t)
{
	return ask_fd(&t->p, OP(SET_VRING_CALL), 0, t->p.call);
}

static int say_err(struct talk *t)
{
	return ask_fd(&t->p, OP(SET_VRING_ERR), 0, t->p.err);
}

static int say_kick(struct talk *t)
{
	return ask_fd(&t->p, OP(SET_VRING_KICK), 0, t->p.kick);
}

static int say_enable(struct talk *t)
{
	return ask_state(&t->p, OP(SET_VRING_ENABLE), 0, 1);
}

static int say_disable(struct talk *t)
{
	return ask_state(&t->p, OP(SET_VRING_ENABLE), 0, 0);
}

static int say_features_logged(struct talk *t)
{
	return ask_u64(&t->p, OP(SET_FEATURES), F30 | F_VERSION | F_LOG);
}

struct config {
	uint32_t offset, size, flags;
	uint8_t bytes[4];
};

static int say_get_config(struct talk *t)
{
	struct config c = {.size = 4};

	return ask_own(t, OP(GET_CONFIG), &c, sizeof(c));
}

static int say_set_config(struct talk *t)
{
	const struct config c = {.size = 4};

	return ask(&t->p, OP(SET_CONFIG), &c, sizeof(c), NULL, 0);
}

static int say_status(struct talk *t)
{
	return ask_u64(&t->p, OP(SET_STATUS), 15);
}

static int say_get_status(struct talk *t)
{
	return ask_own(t, OP(GET_STATUS), NULL, 0);
}

static int say_stop(struct talk *t)
{
	uint32_t state[2] = {0};

	return ask_own(t, OP(GET_VRING_BASE), state, sizeof(state));
}

static int say_clear_status(struct talk *t)
{
	return ask_u64(&t->p, OP(SET_STATUS), 0);
}

static int say_reset_device(struct talk *t)
{
	return ask(&t->p, OP(RESET_DEVICE), NULL, 0, NULL, 0);
}

static int say_reset_owner(struct talk *t)
{
	return ask(&t->p, OP(RESET_OWNER), NULL, 0, NULL, 0);
}

/* Not a message: the ring serves. */
static int work(struct talk *t)
{
	ring_offer(&t->p);
	CHECK(ring_used(&t->p, ++t->used));
	return 0;
}

static const struct {
	const char *name; /* what the error says */
	int (*say)(struct talk *t);
} steps[] = {
	{"back-end", say_connect},
	{"GET_FEATURES", say_get_features},
	{"GET_PROTOCOL_FEATURES", say_get_protocol},
	{"SET_PROTOCOL_FEATURES", say_set_protocol},
	{"SET_OWNER", say_owner},
	{"GET_QUEUE_NUM", say_queue_num},
	{"GET_MAX_MEM_SLOTS", say_slots},
	{"SET_BACKEND_REQ_FD", say_channel},
	{"SET_FEATURES", say_features},
	{"SET_MEM_TABLE", say_table},
	{"ADD_MEM_REG", say_add},
	{"REM_MEM_REG", say_remove},
	{"GET_INFLIGHT_FD", say_get_inflight},
	{"SET_INFLIGHT_FD", say_set_inflight},
	{"SET_LOG_BASE", say_log},
	{"SET_VRING_NUM", say_num},
	{"SET_VRING_BASE", say_base},
	{"SET_VRING_ADDR", say_addr},
	{"SET_VRING_CALL", say_call},
	{"SET_VRING_ERR", say_err},
	{"SET_VRING_KICK", say_kick},
	{"SET_VRING_ENABLE", say_enable},
	{"", work},
	{"SET_VRING_CALL", say_call},
	{"SET_VRING_KICK", say_kick},
	{"ADD_MEM_REG", say_add},
	{"", work},
	{"REM_MEM_REG", say_remove},
	{"SET_MEM_TABLE", say_table},
	{"SET_LOG_BASE", say_log},
	{"SET_VRING_ADDR", say_addr_logged},
	{"SET_FEATURES", say_features_logged},
	{"GET_CONFIG", say_get_config},
	{"SET_CONFIG", say_set_config},
	{"SET_STATUS", say_status},
	{"GET_STATUS", say_get_status},
	{"", work},
	{"SET_VRING_ENABLE", say_disable},
	{"GET_VRING_BASE", say_stop},
	{"SET_VRING_KICK", say_kick},
	{"SET_VRING_ENABLE", say_enable},
	{"", work},
	{"SET_STATUS", say_clear_status},
	{"RESET_DEVICE", say_reset_device},
	{"RESET_OWNER", say_reset_owner},
};

#define STEPS (sizeof(steps) / sizeof(steps[0]))

/* The reason is in the answer, and with the message's name in the back-end's error. */
static void check_reason(struct talk *t, uint32_t n, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};

	CHECK_EQ(libvhost_backend_error(t->p.b, &e), 0);
	if (rc != t->expected && rc != SPOKEN_NO && rc != 1)
		lv_test_fail(__FILE__, __LINE__, "%s, call %u: %d instead of %d", steps[n].name, fault.at, rc,
			     t->expected);
	/* a queue that cannot be made says so itself */
	if ((!strstr(e.text, steps[n].name) && !strstr(e.text, "queue 0") && !strstr(e.text, "inflight region")) ||
	    e.code != t->expected)
		lv_test_fail(__FILE__, __LINE__, "%s, call %u: answered %d, the error is %d \"%s\"", steps[n].name,
			     fault.at, rc, e.code, e.text);
}

/* A ring that a message let rest may be unable to go on: the front-end hears of it. */
static bool ring_failed(struct talk *t)
{
	struct libvhost_event e;
	bool failed = false;

	while (libvhost_backend_next_event(t->p.b, &e) == 1)
		failed |= e.type == LIBVHOST_EVENT_QUEUE_ERROR && e.err == t->expected;
	return failed;
}

/* False: the front-end has to begin anew. */
static bool take_step(struct talk *t, uint32_t n)
{
	int rc = steps[n].say(t);

	if (fault.hit) {
		faults_off();
		fault.hit = false;
		t->failures += rc != 0;
		if (rc)
			check_reason(t, n, rc);
		if (rc == 1 || ring_failed(t))
			return false;
		if (rc)
			rc = steps[n].say(t);
	}
	if (rc)
		lv_test_fail(__FILE__, __LINE__, "%s, call %u: %d", steps[n].name, fault.at, rc);
	return true;
}

static void converse(struct talk *t)
{
	for (uint32_t n = 0; n < STEPS; n++)
		if (!take_step(t, n))
			return;
}

static int no_objection(void *arg, uint32_t offset, const void *buf, uint32_t len, uint32_t type)
{
	(void)arg;
	(void)offset;
	(void)buf;
	(void)len;
	(void)type;
	return 0;
}

static void begin(struct talk *t)
{
	static const struct libvhost_backend_ops ops = {
		.size = sizeof(ops), .serve = fake_serve, .set_config = no_objection};
	const struct libvhost_backend_opts o = {.ops = &ops, .config = "config", .config_len = 6};

	*t = (struct talk){.p = fake_new(&o), .region = -1};
	t->high = memfd(RAM_BYTES, 0);
	t->log = memfd(LOG_BYTES, 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, t->channel), 0);
}

static void end(struct talk *t)
{
	close(t->high);
	close(t->log);
	close(t->region);
	close(t->channel[0]);
	close(t->channel[1]);
	fake_free(&t->p);
}

/* How many calls of the class the conversation makes. */
static uint32_t talk_once(enum fault_class what, uint32_t at, bool on, uint32_t *failures)
{
	static const int codes[] = {
		[FAULT_MEMORY] = -ENOMEM, [FAULT_FD] = -EMFILE, [FAULT_MAP] = -ENOMEM, [FAULT_EPOLL] = -ENOSPC};
	struct talk t;
	uint32_t count;

	begin(&t);
	t.expected = codes[what];
	faults_on(what, at, on);
	converse(&t);
	count = fault.count;
	faults_off();
	converse(&t); /* the next front-end */
	end(&t);
	*failures += t.failures;
	return count;
}

static void talks(enum fault_class what, bool on, uint32_t least)
{
	const struct faults_seen seen = faults_everywhere(talk_once, what, on, least);

	printf("# %u calls, %u conversations with a failed message\n", seen.calls, seen.failures);
	/* its own descriptors are tried again */
	CHECK(what == FAULT_EPOLL ? seen.failures > 0 : seen.failures >= seen.calls / 2);
}

TEST(backend_faults, r241_an_allocation_fails_once)
{
	talks(FAULT_MEMORY, false, 30);
}

TEST(backend_faults, r241_allocations_fail_from_some_moment_on)
{
	talks(FAULT_MEMORY, true, 30);
}

TEST(backend_faults, no_descriptor_is_left)
{
	talks(FAULT_FD, false, 8);
	talks(FAULT_FD, true, 8);
}

TEST(backend_faults, r248_a_mapping_fails)
{
	talks(FAULT_MAP, false, 5);
	talks(FAULT_MAP, true, 5);
}

TEST(backend_faults, r249_epoll_takes_no_more)
{
	talks(FAULT_EPOLL, false, 3);
	talks(FAULT_EPOLL, true, 3);
}
