/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* docs/sandbox.md lists exactly the policy table. To renew the list: tests/sandbox/sandbox doc, and paste. */
#include "check.h"
#include "inside.h"

#include <stdlib.h>

/* "every", or the names of the roles. */
static const char *roles(const struct lv_rule *rule, char *text, size_t cap)
{
	static const char *const names[] = {"ring", "block", "stream", "control", "guarded"};

	if (rule->roles == LV_ROLES_ALL)
		return "every";
	text[0] = 0;
	for (uint32_t role = 0; role <= LV_GUARDED; role++)
		if (rule->roles >> role & 1)
			snprintf(text + strlen(text), cap - strlen(text), "%s%s", text[0] ? ", " : "", names[role]);
	return text;
}

static void expected(char *text, size_t cap)
{
	const struct lv_rule *rule;
	char who[64];
	size_t len = 0;

	text[0] = 0;
	for (uint32_t n = 0; (rule = lv_rule(n)) != NULL && len < cap; n++)
		len += (size_t)snprintf(text + len, cap - len, "| `%s` | %s | %s%s%s | %s |\n", rule->name,
					roles(rule, who, sizeof(who)), rule->nargs ? "`" : "",
					rule->nargs ? rule->condition : "any", rule->nargs ? "`" : "", rule->why);
}

static void actual(char *text, size_t cap)
{
	const char *top = getenv("top_srcdir");
	char path[1024];
	bool in_list = false;
	size_t len = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/docs/sandbox.md", top ? top : ".");
	f = fopen(path, "re");
	text[0] = 0;
	while (f && len < cap - 1 && fgets(text + len, (int)(cap - len), f)) {
		if (in_list && !strncmp(text + len, "| `", 3))
			len += strlen(text + len);
		in_list |= !strncmp(text + len, "| call |", 8);
	}
	text[len] = 0;
	if (f)
		fclose(f);
}

TEST(doc, manual_lists_the_policy)
{
	static char want[16384], have[16384];

	expected(want, sizeof(want));
	actual(have, sizeof(have));
	if (strcmp(want, have))
		printf("%s", want);
	CHECK(!strcmp(want, have));
}
