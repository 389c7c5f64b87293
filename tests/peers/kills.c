/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A back-end that is killed with SIGKILL again and again under load, at random moments, also while it connects and
 * recovers. The front-end is a program against the public API with an inflight region and automatic reconnect. It
 * proves that
 *  - every request completes in the used ring exactly once, with status and data right,
 *  - what was executed more than once was marked in the region at a kill, and not once more often than that,
 *  - what was executed and not completed was marked.
 * Executions are counted by the back-end itself, before it touches data, in a file that outlives it.
 *
 * Usage: kills VHOSTCTL FOLDER [--kills N] [--packed] [--seed N] [--within MS]
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#include "blk_wire.h"
#include "vring/inflight.h"

#define DEPTH	   32u
#define BLOCK	   16384u
#define BLOCKS	   1024u
#define SECTORS	   (BLOCK / 512u)
#define RING	   128u
#define GUEST	   0x100000ull
#define HEADERS	   (GUEST + 0x3000u)
#define HEADER	   64u
#define STATUS_AT  32u
#define DATA	   (GUEST + 0x4000u)
#define GUEST_SIZE (0x4000u + DEPTH * BLOCK)
#define PATIENCE_S 60.0
#define BURST_US   250u /* about what a full queue takes */
#define PACKED	   (1ull << 34)

struct slot {
	bool busy, write;
	uint32_t block, base; /* journal when it was offered */
	uint64_t seq;	      /* what the block holds afterwards (write) or must hold (read) */
	uint32_t marked;      /* kills at which the region named it */
};

static struct {
	const char *vhostctl, *folder;
	uint32_t kills, within_ms;
	bool packed;
} args = {.kills = 100, .within_ms = 60};

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static struct libvhost_dev *dev;
static struct libvhost_vq *vq;
static uint8_t *guest;
static struct slot slots[DEPTH];
static uint64_t content[BLOCKS]; /* sequence number that a block holds, 0 = zeros */
static uint32_t settled[BLOCKS]; /* journal when the last request there completed */
static bool taken[BLOCKS];
static _Atomic uint32_t *journal;
static char socket_path[200], image[200], journal_path[200];
static pid_t child;
static int call_fd;
static uint64_t rng = 1, sequence, completed, again, named, recovered;
static uint32_t in_flight;
static double last_progress, killed_at, stalls[100000];
static uint32_t n_stalls;

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static _Noreturn void __attribute__((format(printf, 1, 2))) die(const char *fmt, ...)
{
	struct libvhost_error e = {.size = sizeof(e)};
	va_list list;

	va_start(list, fmt);
	vfprintf(stderr, fmt, list);
	va_end(list);
	if (dev && libvhost_dev_error(dev, &e) == 0 && e.code)
		fprintf(stderr, " [device: %s]", e.text);
	if (vq && libvhost_vq_error(vq, &e) == 0 && e.code)
		fprintf(stderr, " [queue: %s]", e.text);
	fputc('\n', stderr);
	if (child > 0)
		kill(child, SIGKILL);
	exit(1);
}

static uint32_t random_below(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 32) % n;
}

static void fill(uint8_t *at, uint64_t seq)
{
	uint64_t *words = (void *)at;

	for (uint32_t i = 0; i < BLOCK / 8; i++)
		words[i] = seq ? seq * 0x9e3779b97f4a7c15ull + i : 0;
}

static void check_data(const uint8_t *at, uint64_t seq, uint32_t block, const char *where)
{
	static uint8_t expected[BLOCK];

	fill(expected, seq);
	if (memcmp(at, expected, BLOCK))
		die("%s: block %u does not hold what request %" PRIu64 " wrote", where, block, seq);
}

static void spawn(void)
{
	child = fork();
	if (child < 0)
		die("fork: %s", strerror(errno));
	if (child)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execl(args.vhostctl, "vhostctl", "serve", "blk", "--quiet", "--socket", socket_path, "--file", image,
	      "--journal", journal_path, NULL);
	_exit(127);
}

static void make_files(void)
{
	int fd;

	snprintf(socket_path, sizeof(socket_path), "%s/kills.sock", args.folder);
	snprintf(image, sizeof(image), "%s/kills.img", args.folder);
	snprintf(journal_path, sizeof(journal_path), "%s/kills.journal", args.folder);
	fd = open(image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)BLOCKS * BLOCK) < 0)
		die("%s: %s", image, strerror(errno));
	close(fd);
	fd = open(journal_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, BLOCKS * SECTORS * 4) < 0)
		die("%s: %s", journal_path, strerror(errno));
	journal = mmap(NULL, BLOCKS * SECTORS * 4, PROT_READ, MAP_SHARED, fd, 0);
	if (journal == MAP_FAILED)
		die("journal: %s", strerror(errno));
	close(fd);
}

