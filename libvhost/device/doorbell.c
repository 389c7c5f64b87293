/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Doorbells: pages of a device that the guest writes instead of a kick descriptor. The page of address space of a queue
 * stays ours until cleanup: when the back-end takes its doorbell back, or dies, memory that nobody reads takes its
 * place, so that a guest which still writes there harms nobody, and never a stranger's mapping.
 */
#include "device/device.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/wire.h"

#define AREA_REMOVE (1ull << 8)

struct lv_bell {
	void *page; /* NULL = never had one */
	int fd;	    /* the device's file, -1 = there is no doorbell */
	uint64_t offset;
};

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* Lock held. */
static void silence(struct lv_bell *bell)
{
	if (bell->fd < 0)
		return;
	lv_place_nothing(bell->page, page_bytes(), PROT_READ | PROT_WRITE);
	lv_fd_close(bell->fd);
	bell->fd = -1;
}

static struct lv_bell *make_bells(struct libvhost_dev *dev)
{
	struct lv_bell *bells = dev->share.bells;

	if (bells)
		return bells;
	bells = calloc(dev->rec->num_queues, sizeof(*bells));
	for (uint32_t q = 0; bells && q < dev->rec->num_queues; q++)
		bells[q].fd = -1;
	return dev->share.bells = bells;
}

/* A device file has no length; one that has must contain the page, or the guest's write would be a SIGBUS of the host.
 */
static int check_area(int fd, uint64_t offset, uint64_t size)
{
	struct stat st;

	if (size != page_bytes() || offset % page_bytes())
		return -EINVAL;
	if (fstat(fd, &st))
		return -EBADF;
	return S_ISREG(st.st_mode) && !lv_file_covers(fd, offset, size) ? -EINVAL : 0;
}

/* Takes fd on success. Lock held. */
static int install(struct libvhost_dev *dev, uint32_t queue, int fd, uint64_t offset)
{
	struct lv_bell *bells = make_bells(dev), *bell;
	void *page;
	int r;

	if (!bells)
		return -ENOMEM;
	bell = &bells[queue];
	if (!bell->page) {
		page = mmap(NULL, page_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (page == MAP_FAILED)
			return -ENOMEM;
		bell->page = page;
	}
	r = lv_place_file(bell->page, page_bytes(), PROT_READ | PROT_WRITE, fd, offset);
	if (r)
		return r;
	lv_fd_close(bell->fd);
	bell->fd = fd;
	bell->offset = offset;
	return 0;
}

/* Lock held. */
static int install_copy(struct libvhost_dev *dev, const struct libvhost_req *req)
{
	int fd = lv_fd_dup(req->fd), r;

	if (fd < 0)
		return fd;
	r = install(dev, req->index, fd, req->arg.area.offset);
	if (r)
		lv_fd_close(fd);
	return r;
}

int lv_doorbell_ask(struct lv_part *part, struct libvhost_req *req)
{
	struct libvhost_dev *dev = part->dev;
	const bool remove = req->arg.area.flags & AREA_REMOVE;
	int r;

	if (!(dev->opts.flags & LIBVHOST_DEV_HOST_NOTIFIERS))
		return -ENOTSUP;
	r = remove ? 0 : check_area(req->fd, req->arg.area.offset, req->arg.area.size);
	if (r)
		return r;
	pthread_mutex_lock(&dev->lock);
	if (!lv_part_has_queue(part, req->index))
		r = -EINVAL;
	else if (!remove)
		r = install_copy(dev, req);
	else if (dev->share.bells)
		silence(&dev->share.bells[req->index]);
	pthread_mutex_unlock(&dev->lock);
	return r;
}

void lv_doorbell_told(struct lv_part *part, const struct libvhost_req *req)
{
	if (part->dev->opts.flags & LIBVHOST_DEV_HOST_NOTIFIERS)
		lv_event_simple(part->dev, LIBVHOST_EVENT_HOST_NOTIFIER, req->index, 0, "");
}

bool lv_doorbell_there(const struct libvhost_dev *dev, uint32_t queue)
{
	return dev->share.bells && dev->share.bells[queue].fd >= 0;
}

void lv_doorbells_drop(struct libvhost_dev *dev, uint32_t first, uint32_t end)
{
	pthread_mutex_lock(&dev->lock);
	for (uint32_t q = first; dev->share.bells && q < end; q++)
		silence(&dev->share.bells[q]);
	pthread_mutex_unlock(&dev->lock);
}

int lv_doorbell_describe(const struct libvhost_dev *dev, uint32_t queue, uint64_t *offset)
{
	if (!lv_doorbell_there(dev, queue))
		return -1;
	*offset = dev->share.bells[queue].offset;
	return dev->share.bells[queue].fd;
}

int lv_doorbell_adopt(struct libvhost_dev *dev, uint32_t queue, int fd, uint64_t offset)
{
	int r = check_area(fd, offset, page_bytes());

	if (r)
		return r;
	pthread_mutex_lock(&dev->lock);
	r = install(dev, queue, fd, offset);
	pthread_mutex_unlock(&dev->lock);
	return r;
}

void lv_doorbells_let_go(struct libvhost_dev *dev)
{
	for (uint32_t q = 0; dev->share.bells && q < dev->rec->num_queues; q++)
		dev->share.bells[q].fd = -1;
}

void lv_doorbells_free(struct libvhost_dev *dev)
{
	for (uint32_t q = 0; dev->share.bells && q < dev->rec->num_queues; q++) {
		const struct lv_bell *bell = &dev->share.bells[q];

		if (bell->page)
			munmap(bell->page, page_bytes());
		lv_fd_close(bell->fd);
	}
	free(dev->share.bells);
}

int libvhost_dev_doorbell(struct libvhost_dev *dev, uint32_t queue, struct libvhost_doorbell *doorbell)
{
	struct libvhost_doorbell o = {.size = sizeof(o)};
	bool there;

	if (!dev || !doorbell)
		return -EINVAL;
	pthread_mutex_lock(&dev->lock);
	there = queue < dev->rec->num_queues && lv_doorbell_there(dev, queue);
	if (there) {
		o.fd = dev->share.bells[queue].fd;
		o.offset = dev->share.bells[queue].offset;
		o.bytes = page_bytes();
		o.address = (uint64_t)(uintptr_t)dev->share.bells[queue].page;
	}
	pthread_mutex_unlock(&dev->lock);
	if (!there)
		return lv_fail(&dev->err, -ENOENT, LIBVHOST_EK_ARGUMENT, "queue %u has no doorbell", queue);
	return LV_OUT_WRITE(doorbell, &o);
}
