/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A vDPA driver for DPDK's vhost library, unmodified: what hardware drivers ask a front-end for. Each queue has a page
 * of a file as its doorbell, given when the device is configured; a ring of it is answered with a configuration change.
 * Queues serve nothing. One front-end after the other. Usage: vdpa SOCKET EAL-ARGUMENT… --vdev net_null0
 */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_vdpa.h>
#include <rte_vhost.h>

#define QUEUES	 2
#define PAGE	 4096
#define FEATURES (1ull << 32 | 1ull << 30) /* VERSION_1, protocol features */

/* The interface of drivers, which DPDK does not install. */
struct rte_vdpa_dev_ops {
	int (*get_queue_num)(struct rte_vdpa_device *dev, uint32_t *queues);
	int (*get_features)(struct rte_vdpa_device *dev, uint64_t *features);
	int (*get_protocol_features)(struct rte_vdpa_device *dev, uint64_t *features);
	int (*dev_conf)(int vid);
	int (*dev_close)(int vid);
	int (*dev_cleanup)(int vid);
	int (*set_vring_state)(int vid, int vring, int state);
	int (*set_features)(int vid);
	int (*migration_done)(int vid);
	int (*get_vfio_group_fd)(int vid);
	int (*get_vfio_device_fd)(int vid);
	int (*get_notify_area)(int vid, int queue, uint64_t *offset, uint64_t *size);
	void *not_used_here[8];
};
struct rte_vdpa_device *rte_vdpa_register_device(struct rte_device *dev, struct rte_vdpa_dev_ops *ops);
int rte_vhost_host_notifier_ctrl(int vid, uint16_t queue, bool enable);

static int bell_file;
static volatile uint32_t *bells;
static volatile int connection = -1;

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "vdpa: %s failed\n", what);
	exit(1);
}

static int get_queue_num(struct rte_vdpa_device *dev, uint32_t *queues)
{
	(void)dev;
	*queues = QUEUES;
	return 0;
}

static int get_features(struct rte_vdpa_device *dev, uint64_t *features)
{
	(void)dev;
	*features = FEATURES;
	return 0;
}

static int get_protocol_features(struct rte_vdpa_device *dev, uint64_t *features)
{
	(void)dev;
	*features = 1ull << VHOST_USER_PROTOCOL_F_MQ | 1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK |
		    1ull << VHOST_USER_PROTOCOL_F_SLAVE_REQ | 1ull << VHOST_USER_PROTOCOL_F_CONFIG |
		    1ull << VHOST_USER_PROTOCOL_F_SLAVE_SEND_FD | 1ull << VHOST_USER_PROTOCOL_F_HOST_NOTIFIER;
	return 0;
}

static uint32_t *bell(int queue)
{
	return (uint32_t *)(uintptr_t)bells + queue * (PAGE / sizeof(*bells));
}

/* The front-end waits for its own answer meanwhile. */
static int dev_conf(int vid)
{
	for (int q = 0; q < QUEUES; q++)
		*bell(q) = 100 + q;
	printf("vdpa: doorbells: %d\n", rte_vhost_host_notifier_ctrl(vid, UINT16_MAX, true));
	connection = vid;
	return 0;
}

static int dev_close(int vid)
{
	connection = -1;
	printf("vdpa: doorbells back: %d\n", rte_vhost_host_notifier_ctrl(vid, UINT16_MAX, false));
	return 0;
}

static int set_vring_state(int vid, int vring, int state)
{
	(void)vid, (void)vring, (void)state;
	return 0;
}

static int set_features(int vid)
{
	(void)vid;
	return 0;
}

static int get_vfio_device_fd(int vid)
{
	(void)vid;
	return bell_file;
}

static int get_notify_area(int vid, int queue, uint64_t *offset, uint64_t *size)
{
	(void)vid;
	*offset = (uint64_t)queue * PAGE;
	*size = PAGE;
	return 0;
}

static void watch_bells(void)
{
	for (;; usleep(1000))
		for (int q = 0; q < QUEUES; q++) {
			if (connection < 0 || *bell(q) >= 100)
				continue;
			*bell(q) = 100 + q;
			/* the first awaits the front-end's answer, the second wants none */
			printf("vdpa: change: %d\n", rte_vhost_slave_config_change(connection, q == 0));
		}
}

static struct rte_vdpa_device *driver(void)
{
	static struct rte_vdpa_dev_ops ops = {.get_queue_num = get_queue_num,
					      .get_features = get_features,
					      .get_protocol_features = get_protocol_features,
					      .dev_conf = dev_conf,
					      .dev_close = dev_close,
					      .set_vring_state = set_vring_state,
					      .set_features = set_features,
					      .get_vfio_device_fd = get_vfio_device_fd,
					      .get_notify_area = get_notify_area};
	struct rte_eth_dev_info info;
	struct rte_vdpa_device *dev;

	must(!rte_eth_dev_info_get(0, &info), "finding a device");
	dev = rte_vdpa_register_device(info.device, &ops);
	must(dev, "registration");
	return dev;
}

int main(int argc, char **argv)
{
	static const struct rte_vhost_device_ops none;
	const char *path = argv[1];
	uint64_t features;

	setvbuf(stdout, NULL, _IOLBF, 0);
	must(argc > 2 && rte_eal_init(argc - 1, argv + 1) >= 0, "EAL");
	bell_file = memfd_create("bells", MFD_CLOEXEC);
	must(bell_file >= 0 && !ftruncate(bell_file, QUEUES * PAGE), "doorbells");
	bells = mmap(NULL, QUEUES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, bell_file, 0);
	must(bells != MAP_FAILED, "doorbells");
	must(!rte_vhost_driver_register(path, 0), "socket");
	must(!rte_vhost_driver_attach_vdpa_device(path, driver()), "driver");
	get_protocol_features(NULL, &features);
	must(!rte_vhost_driver_set_protocol_features(path, features), "protocol features");
	must(!rte_vhost_driver_callback_register(path, &none), "callbacks");
	must(!rte_vhost_driver_start(path), "start");
	watch_bells();
}