static void must(int rc, const char *what)
{
	if (rc < 0)
		die("%s: %s", what, strerror(-rc));
}

static void make_guest(void)
{
	void *hva;

	must(libvhost_ctx_new(NULL, &ctx), "context");
	must(libvhost_mem_new(ctx, NULL, &mem), "memory");
	must(libvhost_mem_begin(mem), "begin");
	must(libvhost_mem_alloc(mem, GUEST, GUEST_SIZE), "alloc");
	must(libvhost_mem_commit(mem, 0, NULL), "commit");
	must(libvhost_mem_translate(mem, GUEST, 1, &hva, NULL), "translate");
	guest = hva;
}

static void make_queue(uint64_t features)
{
	struct libvhost_queue q = {
		.size = sizeof(q), .num = RING, .desc = GUEST, .avail = GUEST + 0x1000, .used = GUEST + 0x2000};
	struct libvhost_vq_opts o = {.size = sizeof(o),
				     .flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL,
				     .role = LIBVHOST_VQ_DRIVER,
				     .num = RING,
				     .features = features,
				     .desc = q.desc,
				     .avail = q.avail,
				     .used = q.used};

	must(libvhost_dev_set_queue(dev, 0, &q), "queue");
	must(libvhost_dev_get_queue(dev, 0, &q), "queue");
	o.kick_fd = q.kick_fd;
	o.call_fd = call_fd = q.call_fd;
	must(libvhost_vq_new(ctx, mem, &o, &vq), "ring");
}

static void connect_device(void)
{
	uint64_t want = 1ull << RING_F_EVENT_IDX | 1ull << 32 | (args.packed ? PACKED : 0);
	struct libvhost_dev_opts o = {.size = sizeof(o),
				      .flags = LIBVHOST_DEV_INFLIGHT | LIBVHOST_DEV_AUTO_RECONNECT | LIBVHOST_DEV_WAIT,
				      .virtio_id = VIRTIO_ID_BLOCK,
				      .num_queues = 1,
				      .mem = mem,
				      .timeout_ms = 5000};
	char uri[256];

	snprintf(uri, sizeof(uri), "user:%s", socket_path);
	o.uri = uri;
	if (libvhost_dev_init(ctx, &o, &dev) < 0) {
		struct libvhost_error e = {.size = sizeof(e)};

		libvhost_ctx_error(ctx, &e);
		die("connect: %s", e.text);
	}
	must(libvhost_ack_features_ex(dev, &want, 1), "features");
	make_queue(want);
	must(libvhost_dev_start(dev, NULL), "start");
}

static void offer(uint32_t n, uint32_t block, bool write)
{
	struct slot *s = &slots[n];
	uint8_t *header = guest + (HEADERS - GUEST) + n * HEADER, *data = guest + (DATA - GUEST) + n * BLOCK;
	struct blk_header h = {.type = write ? BLK_T_OUT : BLK_T_IN, .sector = (uint64_t)block * SECTORS};
	const struct libvhost_buf bufs[3] = {{.gpa = HEADERS + n * HEADER, .len = sizeof(h)},
					     {.gpa = DATA + n * BLOCK, .len = BLOCK},
					     {.gpa = HEADERS + n * HEADER + STATUS_AT, .len = 1}};

	if (journal[block * SECTORS] != settled[block])
		die("block %u was touched %u times after its last request had completed", block,
		    journal[block * SECTORS] - settled[block]);
	memcpy(header, &h, sizeof(h));
	header[STATUS_AT] = 0xff;
	*s = (struct slot){.busy = true,
			   .write = write,
			   .block = block,
			   .base = settled[block],
			   .seq = write ? ++sequence : content[block]};
	if (write)
		fill(data, s->seq);
	else
		memset(data, 0xa5, BLOCK);
	taken[block] = true;
	in_flight++;
	must(libvhost_vq_add(vq, bufs, write ? 2 : 1, write ? 1 : 2, n), "add");
}

