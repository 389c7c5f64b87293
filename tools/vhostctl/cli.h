/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What the subcommands share: number parsing, one-line errors, text or JSON reports. */
#ifndef VHOSTCTL_CLI_H
#define VHOSTCTL_CLI_H

#include <argp.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <vhost/libvhost.h>

struct command {
	const char *name, *summary;
	int (*run)(int argc, char **argv);
};
extern const struct command probe_command, blk_test_command, net_test_command, serve_command, trace_command,
	upgrade_command, freeze_command, thaw_command;

/* "256M" -> bytes; suffixes K M G T are powers of 1024. Ends the program through argp_error() when wrong or outside
 * [min, max]. */
uint64_t parse_number(struct argp_state *state, const char *what, const char *text, uint64_t min, uint64_t max);

/* The parser of subcommands that take one URI: what is left to it when a key is not theirs. */
error_t parse_uri(int key, char *arg, struct argp_state *state, const char **uri, const char *example);

/* Complaints go to a buffer instead, the last one stays; NULL = to standard error again. */
void complain_into(char *buf, size_t cap);
/* Prints "vhostctl: ..." on standard error and returns 1, the exit status of every failure. */
int complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same with the library's own text. */
int complain_ctx(struct libvhost_ctx *ctx, const char *what, int rc);
int complain_dev(struct libvhost_dev *dev, const char *what, int rc);

/* "VIRTIO_BLK_F_MQ" or "bit 57". */
const char *feature_text(uint32_t virtio_id, uint32_t bit, char *buf, size_t cap);

/* Virtio device types by the name people use: "blk" -> 2. 0 = unknown name. */
uint32_t virtio_id_by_name(const char *name);

/* Prints json on standard output and frees it. */
void print_json(json_t *json);

/* Set by SIGINT and SIGTERM once catch_signals() ran. */
extern volatile bool interrupted;
void catch_signals(void);

double seconds_now(void);

#endif
