/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See direct_rights.h. Names are looked up once, when the mount starts.
 */
#include "daemon/direct_rights.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_SIZE 256u

/* False: it is no number. */
static bool number_parse(const char *text, uint32_t *number)
{
	char *end;
	unsigned long long n;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || *end || n >= UINT32_MAX) /* -1 is nobody at all */
		return false;
	*number = (uint32_t)n;
	return true;
}

static int entry_parse(const char *text, struct direct_rights *rights, char *why, size_t why_size)
{
	bool group = *text == '@';
	const char *name = text + group;
	const struct passwd *user;
	const struct group *found;
	uint32_t id = 0;

	if (rights->count == DIRECT_ENTRIES_MAX) {
		snprintf(why, why_size, "direct=: more than %u users and groups", DIRECT_ENTRIES_MAX);
		return -EINVAL;
	}
	if (strcmp(text, "*") == 0) {
		rights->entries[rights->count++].kind = DIRECT_EVERYBODY;
		return 0;
	}
	if (!number_parse(name, &id)) {
		user = group ? NULL : getpwnam(name);
		found = group ? getgrnam(name) : NULL;
		if (!user && !found) {
			snprintf(why, why_size, "direct=: there is no %s '%s'", group ? "group" : "user",
				 name);
			return -EINVAL;
		}
		id = user ? user->pw_uid : found->gr_gid;
	}
	rights->entries[rights->count].kind = group ? DIRECT_GROUP : DIRECT_USER;
	rights->entries[rights->count++].id = id;
	return 0;
}

static int list_parse(const char *list, struct direct_rights *rights, char *why, size_t why_size)
{
	char name[NAME_SIZE];
	int rc = 0;

	for (const char *from = list; rc == 0; from++) {
		size_t len = strcspn(from, "+");

		if (len == 0 || len >= sizeof(name)) {
			snprintf(why, why_size, "direct=: a name in '%s' is %s", list,
				 len ? "too long" : "missing");
			return -EINVAL;
		}
		memcpy(name, from, len);
		name[len] = '\0';
		rc = entry_parse(name, rights, why, why_size);
		from += len;
		if (*from == '\0')
			break;
	}
	return rc;
}

int direct_rights_parse(const char *value, struct direct_rights *rights, char *why, size_t why_size)
{
	size_t len = strcspn(value, ":");
	struct direct_rights parsed = { 0 };
	uint32_t how;
	int rc = 0;

	if (len == 3 && memcmp(value, "off", 3) == 0 && value[len] == '\0') {
		*rights = parsed;
		return 0;
	}
	if (len == 2 && memcmp(value, "ro", 2) == 0) {
		how = UMBRA_DIRECT_READ;
	} else if (len == 2 && memcmp(value, "rw", 2) == 0) {
		how = UMBRA_DIRECT_READ | UMBRA_DIRECT_WRITE;
	} else {
		snprintf(why, why_size, "direct=%s: must be off, ro, rw, ro:LIST or rw:LIST", value);
		return -EINVAL;
	}
	if (value[len] == ':') {
		parsed.owners = DIRECT_RIGHTS_DEFAULT.owners;
		parsed.listed = how;
		rc = list_parse(value + len + 1, &parsed, why, why_size);
	} else {
		parsed.owners = how;
	}
	if (rc == 0)
		*rights = parsed;
	return rc;
}

uint32_t direct_rights_of(const struct direct_rights *rights, uid_t uid,
			  bool (*has_group)(void *arg, uint32_t gid), void *arg)
{
	if (uid == 0 || uid == geteuid())
		return rights->owners;
	for (unsigned i = 0; i < rights->count; i++) {
		uint32_t id = rights->entries[i].id;

		switch (rights->entries[i].kind) {
		case DIRECT_EVERYBODY:
			return rights->listed;
		case DIRECT_USER:
			if (id == uid)
				return rights->listed;
			break;
		case DIRECT_GROUP:
			if (has_group(arg, id))
				return rights->listed;
			break;
		}
	}
	return 0;
}