static void feed(void)
{
	uint32_t block;

	for (uint32_t n = 0; n < DEPTH; n++) {
		if (slots[n].busy)
			continue;
		do
			block = random_below(BLOCKS);
		while (taken[block]);
		offer(n, block, random_below(3) != 0);
	}
	must(libvhost_vq_kick(vq), "kick");
}

static void finish(uint32_t n)
{
	struct slot *s = &slots[n];
	const uint8_t status = guest[HEADERS - GUEST + n * HEADER + STATUS_AT];
	const uint32_t count = journal[s->block * SECTORS];

	if (!s->busy)
		die("slot %u completed although nothing was in flight there", n);
	if (status != BLK_S_OK)
		die("request on block %u ended with status %u", s->block, status);
	if (count == s->base)
		die("request on block %u completed and was never executed", s->block);
	if (count - s->base - 1 > s->marked)
		die("request on block %u was executed %u times, but in flight at %u kills only", s->block,
		    count - s->base, s->marked);
	if (s->write)
		content[s->block] = s->seq;
	else
		check_data(guest + (DATA - GUEST) + n * BLOCK, s->seq, s->block, "read");
	again += count - s->base - 1;
	settled[s->block] = count;
	taken[s->block] = s->busy = false;
	in_flight--;
	completed++;
}

static bool reap(void)
{
	struct libvhost_used used[DEPTH];
	uint32_t n = DEPTH;

	must(libvhost_vq_get_used(vq, used, &n), "used ring");
	for (uint32_t i = 0; i < n; i++)
		finish((uint32_t)used[i].token);
	if (!n)
		return false;
	last_progress = now_s();
	if (killed_at > 0 && n_stalls < sizeof(stalls) / sizeof(*stalls))
		stalls[n_stalls++] = last_progress - killed_at;
	killed_at = 0;
	return true;
}

/* Which slots the region names; header addresses tell. */
static void note_marks(void)
{
	struct libvhost_inflight f = {.size = sizeof(f)};
	bool marks[DEPTH] = {false};

	if (libvhost_dev_get_inflight(dev, &f) < 0)
		die("the device has no inflight region");
	for (uint32_t i = 0; i < RING; i++) {
		const struct lv_inflight_split *split = (const void *)(uintptr_t)f.address;
		const struct lv_inflight_packed *packed = (const void *)split;
		uint64_t gpa;

		if (args.packed ? !packed->desc[i].inflight : !split->desc[i].inflight)
			continue;
		if (args.packed)
			gpa = packed->desc[i].addr;
		else
			memcpy(&gpa, guest + (uint64_t)i * 16, sizeof(gpa));
		if (gpa < HEADERS || gpa >= HEADERS + DEPTH * HEADER || gpa % HEADER)
			die("the region marks entry %u, which is no request (%#" PRIx64 ")", i, gpa);
		marks[(gpa - HEADERS) / HEADER] = true;
	}
	for (uint32_t n = 0; n < DEPTH; n++) {
		if (!slots[n].busy)
			continue;
		if (!marks[n] && journal[slots[n].block * SECTORS] - slots[n].base > slots[n].marked)
			die("request on block %u was being executed and is not marked", slots[n].block);
		slots[n].marked += marks[n];
		named += marks[n];
	}
}

static void events(void)
{
	struct libvhost_event e;

	libvhost_dev_dispatch(dev, 0);
	while (libvhost_dev_next_event(dev, &e) == 1) {
		if (e.type == LIBVHOST_EVENT_QUEUE_ERROR || e.type == LIBVHOST_EVENT_NEEDS_RESET)
			die("queue %u: %s", e.queue, e.text);
		if (e.type != LIBVHOST_EVENT_RECONNECTED)
			continue;
		recovered++;
		if (e.value[0] != LIBVHOST_GUARANTEE_INFLIGHT)
			die("reconnected with guarantee %" PRIu64 ": the region is not in use", e.value[0]);
	}
}

