/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Shared objects and windows of a foreign back-end (tests/peers/rust/channel.rs), which asks for each while its
 * front-end waits for the answer to a write to its configuration space. Usage: share URI IMAGE [OTHER-URI]
 *   IMAGE  the file that the back-end serves, shares and maps
 *   OTHER  a second such back-end; without it the first is of the time before the specification had any of this
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#include "results.h"

#define BLOCK	4u
#define PAGE	4096u
#define PAGES	16u
#define COMMAND 32u /* the one byte of a block device's configuration that a driver writes */
#define AGREED	33u /* the byte behind it, which has no meaning */
#define WAIT_MS 60000u

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static struct libvhost_dev *dev, *other;
static uint8_t *window;
static int image;

static void result(int good, const char *what)
{
	result_of(good, what, dev, NULL);
}

static int open_device(const char *uri, struct libvhost_dev **d)
{
	const struct libvhost_dev_opts o = {.size = sizeof(o),
					    .flags = LIBVHOST_DEV_SHARED_OBJECTS | LIBVHOST_DEV_USE_SHMEM,
					    .virtio_id = 2,
					    .num_queues = 1,
					    .timeout_ms = WAIT_MS,
					    .uri = uri,
					    .mem = mem};
	const struct libvhost_queue q = {.size = sizeof(q), .num = 16, .avail = 0x1000, .used = 0x2000};
	const uint64_t features = 1ull << 32;

	return !libvhost_dev_init(ctx, &o, d) && !libvhost_ack_features_ex(*d, &features, 1) &&
	       !libvhost_dev_set_queue(*d, 0, &q) && !libvhost_dev_start(*d, NULL);
}

/* Whether the device's question was answered as it hoped; -1 when it did not answer us. */
static int command(struct libvhost_dev *d, char what)
{
	uint8_t agreed;

	if (libvhost_dev_set_config(d, COMMAND, &what, 1, 0, WAIT_MS) ||
	    libvhost_dev_get_config(d, AGREED, &agreed, 1, WAIT_MS))
		return -1;
	return agreed;
}

static int shmem_event(uint64_t page, uint64_t mapped)
{
	struct libvhost_event e;

	return libvhost_dev_next_event(dev, &e) == 1 && e.type == LIBVHOST_EVENT_SHMEM && e.value[0] == 0 &&
	       e.value[1] == page * PAGE && e.value[2] == PAGE && e.value[3] == mapped;
}

static int is_page(const uint8_t *bytes, uint8_t page)
{
	for (uint32_t i = 0; i < PAGE; i++)
		if (bytes[i] != page)
			return 0;
	return 1;
}

/* Each page is filled with its number. */
static int fill_image(const char *path)
{
	uint8_t bytes[PAGE];

	image = open(path, O_RDWR | O_CLOEXEC);
	for (uint32_t page = 0; image >= 0 && page < PAGES; page++) {
		memset(bytes, (int)page, PAGE);
		if (pwrite(image, bytes, PAGE, page * PAGE) != PAGE)
			return 0;
	}
	return image >= 0;
}

static int look_up(uint8_t name, int *fd)
{
	uint8_t uuid[16];

	memset(uuid, name, sizeof(uuid));
	return libvhost_shared_object_lookup(ctx, uuid, fd);
}

