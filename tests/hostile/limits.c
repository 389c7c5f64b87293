/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Limits of the process that a test cannot have as root: the descriptors on their way over unix sockets. */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "wirerig.h"

#define NOBODY	  65534
#define IN_FLIGHT 5u /* descriptors an ordinary user may have on their way; a start sends 4 for each queue */
#define CANNOT	  77

/* A peer that takes its time, so that descriptors pile up in the socket. */
static bool slow(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	(void)p;
	(void)req;
	if (msg->nfds)
		usleep(2000);
	return false;
}

/* Everything a start needs is open; the limit only bounds what travels. Runs in the child: no CHECK here. */
static int start_as_nobody(struct libvhost_dev *dev, const struct libvhost_queue *queues)
{
	const struct rlimit few = {IN_FLIGHT, IN_FLIGHT};
	int rc = 0;

	for (uint32_t i = 0; !rc && i < DEVRIG_QUEUES; i++)
		rc = libvhost_dev_set_queue(dev, i, &queues[i]);
	if (rc)
		return 10;
	if (setrlimit(RLIMIT_NOFILE, &few) || setgid(NOBODY) || setuid(NOBODY))
		return CANNOT;
	rc = libvhost_dev_start(dev, NULL);
	if (rc)
		return 11;
	rc = libvhost_dev_stop(dev, NULL);
	return rc ? 12 : libvhost_dev_start(dev, NULL) ? 13 : 0;
}

static int in_child(struct wirerig *w, const struct libvhost_queue *queues)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_dev *dev = NULL;
	int rc;

	if (libvhost_dev_init(w->r.g.ctx, &w->r.opts, &dev))
		return 9;
	rc = start_as_nobody(dev, queues);
	if (rc && !libvhost_dev_error(dev, &e))
		fprintf(stderr, "%d: %s\n", rc, e.text);
	libvhost_dev_cleanup(dev);
	return rc;
}

/*
 * The kernel refuses to put more descriptors on their way than RLIMIT_NOFILE, except for privileged senders
 * (ETOOMANYREFS, unix(7)). A start with 4 queues has 17: it goes through in portions.
 */
static void start_within(uint32_t policy, uint64_t without)
{
	struct libvhost_queue queues[DEVRIG_QUEUES];
	struct wirerig w;
	int status = -1;
	pid_t child;

	wirerig_init(&w);
	w.p.protocol_features &= ~without;
	w.p.on_message = slow;
	w.r.opts.flags = LIBVHOST_DEV_WAIT;
	w.r.opts.uri = w.uri;
	w.r.opts.ack_policy = policy;
	w.r.opts.timeout_ms = 10000;
	for (uint32_t i = 0; i < DEVRIG_QUEUES; i++) {
		queues[i] = devrig_queue(i);
		queues[i].flags = LIBVHOST_QUEUE_HAS_ERR;
		queues[i].err_fd = lv_eventfd();
	}
	fflush(stdout);
	child = fork(); /* before the peer's thread: one thread, one child */
	CHECK(child >= 0);
	if (!child)
		_exit(in_child(&w, queues));
	wirerig_listen(&w);
	CHECK_EQ(waitpid(child, &status, 0), child);
	for (uint32_t i = 0; i < DEVRIG_QUEUES; i++)
		close(queues[i].err_fd);
	wirerig_close(&w);
	if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT)
		SKIP("cannot become an ordinary user");
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(hostile_limits, a_start_with_more_descriptors_than_may_travel_at_once)
{
	start_within(LIBVHOST_ACK_CRITICAL, 0);
	start_within(LIBVHOST_ACK_ALL, 0);
	start_within(LIBVHOST_ACK_NONE, 0);
	start_within(LIBVHOST_ACK_CRITICAL, PUPPET_PF(REPLY_ACK));
}

static int log_start(struct wirerig *w)
{
	return libvhost_mem_log_start(w->r.g.mem, 5000, NULL);
}

/* What a log needs is there when the call returns, or the call fails and nothing is logged: no mark can meet a full
 * memory. */
TEST(hostile_limits, r250_no_file_for_a_log_is_an_error_of_the_call)
{
	const struct sigaction ignore = {.sa_handler = SIG_IGN};
	struct libvhost_dev_info info = {.size = sizeof(info)};
	struct rlimit files, bytes, none;
	struct sigaction was;
	uint64_t word = 0;
	struct wirerig w;

	wirerig_init(&w);
	w.p.features |= 1ull << 26;
	wirerig_start(&w);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &bytes), 0);
	none = (struct rlimit){0, files.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	CHECK_EQ(log_start(&w), -EMFILE);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
	CHECK_EQ(sigaction(SIGXFSZ, &ignore, &was), 0);
	none = (struct rlimit){0, bytes.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
	CHECK_EQ(log_start(&w), -ENOSPC);
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &bytes), 0);
	CHECK_EQ(sigaction(SIGXFSZ, &was, NULL), 0);
	CHECK_EQ(libvhost_mem_log_sync(w.r.g.mem, 0, 4096, &word, NULL), -EINVAL);
	CHECK_EQ(libvhost_dev_info(w.r.dev, &info), 0);
	CHECK_EQ(info.state, LIBVHOST_DEV_RUNNING);
	CHECK_EQ(info.logging, 0);
	CHECK_EQ(log_start(&w), 0);
	CHECK_EQ(libvhost_mem_log_sync(w.r.g.mem, 0, 4096, &word, NULL), 0);
	wirerig_close(&w);
}