/* Serves completions and events for a while. load: offers more. */
static void pump(int wait_ms, bool load)
{
	struct pollfd p[2] = {{.fd = call_fd, .events = POLLIN}, {.fd = libvhost_dev_fd(dev), .events = POLLIN}};
	uint64_t count;

	if (load)
		feed();
	if (libvhost_vq_notify_enable(vq, 1) == 0 && poll(p, 2, wait_ms) < 0 && errno != EINTR)
		die("poll: %s", strerror(errno));
	if (p[0].revents && read(call_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		die("call: %s", strerror(errno));
	events();
	while (reap())
		;
	if (in_flight && now_s() - last_progress > PATIENCE_S)
		die("no completion for %.0f s with %u requests in flight, %" PRIu64 " of them done before", PATIENCE_S,
		    in_flight, completed);
}

/* Load for a random time, from now or from the first completion after the last kill. */
static void run_load(void)
{
	const bool at_once = random_below(4) == 0;
	double end = now_s() + random_below(args.within_ms * 1000) / 1e6;

	while (at_once ? now_s() < end : killed_at > 0 || now_s() < end) {
		if (!at_once && killed_at > 0)
			end = now_s() + random_below(args.within_ms * 1000) / 1e6;
		pump(1, true);
	}
}

/*
 * In the middle of a full queue. This thread sleeps meanwhile: on a busy machine the back-end would not get to run
 * beside it.
 */
static void kill_child(void)
{
	struct timespec moment = {.tv_nsec = (long)random_below(BURST_US) * 1000};
	int status;

	feed();
	nanosleep(&moment, NULL);
	if (kill(child, SIGKILL) < 0 || waitpid(child, &status, 0) != child)
		die("the back-end cannot be killed: %s", strerror(errno));
	if (!WIFSIGNALED(status))
		die("the back-end ended by itself before it was killed (status %#x)", (unsigned)status);
	if (killed_at <= 0)
		killed_at = now_s();
	while (reap()) /* what it had published */
		killed_at = now_s();
	killed_at = now_s();
	note_marks();
}

static void check_image(void)
{
	static uint8_t data[BLOCK];
	int fd = open(image, O_RDONLY | O_CLOEXEC);

	for (uint32_t b = 0; b < BLOCKS; b++) {
		if (pread(fd, data, BLOCK, (off_t)b * BLOCK) != BLOCK)
			die("%s: %s", image, strerror(errno));
		check_data(data, content[b], b, "image");
		if (journal[b * SECTORS] != settled[b])
			die("block %u was executed after its last request had completed", b);
	}
	close(fd);
}

static int by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {{"kills", required_argument, NULL, 'k'},
						{"packed", no_argument, NULL, 'p'},
						{"seed", required_argument, NULL, 's'},
						{"within", required_argument, NULL, 'w'},
						{0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 'k')
			args.kills = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'p')
			args.packed = true;
		else if (c == 's')
			rng = strtoull(optarg, NULL, 10) * 2 + 1;
		else if (c == 'w')
			args.within_ms = (uint32_t)strtoul(optarg, NULL, 10);
		else
			exit(2);
	}
	if (argc - optind != 2 || !args.within_ms) {
		fprintf(stderr, "usage: kills VHOSTCTL FOLDER [--kills N] [--packed] [--seed N] [--within MS]\n");
		exit(2);
	}
	args.vhostctl = argv[optind];
	args.folder = argv[optind + 1];
}

int main(int argc, char **argv)
{
	double started = now_s();

	parse(argc, argv);
	prctl(PR_SET_TIMERSLACK, 1);
	make_files();
	make_guest();
	spawn();
	connect_device();
	last_progress = now_s();
	for (uint32_t n = 0; n < args.kills; n++) {
		run_load();
		kill_child();
		spawn();
		last_progress = now_s();
	}
	while (killed_at > 0)
		pump(1, true);
	while (in_flight)
		pump(10, false);
	must(libvhost_dev_stop(dev, NULL), "stop");
	check_image();
	if (args.kills >= 50 && !again)
		die("no kill met the back-end at work: nothing was proved");
	qsort(stalls, n_stalls, sizeof(*stalls), by_value);
	printf("%s: %u kills, %" PRIu64 " reconnects, %" PRIu64
	       " requests at depth %u: each completed once, data right; "
	       "%" PRIu64 " marked in flight at a kill, %" PRIu64 " executed again, 0 of them unmarked; "
	       "stall from kill to next completion p50 %.1f ms, max %.1f ms; %.1f s\n",
	       args.packed ? "packed" : "split", args.kills, recovered, completed, DEPTH, named, again,
	       n_stalls ? stalls[n_stalls / 2] * 1e3 : 0, n_stalls ? stalls[n_stalls - 1] * 1e3 : 0, now_s() - started);
	libvhost_vq_free(vq);
	libvhost_dev_cleanup(dev);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	kill(child, SIGTERM);
	waitpid(child, NULL, 0);
	return 0;
}
