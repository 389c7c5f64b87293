/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* vhostctl: look at, exercise, serve and trace vhost devices. Uses the public API only. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const struct command *const commands[] = {&probe_command,  &blk_test_command, &net_test_command,
						 &serve_command,  &trace_command,    &upgrade_command,
						 &freeze_command, &thaw_command,     NULL};

static void usage(FILE *out)
{
	fputs("usage: vhostctl COMMAND [ARGUMENT...]\n\n", out);
	for (size_t i = 0; commands[i]; i++)
		fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
	fputs("\nvhostctl COMMAND --help explains a command. A device is named by a URI: user:/run/blk.sock connects "
	      "to a\n"
	      "vhost-user socket, user-listen:/run/blk.sock waits there for a back-end that connects.\n",
	      out);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;
	char full[64];

	if (!name || !strcmp(name, "--help") || !strcmp(name, "help")) {
		usage(name ? stdout : stderr);
		return name ? 0 : 1;
	}
	if (!strcmp(name, "--version")) {
		printf("vhostctl %s\n", libvhost_version_string());
		return 0;
	}
	for (size_t i = 0; commands[i]; i++) {
		if (strcmp(name, commands[i]->name))
			continue;
		snprintf(full, sizeof(full), "vhostctl %s", name);
		argv[1] = full;
		argp_err_exit_status = 1;
		return commands[i]->run(argc - 1, argv + 1);
	}
	return complain("there is no command '%s'; vhostctl --help lists them", name);
}