static int is_the_image(int fd)
{
	struct stat a, b;
	uint8_t bytes[PAGE];

	return !fstat(fd, &a) && !fstat(image, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino &&
	       pread(fd, bytes, PAGE, 3 * PAGE) == PAGE && is_page(bytes, 3);
}

static void objects(void)
{
	int fd = -1;

	result(look_up(1, &fd) == -ENOENT, "no object before the device adds one");
	result(command(dev, 'a') == 1, "the device adds an object");
	result(look_up(1, &fd) == 0 && is_the_image(fd), "it is found, the descriptor is the device's file");
	close(fd);
	result(look_up(3, &fd) == -ENOENT, "another name is not");
	result(command(dev, 'a') == 0, "the same name again is refused");
	result(command(other, 'a') == 0 && command(other, 'd') == 0,
	       "another device can neither add it nor take it away");
	result(command(dev, 'A') == 1 && look_up(2, &fd) == -EIO, "what it does not give when asked is refused");
	result(command(dev, 'd') == 1 && look_up(1, &fd) == -ENOENT, "the device takes its object back");
	result(command(dev, 'd') == 0, "once only");
	result(command(dev, 'a') == 1 && look_up(1, &fd) == 0, "and adds it again");
	close(fd);
}

/* The kernel says whether there is something to read, without a signal. */
static int mapped(uint32_t page)
{
	int ends[2], n;

	if (pipe(ends))
		return -1;
	n = (int)write(ends[1], window + page * PAGE, 1);
	close(ends[0]);
	close(ends[1]);
	return n == 1;
}

static int sizes(void)
{
	struct {
		uint32_t count, zero;
		uint64_t size[256];
	} config = {0};
	struct libvhost_req req = {
		.op = LIBVHOST_OP_GET_SHMEM_CONFIG, .data_out = (uintptr_t)&config, .data_out_cap = sizeof(config)};

	return !libvhost_transport_exec(libvhost_dev_transport(dev, 0), &req, 1, WAIT_MS, NULL) && req.result[0] == 1 &&
	       config.size[0] == PAGES * PAGE;
}

static void windows(void)
{
	char why[200];
	uint64_t at = 0;
	uint8_t byte;

	result(sizes(), "the device tells the size of its window");
	result(command(dev, 'm') == 0, "without a window mapping is refused");
	result(libvhost_dev_shmem_window(dev, 0, &at, PAGES * PAGE) == 0, "a window is given");
	if (failed)
		return;
	window = (uint8_t *)(uintptr_t)at;
	result(!mapped(1) && command(dev, 'm') == 1 && shmem_event(1, 1) && is_page(window + PAGE, 1),
	       "a page of the file is in it");
	result(command(dev, 'm') == 0 && command(dev, 'o') == 0 && is_page(window + PAGE, 1),
	       "over another one, or outside of the window: refused");
	result(command(dev, 'w') == 1 && shmem_event(2, 1) && is_page(window + 2 * PAGE, 2), "a writable page is");
	window[2 * PAGE] = 77;
	result(pread(image, &byte, 1, 2 * PAGE) == 1 && byte == 77, "what is written there is in the file");
	result(libvhost_dev_migration_blocker(dev, why, sizeof(why)) == 1, "while pages are mapped nobody migrates");
	result(command(dev, 'u') == 1 && shmem_event(1, 0) && !mapped(1) && mapped(2), "the first page is taken out");
	result(command(dev, 'u') == 0, "once only");
}

static int state(struct libvhost_dev *d)
{
	struct libvhost_dev_info info = {.size = sizeof(info)};

	return libvhost_dev_info(d, &info) ? -1 : (int)info.state;
}

static void today(void)
{
	int fd;

	objects();
	windows();
	libvhost_dev_cleanup(dev);
	dev = NULL;
	result(look_up(1, &fd) == -ENOENT, "the objects of a device go with it");
	result(command(other, 'l') == 0 && state(other) == LIBVHOST_DEV_RUNNING,
	       "a look-up that brings a descriptor instead of asking for one is refused");
	result(command(other, 'a') == 1, "the channel stays");
}

static void before(void)
{
	result(command(dev, 'm') == 0 && state(dev) == LIBVHOST_DEV_RUNNING,
	       "mapping by the number that adds an object today is refused, the device runs on");
	result(command(dev, 'm') == 0 && state(dev) == LIBVHOST_DEV_RUNNING, "again");
}

int main(int argc, char **argv)
{
	if (argc < 3 || libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem) || libvhost_mem_begin(mem) ||
	    libvhost_mem_alloc(mem, 0, BLOCK * PAGE) || libvhost_mem_commit(mem, 0, NULL) || !fill_image(argv[2]))
		return 2;
	result(open_device(argv[1], &dev) && (argc < 4 || open_device(argv[3], &other)), "the device runs");
	if (!failed && other)
		today();
	else if (!failed)
		before();
	libvhost_dev_cleanup(dev);
	libvhost_dev_cleanup(other);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	close(image);
	return results_end();
}
