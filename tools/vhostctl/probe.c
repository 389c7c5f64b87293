/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* vhostctl probe: what a peer offers. */
#include "cli.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blk_wire.h"

struct args {
	const char *uri;
	uint32_t virtio_id;
	uint32_t timeout_ms;
	bool json;
};

static const struct argp_option options[] = {
	{"type", 't', "NAME", 0, "device type (blk, net, fs, ...): names feature bits and reads configuration space",
	 0},
	{"timeout", 'T', "MS", 0, "give up after so many milliseconds (default 5000)", 0},
	{"json", 'j', NULL, 0, "print JSON", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *a = state->input;

	switch (key) {
	case 't':
		a->virtio_id = virtio_id_by_name(arg);
		if (!a->virtio_id)
			argp_failure(state, 1, 0, "--type: '%s' is not a device type", arg);
		return 0;
	case 'T':
		a->timeout_ms = (uint32_t)parse_number(state, "--timeout", arg, 1, 3600000);
		return 0;
	case 'j':
		a->json = true;
		return 0;
	default:
		return parse_uri(key, arg, state, &a->uri, "user:/run/blk.sock");
	}
}

static json_t *bit_names(uint64_t word, uint32_t base, const char *(*name)(uint32_t id, uint32_t bit, char *, size_t),
			 uint32_t id, json_t *list)
{
	char buf[16];

	for (uint32_t bit = 0; bit < 64; bit++)
		if (word >> bit & 1)
			json_array_append_new(list, json_string(name(id, base + bit, buf, sizeof(buf))));
	return list;
}

static const char *protocol_text(uint32_t id, uint32_t bit, char *buf, size_t cap)
{
	const char *name = libvhost_protocol_feature_name(bit);

	(void)id;
	if (name)
		return name;
	snprintf(buf, cap, "bit %u", bit);
	return buf;
}

static json_t *hex(uint64_t n)
{
	return json_sprintf("0x%" PRIx64, n);
}

/* Block devices: the fields people look for. Other types: none. A peer may refuse, but not go away or fall silent:
 * then NULL. */
static json_t *config_json(struct libvhost_dev *dev, uint32_t virtio_id, uint32_t timeout_ms)
{
	struct blk_config blk = {0};
	json_t *config;
	int rc;

	if (virtio_id != VIRTIO_ID_BLOCK)
		return json_null();
	rc = libvhost_dev_get_config(dev, 0, &blk, BLK_CONFIG_BYTES, timeout_ms);
	if (rc == -EIO || rc == -ENOTSUP)
		return json_sprintf("not readable: %s", strerror(-rc));
	if (rc < 0) {
		complain_dev(dev, "configuration", rc);
		return NULL;
	}
	config = json_object();
	json_object_set_new(config, "capacity_bytes", json_integer((json_int_t)(le64toh(blk.capacity) * 512)));
	json_object_set_new(config, "block_size", json_integer(le32toh(blk.blk_size)));
	json_object_set_new(config, "seg_max", json_integer(le32toh(blk.seg_max)));
	json_object_set_new(config, "num_queues", json_integer(le16toh(blk.num_queues)));
	return config;
}

/* NULL = complained. */
static json_t *probe_json(struct libvhost_dev *dev, const struct args *a)
{
	static const char *const dialects[] = {"vhost-user", "kernel", "vdpa"};
	struct libvhost_transport_caps caps = {.size = sizeof(caps)};
	struct libvhost_dev_info info = {.size = sizeof(info)};
	json_t *config = config_json(dev, a->virtio_id, a->timeout_ms), *out, *names;

	if (!config)
		return NULL;
	out = json_object();
	names = json_array();
	libvhost_dev_info(dev, &info);
	libvhost_transport_query(libvhost_dev_transport(dev, 0), &caps);
	json_object_set_new(out, "peer", json_string(caps.peer));
	json_object_set_new(out, "dialect", json_string(dialects[info.dialect % 3]));
	json_object_set_new(out, "queues", json_integer(info.max_queues));
	json_object_set_new(out, "memory_slots", json_integer(info.max_regions));
	json_object_set_new(out, "features", hex(info.features[0]));
	for (uint32_t w = 0; w < LIBVHOST_FEATURE_WORDS; w++)
		bit_names(info.features[w], 64 * w, feature_text, a->virtio_id, names);
	json_object_set_new(out, "feature_names", names);
	json_object_set_new(out, "protocol_features", hex(info.protocol_features));
	json_object_set_new(out, "protocol_feature_names",
			    bit_names(info.protocol_features, 0, protocol_text, 0, json_array()));
	json_object_set_new(out, "protocol_features_in_use", hex(info.acked_protocol_features));
	json_object_set_new(out, "config", config);
	return out;
}

static void print_list(json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		printf("%s%s", i ? i % 3 ? ", " : ",\n                          " : "",
		       json_string_value(json_array_get(list, i)));
	putchar('\n');
}

static void print_fields(json_t *object)
{
	const char *comma = "";

	for (void *i = json_object_iter(object); i; i = json_object_iter_next(object, i)) {
		printf("%s%s %" JSON_INTEGER_FORMAT, comma, json_object_iter_key(i),
		       json_integer_value(json_object_iter_value(i)));
		comma = ", ";
	}
	putchar('\n');
}

static void print_value(const char *key, json_t *value)
{
	printf("%-26s", key);
	if (json_is_string(value))
		puts(json_string_value(value));
	else if (json_is_integer(value))
		printf("%" JSON_INTEGER_FORMAT "\n", json_integer_value(value));
	else if (json_is_array(value))
		print_list(value);
	else if (json_is_object(value))
		print_fields(value);
	else
		puts("– (name the device type with --type)");
}

static int run(int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, "URI", "Connects, negotiates, prints what the peer offers, disconnects.",
		NULL,	 NULL,	NULL};
	struct args a = {.timeout_ms = 5000};
	struct libvhost_dev_opts opts = {.size = sizeof(opts), .num_queues = 1};
	struct libvhost_ctx *ctx;
	struct libvhost_mem *mem;
	struct libvhost_dev *dev;
	json_t *out;
	int rc;

	argp_parse(&argp, argc, argv, 0, NULL, &a);
	if (libvhost_ctx_new(NULL, &ctx) < 0 || libvhost_mem_new(ctx, NULL, &mem) < 0)
		return complain("out of memory");
	opts.uri = a.uri;
	opts.virtio_id = a.virtio_id;
	opts.timeout_ms = a.timeout_ms;
	opts.mem = mem;
	rc = libvhost_dev_init(ctx, &opts, &dev);
	if (rc < 0) {
		complain_ctx(ctx, "probe", rc);
	} else {
		out = probe_json(dev, &a);
		libvhost_dev_cleanup(dev);
		if (!out) {
			rc = -1;
		} else if (a.json) {
			print_json(out);
		} else {
			for (void *i = json_object_iter(out); i; i = json_object_iter_next(out, i))
				print_value(json_object_iter_key(i), json_object_iter_value(i));
			json_decref(out);
		}
	}
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return rc < 0;
}

const struct command probe_command = {"probe",
				      "print what a peer offers: features, queues, memory slots, configuration", run};
